"""A Cache answers as a Store does: the same requests at both, compared byte for byte."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from cache_harness import Behind, one_store
from store_data_harness import Answer, new_fid

from haystack.fid import Fid

OWN = ("via", "x-cache", "age", "date")
"""What a Cache adds, and what a second may change."""

SIZES = [0, 1, 10, 4096, 16_384, 50_000, 400_000]


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    with one_store(tmp_path_factory.mktemp("contract")) as behind:
        yield behind


@pytest.fixture(scope="module")
def fids(behind: Behind) -> list[Fid]:
    found = []
    for size in SIZES:
        for alternate in (0, 3):
            fid = new_fid(alternate=alternate)
            fields = [("Content-Type", "image/jpeg"), ("X-Haystack-Meta-Place", "Köln")] if alternate else []
            if size == 4096:
                fields.append(("Content-Disposition", 'inline; filename="späte.jpg"'))
            encoded = [(name, value.encode().decode("latin-1")) for name, value in fields]
            behind.put(fid, random.Random(size).randbytes(size), *encoded)
            found.append(fid)
    lasting = new_fid()
    with behind.store.client() as client:
        assert client.put(f"/{lasting}?ttl=3h", b"for a while").status == 201
    return [*found, lasting]


def same(ours: Answer, theirs: Answer) -> None:
    assert (ours.status, ours.body) == (theirs.status, theirs.body)
    mine = {name: value for name, value in ours.headers.items() if name not in OWN}
    other = {name: value for name, value in theirs.headers.items() if name not in OWN}
    if "expires" in other:  # a Cache counts from when the Store gave it, and says how long ago that was
        seconds = [int(one.pop("cache-control").partition("max-age=")[2]) for one in (mine, other)]
        assert 0 <= seconds[0] - seconds[1] <= 60
    assert mine == other
    if ours.status in (200, 206, 304):
        assert ours.headers["via"] == "1.1 haystack-cache"
        assert ours.headers["x-cache"] in ("hit", "miss", "pass")


def requests(fid: Fid, etag: str, modified: str, dice: random.Random) -> Iterator[tuple[str, str, dict[str, str]]]:
    path = f"/{fid}"
    volume, _, rest = str(fid).partition(",")
    yield "GET", path, {}
    yield "HEAD", path, {}
    for other in (f"{path}.jpg", f"/{volume}/{rest}", f"/{volume}/{rest}/name.jpg", f"{path}?dl", f"{path}?dl=1&x=y"):
        yield "GET", other, {}
    for tag in (etag, f'W/{etag}, "x"', "*", '"other"'):
        yield "GET", path, {"If-None-Match": tag}
        yield "HEAD", path, {"If-None-Match": tag}
    yield "GET", path, {"If-Modified-Since": modified}
    yield "GET", path, {"If-Modified-Since": "Thu, 01 Jan 1970 00:00:10 GMT"}
    for value in ("bytes=0-0", "bytes=5-", "bytes=-7", "bytes=3-8", "bytes=9999999-", "bytes=0-1,3-4", "lines=1-2"):
        yield "GET", path, {"Range": value}
        yield "HEAD", path, {"Range": value}
    for _ in range(6):
        first = dice.randrange(450_000)
        yield "GET", path, {"Range": f"bytes={first}-{first + dice.randrange(100_000)}"}
    yield "GET", path, {"Range": "bytes=1-2", "If-Range": etag}
    yield "GET", path, {"Range": "bytes=1-2", "If-Range": '"other"'}
    yield "GET", path, {"Range": "bytes=1-2", "If-Range": modified}


def test_answers_are_a_stores_answers(behind: Behind, fids: list[Fid]) -> None:
    dice = random.Random(1)
    compared = 0
    with behind.store.client() as store, behind.node.client() as cache:
        for fid in fids:
            known = store.request("HEAD", f"/{fid}")
            for method, path, fields in requests(fid, known.headers["etag"], known.headers["last-modified"], dice):
                headers = list(fields.items())
                same(cache.request(method, path, headers=headers), store.request(method, path, headers=headers))
                compared += 1
    assert compared > 500


def test_what_is_not_there_is_not_there_in_the_same_words(behind: Behind, fids: list[Fid]) -> None:
    fid = fids[0]
    wrong = [
        f"/{Fid(fid.volume, fid.key, fid.cookie ^ 1)}",
        f"/{new_fid()}",
        f"/{new_fid(alternate=4)}",
        "/3,xyz",
        "/x/y",
    ]
    for path in wrong:
        for method in ("GET", "HEAD"):
            with behind.store.client() as store, behind.node.client() as cache:
                same(cache.request(method, path), store.request(method, path))


def test_fast_and_strict_ways_say_the_same(behind: Behind, fids: list[Fid]) -> None:
    """A field that is sent for the first time makes the request go the strict way."""
    with behind.node.client() as cache:
        for place, fid in enumerate(fids):
            cache.get(f"/{fid}")
            strict = cache.get(f"/{fid}", X_Never=f"seen-{place}")
            fast = cache.get(f"/{fid}")
            again = cache.get(f"/{fid}")
            for one in (fast, again):
                same(one, strict)
                assert one.headers["x-cache"] == strict.headers["x-cache"] == "hit"


def test_a_locator_is_passed_through(behind: Behind, fids: list[Fid]) -> None:
    fid = fids[6]
    entry = behind.store.volumes[1].find(fid.key, fid.alternate)
    assert entry is not None
    volume, _, rest = str(fid).partition(",")
    path = f"/{volume}@{entry.offset:x},{rest}"
    with behind.store.client() as store, behind.node.client() as cache:
        answer = cache.get(path)
        same(answer, store.get(path))
        assert answer.headers["x-cache"] == "pass"
