"""Photos that are given to signed URLs alone: a Cache keeps them, and gives them to whom a Store would give them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cache_harness import Behind, freeze, one_store, thaw, until
from store_data_harness import Answer, new_fid

from cache.signatures import OWN_SECONDS, own_path
from haystack.fid import Fid, Locator
from haystack.signed_urls import UrlSigner

SECRET = b"0123456789abcdef0123456789abcdef"
SIGNER = UrlSigner(SECRET)
OWN = ("via", "x-cache", "age", "date", "cache-control")
SIZES = (0, 10, 20_000, 600_000)
"""The last one is sent while it is being fetched."""


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    with one_store(tmp_path_factory.mktemp("signed"), secret=SECRET) as behind:
        yield behind


def put(behind: Behind, fid: Fid, body: bytes, query: str = "signed=true") -> dict[str, Any]:
    with behind.store.client() as client:
        answer = client.put(f"/{fid}?{query}", body, ("Content-Type", "image/jpeg"))
    assert answer.status == 201
    return dict(answer.json())


def query(fid: Fid, seconds: float = 60) -> str:
    return SIGNER.query(fid, int(time.time() + seconds))


def wrong_queries(fid: Fid) -> list[str]:
    other = Fid(fid.volume, fid.key, fid.cookie, fid.alternate + 1)
    right = query(fid)
    late = right.replace("e=", "e=1", 1)
    wrong = [
        "",
        query(fid, -1),
        query(other),
        right[:-1],
        late,
        "s=x",
        "e=99999999999",
        right.replace("&s=", "&S="),
        "e",
    ]
    return [f"?{one}" if one else "" for one in wrong]


def max_age(answer: Answer) -> int:
    private, age = answer.headers["cache-control"].split(", ")
    assert private == "private"
    return int(age.removeprefix("max-age="))


def same(ours: Answer, theirs: Answer) -> None:
    assert (ours.status, ours.body) == (theirs.status, theirs.body)
    if ours.status in (200, 206, 304):
        assert abs(max_age(ours) - max_age(theirs)) <= 1
        assert ours.headers.get("age") in ("0", None)  # browsers subtract it
    mine, other = ({name: value for name, value in one.headers.items() if name not in OWN} for one in (ours, theirs))
    assert mine == other


@pytest.mark.parametrize("size_bytes", SIZES)
def test_shown_to_whom_a_store_shows_it(behind: Behind, size_bytes: int) -> None:
    fid, body = new_fid(alternate=2), random.Random(size_bytes).randbytes(size_bytes)
    put(behind, fid, body)
    ranges: list[dict[str, str]] = [{}, {"Range": "bytes=1-5"}, {"Range": "bytes=9999999-"}, {"If-None-Match": "*"}]
    with behind.store.client() as store, behind.node.client() as cache:
        for _ in range(2):  # not here yet, and here; somebody without a signature is the first to ask
            for method in ("GET", "HEAD"):
                for fields in ranges:
                    headers = list(fields.items())
                    for wrong in wrong_queries(fid):
                        answer = cache.request(method, f"/{fid}{wrong}", headers=headers)
                        assert answer.status == 404, wrong
                        same(answer, store.request(method, f"/{fid}{wrong}", headers=headers))
                    for right in (f"/{fid}?{query(fid)}", f"/{fid}.jpg?dl=1&{query(fid)}"):
                        same(
                            cache.request(method, right, headers=headers),
                            store.request(method, right, headers=headers),
                        )
        assert cache.get(f"/{fid}?{query(fid)}").headers["x-cache"] == "hit"
        assert cache.get(f"/{fid}").status == 404


def test_the_answers_of_unknown_and_of_unsigned_photos_do_not_differ(behind: Behind) -> None:
    hidden, unknown = new_fid(), new_fid()
    put(behind, hidden, b"hidden")
    with behind.node.client() as cache:
        assert cache.get(f"/{hidden}?{query(hidden)}").status == 200
        first, second = cache.get(f"/{hidden}"), cache.get(f"/{unknown}")
    assert first.status == second.status == 404
    assert first.body.replace(str(hidden).encode(), b"") == second.body.replace(str(unknown).encode(), b"")
    assert first.headers.keys() == second.headers.keys()


def test_who_has_no_signature_does_not_hide_it_from_others(behind: Behind) -> None:
    """Neither what is known not to be there nor what is kept depends on who asked first."""
    fid = new_fid()
    put(behind, fid, b"of the family")
    with behind.node.client() as cache:
        assert cache.get(f"/{fid}").status == 404
        answer = cache.get(f"/{fid}?{query(fid)}")
        assert (answer.status, answer.body, answer.headers["x-cache"]) == (200, b"of the family", "hit")


def test_one_fetch_is_judged_for_each_who_waits(behind: Behind) -> None:
    fids = [new_fid() for _ in SIZES]
    for fid, size_bytes in zip(fids, SIZES, strict=True):
        put(behind, fid, bytes(size_bytes))

    async def ask(path: str) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", behind.node.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return int(answer.split(b" ", 2)[1])

    async def run(fid: Fid) -> None:
        right, wrong = f"/{fid}?{query(fid)}", f"/{fid}?{query(fid, -5)}"
        paths = [right, wrong, f"/{fid}", right, wrong] * 4
        statuses = asyncio.gather(*(ask(path) for path in paths))
        await asyncio.sleep(0.3)  # the Store is frozen: all of them wait for the same fetch
        thaw(behind.store.processes[0].pid)
        assert await statuses == [200, 404, 404, 200, 404] * 4

    for fid in fids:
        freeze(behind.store.processes[0].pid)
        try:
            asyncio.run(run(fid))
        finally:
            thaw(behind.store.processes[0].pid)


def test_a_signature_ends(behind: Behind) -> None:
    fid = new_fid()
    put(behind, fid, b"soon over")
    with behind.node.client() as cache:
        short = query(fid, 2)
        assert cache.get(f"/{fid}?{short}").status == 200
        assert max_age(cache.get(f"/{fid}?{short}")) <= 2
        until(lambda: cache.get(f"/{fid}?{short}").status == 404)
        assert max_age(cache.get(f"/{fid}?{query(fid, 7200)}")) == 3600


def test_what_may_be_deleted_is_asked_for_with_a_signature(behind: Behind) -> None:
    fid, gone = new_fid(), new_fid()
    put(behind, fid, b"still there")
    put(behind, gone, b"not any more")
    with behind.node.client() as cache:
        for one in (fid, gone):
            assert cache.get(f"/{one}?{query(one)}").status == 200
        behind.delete(gone)
        before = behind.node.counter("revalidations")
        behind.directory.change(1, None, None, "unsure")
        time.sleep(0.6)  # the fetch itself vouches for half a second
        answer = cache.get(f"/{fid}?{query(fid)}")
        assert (answer.status, answer.headers["x-cache"]) == (200, "hit")
        assert cache.get(f"/{gone}?{query(gone)}").status == 404
        until(lambda: behind.node.counter("revalidations") >= before + 2)


def test_passed_through_by_name_by_place_and_by_id(tmp_path: Path) -> None:
    fid, body = new_fid(), random.Random(3).randbytes(9 * 2**20)
    with one_store(tmp_path, secret=SECRET) as behind:
        where = Locator.parse(put(behind, fid, body)["locator"])
        behind.directory.photos[fid.key] = [str(fid)]
        with behind.node.client() as cache:
            for path in (f"/{fid}", f"/{where}", f"/photo/{fid.key:x}"):
                for wrong in wrong_queries(fid):
                    assert cache.request("HEAD", path + wrong).status == 404
                answer = cache.get(f"{path}?{query(fid)}")
                assert (answer.status, answer.headers["x-cache"], answer.body) == (200, "pass", body)
                assert 50 <= max_age(answer) <= 60


def test_the_own_signature_reaches_far_enough() -> None:
    fid = Fid(3, 5, 7, 1)
    path, _, text = own_path(SIGNER, fid, 1000.5).partition("?")
    expires, signature = text.removeprefix("e=").split("&s=")
    assert path == f"/{fid}" and int(expires) == 1000 + OWN_SECONDS
    assert SIGNER.valid_until(fid, expires, signature) == int(expires)
    assert own_path(UrlSigner(None), fid, 1000.5) == f"/{fid}"


def test_what_is_stale_stays_private(tmp_path: Path) -> None:
    """A proxy may keep what is to be asked for again; this is nobody's but the one's who has the URL."""
    with one_store(tmp_path, secret=SECRET) as behind, behind.node.client() as client:
        fid = new_fid()
        put(behind, fid, b"seen by few")
        path = f"/{fid}?{query(fid)}"
        assert client.get(path).body == b"seen by few"
        behind.directory.silent = True
        pid = behind.store.processes[0].pid
        freeze(pid)
        try:
            until(lambda: client.get(path).headers["x-cache"] == "stale", "nobody answers")
            assert client.get(path).headers["cache-control"] == "private, no-cache"
        finally:
            thaw(pid)
