"""Who may do what to whose photos: every role, every visibility, every call, from a table."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from postgres_server import new_database
from site_harness import Person, Place, running

VISIBILITIES = ("public", "followers", "private")
ROLES = ("owner", "follower", "stranger", "nobody")
SEES = {
    "public": {"owner", "follower", "stranger", "nobody"},
    "followers": {"owner", "follower"},
    "private": {"owner"},
}

READS = ("", "/small", "/original", "/download", "/comments", "/likes")
"""Calls that show something of a photo: 404 for who may not see it."""

TALK: tuple[tuple[str, str, Any], ...] = (
    ("PUT", "/like", {"reaction": "wow"}),
    ("DELETE", "/like", None),
    ("POST", "/comments", {"text": "hm"}),
)
"""Calls for all who may see it and are logged in."""

CHANGES: tuple[tuple[str, str, Any], ...] = (
    ("PATCH", "", {"title": "taken over"}),
    ("PATCH", "", {"visibility": "public"}),
    ("PATCH", "", {"visibility": "private"}),
    ("PATCH", "", {"place": None}),
    ("DELETE", "", None),
)
"""Calls for the owner alone."""


class Scene:
    """An owner with a photo of each visibility, a follower, a stranger and nobody."""

    def __init__(self, place: Place, people: dict[str, Person], photos: dict[str, Any]) -> None:
        self.place, self.people, self.photos = place, people, photos


@pytest.fixture(params=["sqlite", "postgresql"])
async def scene(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Scene]:
    given = {} if request.param == "sqlite" else {"database": new_database(request.getfixturevalue("postgres"))}
    async with running(tmp_path, **given) as place:
        people = {role: await place.person(role) for role in ROLES[:-1]} | {"nobody": place.nobody}
        await people["follower"].ok("PUT", "/users/owner/follow")
        photos = {
            one: await people["owner"].upload(one.encode(), visibility=one, title="subject", tags="subject")
            for one in VISIBILITIES
        }
        yield Scene(place, people, photos)


async def test_only_who_may_sees_it(scene: Scene) -> None:
    for visibility in VISIBILITIES:
        for role, person in scene.people.items():
            for path in READS:
                status, _ = await person.call("GET", f"/photos/{scene.photos[visibility]['id']}{path}")
                assert (status in (200, 302)) is (role in SEES[visibility]), (role, visibility, path)
                assert status in (200, 302, 404)


async def test_lists_show_only_what_one_may_see(scene: Scene) -> None:
    ids = {scene.photos[one]["id"]: one for one in VISIBILITIES}
    for role, person in scene.people.items():
        allowed = {one for one in VISIBILITIES if role in SEES[one]}
        lists = ["/users/owner/photos", "/users/owner/top?period=ever", "/top?period=ever", "/search?q=subject"]
        lists += ["/search?q=%23subject%20@owner"]
        for path in lists:
            found = {ids[one["id"]] for one in (await person.ok("GET", path))["photos"]}
            assert found == allowed, (role, path)
        explored = {ids[one["id"]] for one in (await person.ok("GET", "/photos"))["photos"]}
        assert explored == {"public"}
    feed = {ids[one["id"]] for one in (await scene.people["follower"].ok("GET", "/feed"))["photos"]}
    assert feed == {"public", "followers"}
    assert (await scene.people["stranger"].ok("GET", "/feed"))["photos"] == []


async def test_talk_is_for_those_who_see_it_and_are_logged_in(scene: Scene) -> None:
    for visibility in VISIBILITIES:
        for role, person in scene.people.items():
            for method, path, body in TALK:
                status, _ = await person.call(method, f"/photos/{scene.photos[visibility]['id']}{path}", body)
                expected = {401} if role == "nobody" else {200, 201} if role in SEES[visibility] else {404}
                assert status in expected, (role, visibility, method, path)


async def test_only_its_owner_changes_or_deletes_it(scene: Scene) -> None:
    for visibility in VISIBILITIES:
        for role in ("follower", "stranger", "nobody"):
            for method, path, body in CHANGES:
                person = scene.people[role]
                status, _ = await person.call(method, f"/photos/{scene.photos[visibility]['id']}{path}", body)
                expected = 401 if role == "nobody" else 403 if role in SEES[visibility] else 404
                assert status == expected, (role, visibility, method, body)
    for visibility in VISIBILITIES:
        path = f"/photos/{scene.photos[visibility]['id']}"
        seen = await scene.people["owner"].ok("GET", path)
        assert (seen["title"], seen["visibility"]) == ("subject", visibility)
        await scene.people["owner"].ok("DELETE", path)
        assert (await scene.people["owner"].call("GET", path))[0] == 404


async def test_who_unfollows_sees_no_more(scene: Scene) -> None:
    path = f"/photos/{scene.photos['followers']['id']}"
    follower = scene.people["follower"]
    assert (await follower.call("GET", path))[0] == 200
    await follower.ok("DELETE", "/users/owner/follow")
    assert (await follower.call("GET", path))[0] == 404
    assert (await follower.ok("GET", "/feed"))["photos"] == []


async def test_comments_are_deleted_by_author_and_owner_alone(scene: Scene) -> None:
    path = f"/photos/{scene.photos['public']['id']}/comments"
    for remover, allowed in (("stranger", False), ("nobody", False), ("follower", True), ("owner", True)):
        written = await scene.people["follower"].ok("POST", path, {"text": "mine"})
        status, _ = await scene.people[remover].call("DELETE", f"{path}/{written['id']}")
        assert status == (204 if allowed else 401 if remover == "nobody" else 403)
    other = f"/photos/{scene.photos['followers']['id']}/comments/{written['id']}"
    assert (await scene.people["owner"].call("DELETE", other))[0] == 404


async def test_what_belongs_to_an_account_is_its_own(scene: Scene) -> None:
    owner, stranger = scene.people["owner"], scene.people["stranger"]
    [token] = (await owner.ok("GET", "/tokens"))["tokens"]
    assert (await stranger.call("DELETE", f"/tokens/{token['id']}"))[0] == 404
    assert "email" not in await stranger.ok("GET", "/users/owner")
    await owner.ok("PATCH", "/me", {"email": "o@example.org"})
    status, answer = await stranger.call("PATCH", "/me", {"email": "O@example.org"})
    assert status == 409 and "owner" not in answer["detail"]


async def test_the_bytes_are_given_to_nobody_else(scene: Scene) -> None:
    """At the store, too: without a signature, with another photo's, and with one that was changed."""
    session = scene.place.session
    for visibility in ("followers", "private"):
        mine, other = scene.photos[visibility]["pictures"], scene.photos["public"]["pictures"]
        assert all("?" not in one["url"] for one in other)
        bare, _, signature = mine[0]["url"].partition("?")
        expires = signature.partition("&")[0].removeprefix("e=")
        forged = (
            "",
            "?" + mine[1]["url"].partition("?")[2],
            f"?{signature.replace(expires, str(int(expires) + 3600))}",
            f"?e={expires}",
            f"?e={expires}&s=",
        )
        for query in forged:
            async with session.get(bare + query) as response:
                assert response.status == 404, query
        async with session.get(mine[0]["url"]) as response:
            assert response.status == 200


async def test_who_sees_a_photo_no_more_has_no_say_under_it(scene: Scene) -> None:
    """Not even over what he wrote himself: he would learn that it is still there."""
    path = f"/photos/{scene.photos['followers']['id']}"
    owner, follower = scene.people["owner"], scene.people["follower"]
    written = await follower.ok("POST", f"{path}/comments", {"text": "mine"})
    await follower.ok("PUT", f"{path}/like", {"reaction": "love"})
    await owner.ok("PATCH", path, {"visibility": "private"})
    for method, rest, body in (
        *TALK,
        ("DELETE", f"/comments/{written['id']}", None),
        *(("GET", one, None) for one in READS),
    ):
        assert (await follower.call(method, f"{path}{rest}", body))[0] == 404, (method, rest)
    assert (await owner.ok("GET", f"{path}/comments"))["comments"][0]["id"] == written["id"]
    assert (await owner.ok("GET", f"{path}/likes"))["counts"] == {"love": 1}


async def test_words_of_hidden_photos_are_told_to_nobody(scene: Scene) -> None:
    """Neither by results, nor as the right spelling of a word that is nearly one of them."""
    owner = scene.people["owner"]
    for visibility in VISIBILITIES[1:]:
        words = {"title": f"xylophone{visibility}", "tags": f"quetzal{visibility}", "caption": f"zephyr{visibility}"}
        await owner.upload(f"words {visibility}".encode(), visibility=visibility, **words)
        for word in words.values():
            for query in (word, word[:-1], word[:4] + word[5:], f"%23{word}", f"{word} subject"):
                for role, person in scene.people.items():
                    found = await person.ok("GET", f"/search?q={query}")
                    if role not in SEES[visibility]:
                        assert (found["photos"], found["spelt"]) == ([], None), (role, query)


async def test_keys_cursors_and_lookalikes_are_ones_own(scene: Scene) -> None:
    owner, stranger = scene.people["owner"], scene.people["stranger"]
    first = await owner.upload(b"same", key="k", visibility="private")
    other = await stranger.upload(
        b"same", key="k"
    )  # the same file with the same key is another upload of somebody else
    assert other["id"] != first["id"] and other["owner"] == "stranger" and other["alike"] == []
    asked = {"size": 4, "name": "a.jpg"}
    offers = [await one.ok("POST", "/uploads", asked, headers={"Idempotency-Key": "t"}) for one in (owner, stranger)]
    assert len({offer["photo"] for offer in offers}) == len({offer["ticket"] for offer in offers}) == 2
    await scene.people["follower"].ok("PUT", "/users/stranger/follow")
    page = await scene.people["follower"].ok("GET", "/feed?limit=1")
    assert page["next"] is not None
    assert (await stranger.call("GET", f"/feed?cursor={page['next']}"))[0] == 422
