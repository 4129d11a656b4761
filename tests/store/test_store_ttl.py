"""Photos that have an end: what is said of it, and that nothing is given from then on, in any way of reading."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

import msgpack
import pytest
from store_data_harness import FORM_TYPE, MIB, Answer, Client, LocalStore, drop_cache, form, head, new_fid, running

from haystack.fid import Locator
from haystack.store.answers import expiring_headers
from haystack.volume import NeedleMeta

BODY = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 20
SIZES = (0, 10, 100_000, 300_000, 3 * MIB, 9 * MIB)
"""Copied, sent out of the page cache, too large for a buffer, for the event loop, and for being held."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStore]:
    folder: Path = tmp_path_factory.mktemp("ttl")
    with running(folder, max_photo_bytes=16 * MIB, max_volume_bytes=256 * MIB) as started:
        yield started


@pytest.fixture
def client(store: LocalStore) -> Iterator[Client]:
    with store.client() as opened:
        yield opened


def require_ends_in(answer: Answer, seconds: int) -> None:
    public, max_age = answer.headers["cache-control"].split(", ")
    assert public == "public"
    left_seconds = int(max_age.removeprefix("max-age="))
    assert seconds - 30 <= left_seconds <= seconds + 1
    assert abs(parsedate_to_datetime(answer.headers["expires"]).timestamp() - time.time() - left_seconds) < 30


def test_caches_are_told_when_a_photo_ends(client: Client) -> None:
    fid = new_fid()
    assert client.put(f"/{fid}?ttl=3m", BODY, ("Content-Type", "image/jpeg")).status == 201
    answers = [client.get(f"/{fid}") for _ in range(3)]
    answers += [client.request("HEAD", f"/{fid}"), client.get(f"/{fid}", Range="bytes=0-9")]
    answers += [client.get(f"/{fid}", If_None_Match=answers[0].headers["etag"])]
    assert [one.status for one in answers] == [200, 200, 200, 200, 206, 304]
    assert {one.headers["etag"] for one in answers} == {answers[0].headers["etag"]}
    for answer in answers:
        require_ends_in(answer, 180)
    assert answers[0].body == BODY and answers[0].headers["content-type"] == "image/jpeg"


def test_all_ways_of_uploading_have_a_ttl(client: Client) -> None:
    fids = [new_fid() for _ in range(5)]
    assert client.request("POST", f"/{fids[0]}?ttl=1h", BODY).status == 201
    assert client.request("POST", f"/{fids[1]}?ttl=1h", form(BODY), [FORM_TYPE]).status == 201
    items: list[dict[str, object]] = [{"fid": str(fid), "data": BODY} for fid in fids[2:]]
    items[1]["ttl"] = "2d"
    items[2]["ttl"] = ""
    assert client.request("POST", "/1/multi?ttl=3600", msgpack.packb(items)).status == 201
    answers = [client.get(f"/{fid}") for fid in fids]
    for answer, seconds in zip(answers, (3600, 3600, 3600, 2 * 86_400), strict=False):
        require_ends_in(answer, seconds)
    assert "immutable" in answers[4].headers["cache-control"] and "expires" not in answers[4].headers


def test_a_life_of_decades_is_cached_for_a_year(client: Client) -> None:
    fid = new_fid()
    assert client.put(f"/{fid}?ttl=30y", BODY).status == 201
    assert client.get(f"/{fid}").headers["cache-control"] == "public, max-age=31536000"


@pytest.mark.parametrize("ttl", ["soon", "-1", "1s", "137y", "100y"])
def test_a_ttl_that_cannot_be_is_refused_before_the_body(store: LocalStore, ttl: str) -> None:
    fid = new_fid()
    with store.client() as client:
        client.send(head("PUT", f"/{fid}?ttl={ttl}", BODY, [("Expect", "100-continue")]))
        answer = client.answer()
    assert answer.status == 400 and "ttl" in answer.error
    assert store.once("POST", f"/1/multi?ttl={ttl}", b"x").status == 400
    items = msgpack.packb([{"fid": str(fid), "data": BODY, "ttl": ttl}])
    refused = store.once("POST", "/1/multi", items)
    assert refused.status == 400 and "ttl" in refused.error
    assert store.once("GET", f"/{fid}").status == 404


@pytest.mark.parametrize("cold", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_nothing_of_an_expired_photo_is_given(store: LocalStore, size: int, cold: bool) -> None:
    now = int(time.time())
    for expires, status in ((now - 1, 404), (now + 3600, 200)):
        fid = new_fid()
        stored = store.volumes[1].put(fid.key, fid.cookie, bytes(size), meta=NeedleMeta("a"), expires=expires)
        if cold:
            drop_cache(store.path())
        with store.client() as client:
            answers = [client.get(f"/{fid}") for _ in range(3)]
            answers += [client.get(f"/{name}") for name in (f"{fid}.jpg", f"{fid}?dl", Locator(fid, stored.offset))]
            answers += [client.request("HEAD", f"/{fid}"), client.get(f"/{fid}", If_Range='"x"')]
            assert [one.status for one in answers] == [status] * len(answers)
            etag = f'"{stored.checksum:016x}"'
            assert client.get(f"/{fid}", If_None_Match=etag).status == (404 if status == 404 else 304)
            if size:
                assert client.get(f"/{fid}", Range="bytes=0-1").status == (404 if status == 404 else 206)
            assert client.get(f"/{fid}", Range="bytes=99999999-").status == (404 if status == 404 else 416)
            if status == 404:
                assert all("expires" not in one.headers for one in answers)
                assert {one.headers["cache-control"] for one in answers} == {"no-store"}


def test_an_expired_photo_that_the_index_has_lost_is_not_found_by_its_offset(store: LocalStore) -> None:
    now, volume = int(time.time()), store.volumes[1]
    for expires, status in ((now - 1, 404), (now + 3600, 200)):
        fid = new_fid()
        stored = volume.put(fid.key, fid.cookie, BODY, expires=expires)
        with volume.index.write() as writer:
            entry = writer.get(fid.key, 0)
            assert entry is not None
            writer.take_back(fid.key, 0, entry)
        assert store.once("GET", f"/{Locator(fid, stored.offset)}").status == status


def test_a_photo_is_given_up_to_its_second_and_not_after_it(store: LocalStore, client: Client) -> None:
    fid = new_fid()
    stored = client.put(f"/{fid}?ttl=1", BODY).json()
    header = store.volumes[1].get(fid.key, fid.cookie).header
    assert header.expires - header.time_ms / 1000 >= 1
    given = 0
    while True:
        asked = time.time()
        answer = client.get(f"/{fid if given % 2 else stored['locator']}")
        if answer.status == 404:
            break
        assert answer.status == 200 and asked < header.expires
        assert answer.headers["cache-control"] in ("public, max-age=0", "public, max-age=1", "public, max-age=2")
        given += 1
        time.sleep(0.01)  # the end of its life is what is waited for
    assert given and time.time() >= header.expires
    assert [client.get(f"/{fid}").status for _ in range(3)] == [404] * 3


def test_an_expired_photo_is_not_there_for_deletes_and_its_cookie_guards_its_name(
    store: LocalStore, client: Client
) -> None:
    fid = new_fid()
    store.volumes[1].put(fid.key, fid.cookie, BODY, expires=int(time.time()) - 1)
    assert client.delete(f"/{fid}").status == 404
    assert client.request("POST", f"/{fid}?undelete=true").status == 404
    assert client.put(f"/{new_fid(key=fid.key)}", b"stranger").status == 409
    assert client.put(f"/{fid}", b"again").status == 201
    answers = [client.get(f"/{fid}") for _ in range(3)]
    assert [one.body for one in answers] == [b"again"] * 3
    assert "immutable" in answers[2].headers["cache-control"]


def test_a_cached_photo_that_gets_an_end_is_not_given_beyond_it(store: LocalStore, client: Client) -> None:
    fid = new_fid()
    client.put(f"/{fid}", BODY)
    assert {client.get(f"/{fid}").status for _ in range(3)} == {200}
    assert client.put(f"/{fid}?ttl=1h", BODY).status == 201
    for _ in range(3):
        require_ends_in(client.get(f"/{fid}"), 3600)


def test_headers_of_the_last_second() -> None:
    lines = expiring_headers(b"", 1, 5, 1_700_000_000, 1_699_999_999.9)
    assert b"Cache-Control: public, max-age=0\r\nExpires: Tue, 14 Nov 2023 22:13:20 GMT\r\n" in lines
    assert lines.count(b"Cache-Control") == 1
