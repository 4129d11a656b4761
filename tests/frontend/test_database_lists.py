"""Feeds and top photos, beside what they ought to be; sums of periods day by day; databases of earlier releases."""

from __future__ import annotations

import random
import time
from pathlib import Path

import alembic.command
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from database_harness import KINDS, Scene, make_database
from postgres_server import new_database
from sqlalchemy import Connection, event, insert, select, text, update

from frontend.database import browsing, migrating, points, talk
from frontend.database.engine import Database
from frontend.database.feed import feed
from frontend.database.finding import find, parse_query
from frontend.database.migrating import migrate
from frontend.database.points import EVER, LIKE_POINTS, PERIODS
from frontend.database.tables import daily, metadata, users, windows
from frontend.database.tables import points as points_table
from frontend.database.top import top
from frontend.visibility import Visibility

# -- feeds


def feed_pages(scene: Scene, viewer: str, limit: int) -> list[int]:
    found, after = [], None
    while True:
        page = scene.do(feed, scene.person(viewer), after, limit)
        found += [photo.id for photo in page.items]
        after = page.next
        if after is None:
            return found


@pytest.mark.parametrize("limit", [1, 2, 7, 100])
def test_a_feed_is_the_newest_of_those_who_are_followed(scene: Scene, limit: int) -> None:
    dice, wanted = random.Random(limit), []
    names = [f"user{number}" for number in range(12)]
    followed = names[:8]
    for name in followed:
        scene.follow("viewer", name)
    for number in range(1, 61):
        owner, visibility = dice.choice(names[2:]), dice.choice(list(Visibility))
        made = scene.photo(number, owner, created_ms=dice.randrange(15), visibility=visibility)  # many at the same time
        if owner in followed and visibility is not Visibility.PRIVATE:
            wanted.append((made.created_ms, number))
    assert feed_pages(scene, "viewer", limit) == [number for _, number in sorted(wanted, reverse=True)]
    assert feed_pages(scene, "nobody", limit) == []


# -- maps


def test_a_map_has_the_newest_places_of_its_owner_alone(scene: Scene) -> None:
    for number in range(1, 21):
        place = {"latitude": float(number), "longitude": -float(number)} if number % 2 else {}
        scene.photo(number, "anna", visibility=Visibility(number % 3), title=f"n{number}", **place)
    scene.photo(50, "ben", latitude=1.0, longitude=1.0)
    anna = scene.person("anna")
    assert [spot.photo_id for spot in scene.do(browsing.spots, anna, 4)] == [19, 17, 15, 13]
    assert scene.do(browsing.spots, anna, 100)[-1] == browsing.Spot(1, 1.0, -1.0)
    assert scene.do(browsing.titles, anna, [1, 2, 50, 99]) == {1: "n1", 2: "n2"}


def test_a_map_is_read_out_of_an_index_alone(tmp_path: Path) -> None:
    database = make_database("sqlite", tmp_path, lambda: "")
    seen: list[str] = []

    def explained(connection: Connection) -> None:
        event.listen(connection, "before_cursor_execute", lambda *given: seen.append(given[2]))
        browsing.spots(connection, 1, 10)
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {seen[0]}", (1, 10, 0)).all()
        assert [row[3] for row in rows] == ["SEARCH photos USING COVERING INDEX ix_photos_places (owner_id=?)"]

    database.write_now(explained)
    database.close()


# -- top photos


def best(scene: Scene, period: int, owner: str | None = None, viewer: str | None = None) -> list[int]:
    viewer_id = None if viewer is None else scene.person(viewer)
    owner_id = None if owner is None else scene.person(owner)
    return [photo.id for photo in scene.do(top, viewer_id, owner_id, period, 10)]


def rows(connection: Connection) -> dict[tuple[int, int], int]:
    return {(row.photo_id, row.period): row.points for row in connection.execute(select(points_table))}


def sums(connection: Connection, today: int) -> dict[tuple[int, int], int]:
    """What the sums ought to be, from the days."""
    found: dict[tuple[int, int], int] = {}
    for row in connection.execute(select(daily)):
        for period in (*PERIODS, EVER):
            if period == EVER or row.day > today - period:
                key = row.photo_id, period
                found[key] = found.get(key, 0) + row.views + LIKE_POINTS * row.likes
    return {key: value for key, value in found.items() if value or key[1] == EVER}


def begin_on(connection: Connection, today: int) -> None:
    for period in PERIODS:
        first = {"first_day": today - period + 1, "after_photo_id": -1}
        connection.execute(update(windows).where(windows.c.period == period).values(**first))


@pytest.mark.parametrize("seed", range(3))
def test_sums_are_those_of_their_days(scene: Scene, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(points, "SLICE", 2)
    dice, today = random.Random(seed), 1000
    scene.do(begin_on, today)
    made = {number: scene.photo(number, dice.choice(("anna", "ben"))) for number in range(1, 7)}
    liked: list[tuple[int, int]] = []
    for _ in range(40):
        what = dice.randrange(4)
        number = dice.choice(list(made))
        if what == 0:
            today += dice.choice((1, 1, 2, 6, 29, 400))
            while scene.do(points.roll, today):
                if liked and dice.random() < 0.3:  # in the middle of it
                    photo_id, user_id = liked.pop()
                    scene.do(talk.unlike, made[photo_id], user_id, today * talk.DAY_MS)
        elif what == 1:
            views = {one: 1 + dice.randrange(30) for one in dice.sample(list(made), 3)}
            scene.do(points.count_views, {**views, 999: 5}, today)
        elif what == 2:
            user_id = scene.person(f"fan{len(liked)}x{dice.randrange(10**6)}")
            assert scene.do(talk.like, made[number], user_id, "like", today * talk.DAY_MS + 7)
            liked.append((number, user_id))
        elif liked:
            photo_id, user_id = liked.pop(dice.randrange(len(liked)))
            assert scene.do(talk.unlike, made[photo_id], user_id, today * talk.DAY_MS)
    while scene.do(points.roll, today):
        pass
    found = {key: value for key, value in scene.do(rows).items() if value or key[1] == EVER}
    wanted = {(number, EVER): 0 for number in made} | scene.do(sums, today)
    assert found == wanted
    for period in (*PERIODS, EVER):
        order = sorted(((value, number) for (number, one), value in wanted.items() if one == period), reverse=True)
        assert best(scene, period) == [number for value, number in order if value > 0 or period == EVER]


def test_top_photos_of_a_user_show_what_the_viewer_may_see(scene: Scene) -> None:
    day = scene.do(lambda connection: connection.execute(select(windows).where(windows.c.period == 1)).one()).first_day
    for number, visibility in enumerate(Visibility, start=1):
        scene.photo(number, "anna", visibility=visibility)
    scene.photo(9, "ben")
    scene.do(points.count_views, {1: 1, 2: 2, 3: 3, 9: 9}, day)
    scene.follow("ben", "anna")
    for period in (1, 365, EVER):
        assert best(scene, period, "anna") == [1] and best(scene, period, "anna", "ben") == [2, 1]
        assert best(scene, period, "anna", "anna") == [3, 2, 1] and best(scene, period, viewer="ben") == [9, 2, 1]


# -- migrations


@pytest.mark.parametrize("kind", KINDS)
def test_a_database_of_an_earlier_release_is_brought_on(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    url = f"sqlite:///{tmp_path}/old.db" if kind == "sqlite" else new_database(request.getfixturevalue("postgres"))
    database = Database(url)
    try:
        database.write_now(_upgrade, "0002")
        database.write_now(_fill_of_before)
        migrate(database)
        scene = Scene(database)
        for query, wanted in (
            ("beach", [2, 1]),
            ("#sea", [1]),
            ("@anna", [2, 1]),
            ("near:1,2", [2]),
            ("on:1970", [2, 1]),
        ):
            found = scene.do(find, parse_query(query), None, None, 5)
            assert [photo.id for photo in found.page.items] == wanted, query
        assert [photo.id for photo in scene.do(top, None, None, EVER, 5)] == [1, 2]
        assert [photo.id for photo in scene.do(top, None, None, 7, 5)] == [2]
        assert scene.do(rows)[2, 7] == 4 + 2 * LIKE_POINTS and scene.do(rows)[1, EVER] == 100 + 3 * LIKE_POINTS
        migrate(database)  # nothing is left to do
        assert database.write_now(_differences) == []
    finally:
        database.close()


def _upgrade(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrating._FOLDER))
    config.attributes["connection"] = connection
    alembic.command.upgrade(config, revision)


def _differences(connection: Connection) -> list[object]:
    def known(name: str | None, kind: str, _: object) -> bool:
        return kind != "table" or not str(name).startswith("photo_search")  # which each database has in its own way

    return list(compare_metadata(MigrationContext.configure(connection, opts={"include_name": known}), metadata))


def _fill_of_before(connection: Connection) -> None:
    connection.execute(insert(users).values(id=1, username="anna", name="Anna", created_ms=1, photo_count=2))
    statement = text(
        "INSERT INTO photos (id, owner_id, fid, title, created_ms, latitude, longitude, mime, width, height,"
        " size_bytes, animated, renditions, placeholder, exact_hash, near_hash, view_count, like_count)"
        " VALUES (:id, 1, '1,1', 'Beach', 5, :north, :east, 'image/jpeg', 4, 3, 1, :no, '0', :bytes, :hash, 1,"
        " :views, :likes)"
    )
    for number, place, views, likes in ((1, None, 100, 3), (2, 1.0, 4, 2)):
        values = {"id": number, "north": place, "east": place and 2 * place, "views": views, "likes": likes}
        connection.execute(statement, {**values, "no": False, "bytes": b"", "hash": b"%032d" % number})
    connection.execute(text("INSERT INTO photo_tags (tag, photo_id) VALUES ('sea', 1)"))
    today = int(time.time()) // 86_400
    for day, photo_id, views, likes in ((today, 2, 4, 2), (today - 400, 1, 100, 3)):
        connection.execute(insert(daily).values(day=day, photo_id=photo_id, owner_id=1, views=views, likes=likes))
