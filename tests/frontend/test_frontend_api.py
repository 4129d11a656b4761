"""The API by real HTTP, beside a cluster that is one server of the test."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from postgres_server import new_database
from site_harness import PASSWORD, Place, running


@pytest.fixture(params=["sqlite", "postgresql"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    given = {} if request.param == "sqlite" else {"database": new_database(request.getfixturevalue("postgres"))}
    async with running(tmp_path, **given) as found:
        yield found


async def until(condition: Any) -> None:
    """Wait until something that goes on beside has happened."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - another server's dictionary tells of no event
            await asyncio.sleep(0.01)


async def test_the_life_of_a_photo(place: Place) -> None:
    alice, bob = await place.person("alice"), await place.person("bob")
    made = await alice.upload(b"one", title="  Beach \x07day ", tags="#Summer, sea", caption="At the sea")
    assert (made["title"], made["tags"], made["owner"]) == ("Beach day", ["sea", "summer"], "alice")
    assert made["place"] == {"latitude": 43.5, "longitude": 11.9} and made["alike"] == []
    path = f"/photos/{made['id']}"
    assert (await bob.ok("GET", path))["id"] == made["id"]
    assert (await bob.ok("GET", "/feed"))["photos"] == []
    assert (await bob.ok("PUT", "/users/alice/follow"))["followedByYou"] is True
    assert [one["id"] for one in (await bob.ok("GET", "/feed"))["photos"]] == [made["id"]]
    assert [one["id"] for one in (await place.nobody.ok("GET", "/search?q=bea%20%23sea"))["photos"]] == [made["id"]]
    assert (await bob.ok("PUT", f"{path}/like", {"reaction": "love"})) == {"counts": {"love": 1}, "yours": "love"}
    comment = await bob.ok("POST", f"{path}/comments", {"text": "Nice"})
    assert [one["text"] for one in (await place.nobody.ok("GET", f"{path}/comments"))["comments"]] == ["Nice"]
    seen = await alice.ok("GET", path)
    assert (seen["likes"], seen["comments"]) == (1, 1)
    assert [one["id"] for one in (await bob.ok("GET", "/users/alice/top"))["photos"]] == [made["id"]]
    await bob.ok("DELETE", f"{path}/comments/{comment['id']}")
    assert (await bob.ok("DELETE", f"{path}/like")) == {"counts": {}, "yours": None}
    await alice.ok("DELETE", path)
    assert (await alice.call("GET", path))[0] == 404
    assert (await bob.ok("GET", "/feed"))["photos"] == []
    await until(lambda: not place.machine.needles)


async def test_pictures_are_redirected_to_where_they_are(place: Place) -> None:
    alice = await place.person("alice")
    made = await alice.upload(b"bytes of it")
    fid = next(iter(place.machine.taken.values())).fid
    path = f"/photos/{made['id']}"
    _, webp = await place.nobody.call("GET", f"{path}/small", headers={"Accept": "image/avif,image/webp,*/*"})
    _, jpeg = await place.nobody.call("GET", f"{path}/small", headers={"Accept": "image/*"})
    _, named = await place.nobody.call("GET", f"{path}/small?format=webp")
    assert (webp, jpeg, named) == tuple(f"http://{place.machine.address}/{fid}_{n}" for n in (12, 2, 12))
    status, saved = await place.nobody.call("GET", f"{path}/download")
    assert (status, saved) == (302, f"http://{place.machine.address}/{fid}?dl=true")
    async with place.session.get(jpeg) as response:
        assert await response.read() == b"bytes of it"
    large = next(one for one in made["pictures"] if one["size"] == "large")
    assert (large["width"], large["height"], large["format"]) == (1080, 810, "webp")


async def test_a_cdn_is_named_instead(tmp_path: Path) -> None:
    async with running(tmp_path, images_url="https://cdn.example.org") as place:
        made = await (await place.person("alice")).upload()
        assert all(one["url"].startswith("https://cdn.example.org/1,") for one in made["pictures"])


async def test_private_photos_have_urls_that_end(place: Place) -> None:
    alice = await place.person("alice")
    made = await alice.upload(b"secret", visibility="private")
    url = made["pictures"][0]["url"]
    for address, status in ((url, 200), (url.partition("?")[0], 404), (url[:-1] + "~", 404)):
        async with place.session.get(address) as response:
            assert response.status == status
    assert (await place.nobody.call("GET", f"/photos/{made['id']}/small"))[0] == 404
    assert (await alice.call("GET", f"/photos/{made['id']}/small"))[0] == 302


@pytest.mark.parametrize("before, after", [("public", "private"), ("private", "public"), ("followers", "private")])
async def test_another_visibility_kills_the_urls_of_before(place: Place, before: str, after: str) -> None:
    alice = await place.person("alice")
    made = await alice.upload(b"moving", visibility=before, title="Stays")
    old = made["pictures"][0]["url"]
    changed = await alice.ok("PATCH", f"/photos/{made['id']}", {"visibility": after})
    assert (changed["id"], changed["visibility"], changed["title"]) == (made["id"], after, "Stays")
    await until(lambda: len(place.machine.needles) == 10)
    new = changed["pictures"][0]["url"]
    assert ("?e=" in new) is (after != "public")
    for address, status in ((old, 404), (new, 200)):
        async with place.session.get(address) as response:
            assert response.status == status


async def test_nothing_changes_when_the_store_takes_nothing(place: Place) -> None:
    alice = await place.person("alice")
    made = await alice.upload(b"staying")
    place.machine.refuse_store = True
    status, answer = await alice.call("PATCH", f"/photos/{made['id']}", {"visibility": "private"})
    assert status == 503 and "disk is full" in answer["detail"]
    assert (await alice.ok("GET", f"/photos/{made['id']}"))["visibility"] == "public"


async def test_a_changed_record_is_stored_beside_the_photo(place: Place) -> None:
    alice = await place.person("alice")
    made = await alice.upload(b"x", title="Before")
    changes = {"title": "After", "place": None, "tags": ["new"]}
    changed = await alice.ok("PATCH", f"/photos/{made['id']}", changes)
    assert (changed["title"], changed["place"], changed["tags"]) == ("After", None, ["new"])
    record = next(name for name in place.machine.needles if name.endswith("_99"))
    await until(lambda: b'"title":"After"' in place.machine.needles[record][0])
    assert b'"latitude":null' in place.machine.needles[record][0]
    assert b'"name":"beach.jpg"' in place.machine.needles[record][0]


async def test_an_upload_asked_for_twice_is_one_photo(place: Place) -> None:
    alice = await place.person("alice")
    first, second = await alice.upload(b"same", key="k1"), await alice.upload(b"same", key="k1")
    assert first["id"] == second["id"]
    form = aiohttp.FormData()
    form.add_field("file", b"other", filename="x.jpg")
    status, _ = await alice.call("POST", "/photos", data=form, headers={"Idempotency-Key": "k1"})
    assert status == 409
    third = await alice.upload(b"same", key="k2")
    assert third["id"] != first["id"] and third["alike"] == [first["id"]]


async def test_tickets_are_given_once_for_a_key(place: Place) -> None:
    alice = await place.person("alice")
    wish = {"size": 3, "name": "a.jpg", "visibility": "private", "tags": ["x"]}
    answers = await asyncio.gather(
        *(alice.ok("POST", "/uploads", wish, headers={"Idempotency-Key": "k"}) for _ in range(5))
    )
    assert len({one["ticket"] for one in answers}) == 1
    other = await alice.ok("POST", "/uploads", wish)
    assert other["ticket"] != answers[0]["ticket"]
    assert (await alice.call("POST", "/uploads", {**wish, "size": 4}, headers={"Idempotency-Key": "k"}))[0] == 409
    for wrong in ("two words", "k" * 101, "ä"):
        assert (await alice.call("POST", "/uploads", wish, headers={"Idempotency-Key": wrong}))[0] == 422
    headers = {"Authorization": f"Bearer {other['ticket']}"}
    async with place.session.post(other["uploadUrl"], data=b"abc", headers=headers) as response:
        assert response.status == 201
        record = (await response.json())["record"]
    for status in (201, 200):
        assert (await place.internal("/internal/photos", json.dumps(record).encode()))[0] == status
    assert (await alice.ok("GET", f"/photos/{other['photo']}"))["visibility"] == "private"
    await alice.ok("DELETE", f"/photos/{other['photo']}")
    # An intake that has not heard our answer tells us once more.
    assert (await place.internal("/internal/photos", json.dumps(record).encode()))[0] == 200
    assert (await alice.call("GET", f"/photos/{other['photo']}"))[0] == 404


async def test_publishing_needs_the_secret(place: Place) -> None:
    assert (await place.internal("/internal/photos", b"{}", None))[0] == 401
    assert (await place.internal("/internal/photos", b"{}", b"x" * 32))[0] == 401
    assert (await place.internal("/internal/photos", b"{}"))[0] == 400


async def test_what_the_intake_refuses_is_refused(place: Place) -> None:
    alice = await place.person("alice")
    for status, told in ((422, 422), (413, 413), (403, 422)):
        place.machine.refuse_upload = (status, "not this one")
        form = aiohttp.FormData()
        form.add_field("file", b"x", filename="x.jpg")
        answer = await alice.call("POST", "/photos", data=form)
        assert answer[0] == told and answer[1]["detail"] == "not this one"


async def test_forms_that_are_none(tmp_path: Path) -> None:
    async with running(tmp_path, max_upload_bytes=1000) as place:
        alice = await place.person("alice")

        async def send(*fields: tuple[str, Any, str | None], **headers: str) -> tuple[int, str]:
            form = aiohttp.FormData(default_to_multipart=True)
            for name, value, file_name in fields:
                form.add_field(name, value, filename=file_name)
            status, answer = await alice.call("POST", "/photos", data=form, headers=headers)
            return status, answer["detail"]

        assert (await send(("title", "x", None)))[0] == 422
        assert (await send(("file", b"x", "a"), ("file", b"x", "b")))[0] == 422
        assert (await send(("file", b"", "a")))[0] == 422
        assert (await send(("file", b"x" * 1001, "a")))[0] == 413
        assert (await send(("file", b"x", "a"), ("unknown", "x", None)))[0] == 422
        assert (await send(("file", b"x", "a"), ("visibility", "all", None)))[0] == 422
        assert (await send(("title", BytesIO(b"\xff\xfe"), None), ("file", b"x", "a")))[0] == 400
        assert (await send(*[("t", "x", None)] * 30))[0] == 400
        assert (await alice.call("POST", "/photos", {"title": "x"}))[0] == 415
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        garbage = (
            b"garbage",
            b"",
            b"--x",
            b"--x--",
            b"--x\r\n1.2e-38--x--\r\n",
            b"--x\r\nContent-Disposition: form-data; name=file; filename=a\r\n\r\nnever ends",
            b"--x\r\nContent-Disposition: form-data; name=t\r\nContent-Encoding: br\r\n\r\nx\r\n--x--\r\n",
            b"--x\r\nContent-Type: multipart/mixed; boundary=y\r\n\r\n--y--\r\n--x--\r\n",
            b"--x\r\n" + b"A: b\r\n" * 3000 + b"\r\nx\r\n--x--\r\n",
        )
        for body in garbage:
            status, _ = await alice.call("POST", "/photos", data=body, headers=headers)
            assert status in (400, 413, 422), body[:80]
        for kind in ("", '; boundary=""', "; boundary=" + "y" * 100):
            headers = {"Content-Type": f"multipart/form-data{kind}"}
            assert (await alice.call("POST", "/photos", data=b"--y--", headers=headers))[0] in (400, 415, 422), kind
        assert place.machine.uploads == 0


async def test_tokens_and_sessions(place: Place) -> None:
    alice = await place.person("alice")
    nobody = place.nobody
    for login in ("alice", "nobody_here"):
        status, answer = await nobody.call("POST", "/sessions", {"login": login, "password": "wrong password"})
        assert (status, answer["detail"]) == (401, "user name or password is wrong")
    async with place.session.post(f"{place.api}/sessions", json={"login": "ALICE", "password": PASSWORD}) as response:
        cookie, body = response.headers["Set-Cookie"], await response.json()
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and "Secure" not in cookie
    session = {"Cookie": cookie.partition(";")[0]}
    assert (await nobody.ok("GET", "/me", headers=session))["username"] == "alice"
    tokens = (await nobody.ok("GET", "/tokens", headers=session))["tokens"]
    csrf = {**session, "X-CSRF-Token": body["csrfToken"]}
    await nobody.ok("DELETE", f"/tokens/{tokens[0]['id']}", headers=csrf)
    assert (await alice.call("GET", "/me"))[0] == 401
    change = {"oldPassword": PASSWORD, "newPassword": "another password"}
    assert (await nobody.call("PUT", "/me/password", {**change, "oldPassword": "wrong"}, headers=csrf))[0] == 401
    await nobody.ok("PUT", "/me/password", change, headers=csrf)
    assert (await nobody.call("GET", "/me", headers=session))[0] == 401
    assert (await nobody.call("POST", "/sessions", {"login": "alice", "password": PASSWORD}))[0] == 401


async def test_the_cookie_is_secure_under_https(tmp_path: Path) -> None:
    async with running(tmp_path, public_url="https://photos.example.org") as place:
        await place.person("alice")
        login = {"login": "alice", "password": PASSWORD}
        async with place.session.post(f"{place.api}/sessions", json=login) as response:
            cookie = response.headers["Set-Cookie"]
    assert cookie.startswith("__Host-haystack_session=") and "Secure" in cookie and "Path=/" in cookie


@pytest.mark.parametrize(
    "headers, allowed",
    [
        ({}, False),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "OWN"}, True),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site", "Origin": "OWN"}, False),
        ({"X-CSRF-Token": "TOKEN"}, True),
        ({"X-CSRF-Token": "wrong"}, False),
        ({"X-CSRF-Token": "TOKEN", "Origin": "https://evil.example"}, False),
    ],
)
async def test_changes_by_the_cookie_come_from_our_own_pages(
    place: Place, headers: dict[str, str], allowed: bool
) -> None:
    await place.person("bob")
    login = {"username": "alice", "password": PASSWORD}
    async with place.session.post(f"{place.api}/users", json=login) as response:
        cookie, token = response.headers["Set-Cookie"].partition(";")[0], (await response.json())["csrfToken"]
    words = {"OWN": place.url, "TOKEN": token}
    sent = {name: words.get(value, value) for name, value in headers.items()} | {"Cookie": cookie}
    status, _ = await place.nobody.call("PUT", "/users/bob/follow", headers=sent)
    assert status == (200 if allowed else 403)
    assert (await place.nobody.call("GET", "/feed", headers=sent))[0] == 200


async def test_another_site_logs_nobody_in(place: Place) -> None:
    await place.person("alice")
    login = {"login": "alice", "password": PASSWORD}
    evil = {"Origin": "https://evil.example"}
    assert (await place.nobody.call("POST", "/sessions", login, headers=evil))[0] == 403


async def test_limits_are_told_and_kept(tmp_path: Path) -> None:
    async with running(tmp_path, rate_limits="on") as place:
        nobody = place.nobody
        login = {"login": "alice", "password": "wrong password"}
        answers = [await nobody.call("POST", "/sessions", login) for _ in range(11)]
        assert [status for status, _ in answers] == [401] * 10 + [429]
        async with place.session.post(f"{place.api}/sessions", json=login) as response:
            assert response.status == 429 and 1 <= int(response.headers["Retry-After"]) <= 30
        async with place.session.get(f"{place.api}/photos") as response:
            assert response.headers["RateLimit-Policy"] == '"any";q=1200;w=60'
            assert response.headers["RateLimit"].startswith('"any";r=11')
        for path in ("/me", "/photos/1", "/search?q=on:x"):  # refused, and counted all the same
            async with place.session.get(f"{place.api}{path}") as response:
                assert response.status >= 400 and response.headers["RateLimit"].startswith('"any";r=11')


async def test_the_address_is_counted_past_the_proxies(tmp_path: Path) -> None:
    async with running(tmp_path, rate_limits="on", proxies=1) as place:
        login = {"login": "x%d", "password": "wrong password"}

        async def attempt(number: int, forwarded: str) -> int:
            sent = {**login, "login": f"user{number}"}
            return (await place.nobody.call("POST", "/sessions", sent, headers={"X-Forwarded-For": forwarded}))[0]

        # What the client itself puts in front does not help.
        answers = [await attempt(number, f"10.9.9.{number}, 192.0.2.1") for number in range(31)]
        assert answers == [401] * 30 + [429]
        assert await attempt(99, "192.0.2.1, 192.0.2.2") == 401


async def test_errors_are_problems(place: Place) -> None:
    nobody = place.nobody
    for method, path, document, status in (
        ("GET", "/nothing", None, 404),
        ("TRACE", "/photos", None, 405),
        ("GET", "/photos/zz", None, 404),
        ("GET", "/photos/ffffffffffffffff", None, 404),
        ("GET", "/feed", None, 401),
        ("GET", "/photos?limit=0", None, 422),
        ("GET", "/photos?limit=1&limit=2", None, 422),
        ("GET", "/photos?nothing=1", None, 422),
        ("GET", "/photos?cursor=AAAA", None, 422),
        ("GET", "/search?q=%20", None, 400),
        ("POST", "/users", {"username": "x"}, 422),
        ("POST", "/users", {"username": "admin", "password": PASSWORD}, 422),
        ("POST", "/users", None, 415),
    ):
        found, answer = await nobody.call(method, path, document)
        assert (found, answer["status"]) == (status, status), path
    headers = {"Content-Type": "application/json"}
    for raw in (b"{", b"", b'{"login": "\\ud800", "password": "x"}', b"\xff"):
        assert (await nobody.call("POST", "/sessions", data=raw, headers=headers))[0] in (400, 422)
    status, answer = await nobody.call("POST", "/users", {"username": "x", "password": 3, "extra": 1})
    assert {one["field"] for one in answer["errors"]} == {"username", "password", "extra"}
    async with place.session.post(f"{place.api}/users", data=BytesIO(b"x" * 2**21), headers=headers) as response:
        assert response.status == 413


async def test_pages_of_a_list_have_each_photo_once(place: Place) -> None:
    alice = await place.person("alice")
    ids = [(await alice.upload(b"%d" % number))["id"] for number in range(7)]
    found: list[str] = []
    cursor = ""
    while True:
        page = await alice.ok("GET", f"/users/alice/photos?limit=3{cursor}")
        found += [one["id"] for one in page["photos"]]
        if page["next"] is None:
            break
        # New photos come before what was shown, and move nothing.
        await alice.upload(b"new %d" % len(found))
        cursor = f"&cursor={page['next']}"
        assert (await alice.call("GET", f"/photos?cursor={page['next']}"))[0] == 422
    assert found == ids[::-1]


async def test_health(place: Place) -> None:
    await place.nobody.ok("GET", "/photos")
    for path, word in (("/healthz", '"alive": true'), ("/readyz", '"ready": true'), ("/metrics", 'call="listPhotos"')):
        async with place.session.get(place.url + path) as response:
            assert response.status == 200 and word in await response.text()


async def test_the_docs_need_nothing_from_elsewhere(place: Place) -> None:
    async with place.session.get(f"{place.api}/docs") as response:
        text = await response.text()
        policy = response.headers["Content-Security-Policy"]
    assert "uploadPhoto" in text and "http" not in text.replace("http-", "").partition("<h2>")[0]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
