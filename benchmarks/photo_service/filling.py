"""Puts a population into an empty database of the photo service, past the service: rows in bulk, indexes at the end."""

from __future__ import annotations

import hashlib
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import psycopg

from benchmarks.common import progress
from benchmarks.photo_service.population import COMMON_WORD, DAY_MS, RARE_WORD, VOLUMES, Population, Texts, cities
from frontend.database.engine import Database, parse_url
from frontend.database.migrating import migrate
from frontend.database.points import EVER, LIKE_POINTS, PERIODS
from frontend.database.search import Searched, known_words, row_of
from haystack.fid import Fid

RARE_PHOTOS = 3
DAILY_ROWS = (10_000, 4_000)
"""Photos that were seen on each day of the last month, and on each of the year before."""
_PHOTO = (
    "id", "owner_id", "fid", "title", "caption", "visibility", "created_ms",
    "taken_ms", "latitude", "longitude", "camera", "mime", "width", "height", "size_bytes",
    "animated", "renditions", "placeholder", "exact_hash", "near_hash", "like_count", "comment_count", "view_count",
)  # fmt: skip
_RENDITIONS = "0,1,2,3,4,11,12,13,14"
_CAMERAS = ("Canon EOS 40D", "NIKON D70", "SONY DSC-W7", "Apple iPhone 13 Pro", "HMD Nokia 8.3 5G", "")


class Loader(Protocol):
    """A database that takes many rows at once."""

    postgres: bool

    def load(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Append rows to a table."""

    def run(self, statement: str) -> None:
        """Run a statement."""

    def finish(self) -> None:
        """Make the indexes, and close."""


def fill(url: str, population: Population) -> None:
    """Make the tables of an empty database, and fill them."""
    database = Database(url)
    migrate(database)
    database.close()
    parsed = parse_url(url)
    loader = _Sqlite(str(parsed.database)) if parsed.get_backend_name() == "sqlite" else _Postgres(url)
    _Filler(population, loader).fill()


def token_of(user_id: int) -> str:
    """The API token of a user."""
    return f"hst_of-user-{user_id}"


class _Filler:
    def __init__(self, population: Population, loader: Loader) -> None:
        self._population = population
        self._loader = loader
        self._fame = population.fame()
        self._owners = population.owners()
        self._started = time.monotonic()

    def fill(self) -> None:
        self._people()
        self._photos()
        self._talk()
        self._days()
        self._say("points")
        self._points()
        self._say("indexes")
        self._loader.finish()
        self._say("done")

    def _say(self, what: str) -> None:
        progress(f"filling: {what}, {time.monotonic() - self._started:.0f} s")

    def _people(self) -> None:
        self._say("people")
        one, followers, following = self._population, Counter[int](), Counter[int]()

        def rows() -> Iterator[tuple[int, int, int]]:
            for row in one.follows():
                following[row[0]] += 1
                followers[row[1]] += 1
                yield row

        self._loader.load("follows", ("follower_id", "followee_id", "created_ms"), rows())
        photos = Counter(self._owners)
        self._loader.load(
            "users",
            ("id", "username", "name", "bio", "created_ms", "photo_count", "follower_count", "following_count"),
            (
                (user, f"user{user}", f"User {user}", "", 1, photos[user], followers[user], following[user])
                for user in range(1, one.users + 1)
            ),
        )
        self._loader.load(
            "api_tokens",
            ("id", "user_id", "name", "token_hash", "created_ms"),
            (
                (user, user, "t", hashlib.sha256(token_of(user).encode()).digest(), 1)
                for user in range(1, one.users + 1)
            ),
        )

    def _photos(self) -> None:
        self._say("photos")
        tags: list[tuple[str, int]] = []
        words: Counter[str] = Counter()
        searched: list[tuple[int, Searched]] = []

        def rows() -> Iterator[tuple[object, ...]]:
            for number, row, found in self._drawn_photos():
                searched.append((number, found))
                words.update(known_words(found))
                tags.extend((tag, row[0]) for tag in found.tags)
                yield row

        self._loader.load("photos", _PHOTO, rows())
        self._say("tags and words")
        tags.sort()
        self._loader.load("photo_tags", ("tag", "photo_id"), tags)
        self._loader.load("search_words", ("word", "photos"), sorted(words.items()))
        self._say("index of photos")
        keys = ["rowid", "marks"] if not self._loader.postgres else ["photo_id", "document"]
        fields = ["tags", "title", "owner", "caption", "camera"]
        ids = map(self._population.photo_id, range(self._population.photos))
        index_rows = (
            row_of(photo_id, found, postgres=self._loader.postgres)
            for photo_id, (_, found) in zip(ids, searched, strict=True)
        )
        names = ["id", keys[1], *fields]
        self._loader.load("photo_search", [*keys, *fields], ([row[name] for name in names] for row in index_rows))

    def _drawn_photos(self) -> Iterator[tuple[int, tuple[int, *tuple[object, ...]], Searched]]:
        one = self._population
        dice, texts, places = random.Random(one.seed + 3), Texts(one.seed + 4), cities(one.seed)
        rare = set(dice.sample(range(one.photos), min(RARE_PHOTOS, one.photos)))
        for number in range(one.photos):
            photo_id, owner, fame = one.photo_id(number), self._owners[number], self._fame[number]
            created = one.created_ms(number)
            taken = created - dice.randrange(30) * DAY_MS if dice.random() < 0.8 else None
            latitude = longitude = None
            if dice.random() < 0.4:
                city = places[int(len(places) * dice.random() ** 2)]
                latitude, longitude = city[0] + dice.gauss(0, 0.05), city[1] + dice.gauss(0, 0.05) * 0.9
            visibility = dice.choices((0, 1, 2), (88, 8, 4))[0]
            title, caption, tags = texts.title(), texts.caption(), texts.photo_tags()
            if number in rare:
                title, visibility = f"{RARE_WORD} {COMMON_WORD}", 0
            camera = dice.choice(_CAMERAS)
            fid = Fid(1 + number % VOLUMES, photo_id, dice.getrandbits(64))
            row = (
                photo_id, owner, str(fid), title, caption, visibility, created, taken, latitude, longitude, camera,
                "image/jpeg", 4032, 3024, 3_500_000, False, _RENDITIONS, dice.randbytes(24), dice.randbytes(32),
                dice.getrandbits(63), self._likes(fame), self._comments(fame), fame,
            )  # fmt: skip
            when = created if taken is None else taken
            found = Searched(title, caption, tuple(tags), f"user{owner}", camera, visibility, when, latitude, longitude)
            yield number, row, found

    def _likes(self, fame: int) -> int:
        return min(fame // 50, self._population.users // 2)

    def _comments(self, fame: int) -> int:
        return min(fame // 80, 500)

    def _talk(self) -> None:
        self._say("likes and comments")
        one = self._population
        dice = random.Random(one.seed + 5)
        everybody = range(1, one.users + 1)
        self._loader.load(
            "likes",
            ("photo_id", "user_id", "reaction", "created_ms"),
            (
                (one.photo_id(number), user, "like", one.created_ms(number) + 1000)
                for number, fame in enumerate(self._fame)
                for user in sorted(dice.sample(everybody, self._likes(fame)))
            ),
        )
        texts = Texts(one.seed + 6)
        self._loader.load(
            "comments",
            ("photo_id", "author_id", "text", "created_ms"),
            (
                (one.photo_id(number), dice.choice(everybody), texts.title(), one.created_ms(number) + 1000 * later)
                for number, fame in enumerate(self._fame)
                for later in range(self._comments(fame))
            ),
        )

    def _days(self) -> None:
        self._say("views by day")
        one = self._population
        dice = random.Random(one.seed + 7)
        today = one.now_ms // DAY_MS

        def rows() -> Iterator[tuple[int, int, int, int, int]]:
            for back in range(PERIODS[-1] - 1, -1, -1):
                there = max(1, one.photos - back * one.photos // (3 * 365))
                wanted = min(DAILY_ROWS[0] if back < 30 else DAILY_ROWS[1], there)
                # What is new is seen the most.
                for number in sorted({there - 1 - int(there * dice.random() ** 3) for _ in range(wanted)}):
                    views = int(3 * dice.paretovariate(0.8))
                    yield today - back, one.photo_id(number), self._owners[number], min(views, 50_000), views // 20

        self._loader.load("daily", ("day", "photo_id", "owner_id", "views", "likes"), rows())

    def _points(self) -> None:
        today = self._population.now_ms // DAY_MS
        into = "INSERT INTO points (photo_id, period, owner_id, points)"
        self._loader.run(
            f"{into} SELECT id, {EVER}, owner_id, view_count + {LIKE_POINTS} * like_count FROM photos ORDER BY id"  # noqa: S608  # numbers of ours
        )
        for days in PERIODS:
            self._loader.run(
                f"{into} SELECT photo_id, {days}, owner_id, SUM(views + {LIKE_POINTS} * likes) FROM daily"  # noqa: S608  # numbers of ours
                f" WHERE day > {today - days} GROUP BY photo_id, owner_id ORDER BY photo_id"
            )


class _Sqlite:
    postgres = False

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -500000", "temp_store = MEMORY"):
            self._connection.execute(f"PRAGMA {pragma}")
        indexes = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        self._indexes = self._connection.execute(indexes).fetchall()
        for name, _ in self._indexes:
            self._connection.execute(f"DROP INDEX {name}")

    def load(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        marks = ", ".join("?" * len(columns))
        self._connection.execute("BEGIN")
        self._connection.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows)  # noqa: S608  # names of ours
        self._connection.execute("COMMIT")

    def run(self, statement: str) -> None:
        self._connection.execute(statement)

    def finish(self) -> None:
        for _, statement in self._indexes:
            self._connection.execute(statement)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.close()


class _Postgres:
    postgres = True

    def __init__(self, url: str) -> None:
        parsed = parse_url(url)
        self._connection = psycopg.connect(
            host=str(parsed.query["host"]), user=parsed.username, dbname=parsed.database, autocommit=True
        )
        self.run("SET session_replication_role = replica")  # keys of other tables are not looked up row by row
        self.run("SET maintenance_work_mem = '512MB'")
        self.run("SET jit = off")
        found = self._connection.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
            " AND indexname NOT IN (SELECT conname FROM pg_constraint)"
        )
        self._indexes = found.fetchall()
        for name, _ in self._indexes:
            self.run(f"DROP INDEX {name}")

    def load(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        statement = f"COPY {table} ({', '.join(columns)}) FROM STDIN"
        with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)

    def run(self, statement: str) -> None:
        self._connection.execute(statement)

    def finish(self) -> None:
        for _, statement in self._indexes:
            self.run(statement)
        self.run("SELECT setval(pg_get_serial_sequence('users', 'id'), (SELECT max(id) FROM users))")
        self.run("VACUUM ANALYZE")
        self.run("CHECKPOINT")  # what was filled in is not written beside the measurement
        self._connection.close()
