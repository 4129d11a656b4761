"""A Cache with one Store behind it: hits, misses, deletes, and what it says of itself."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cache_harness import Behind, cache_node, one_store, until
from store_data_harness import MIB, new_fid, parse_metrics

from haystack.fid import Fid


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    with one_store(tmp_path_factory.mktemp("basics")) as behind:
        yield behind


def body_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize("size", [0, 1, 3000, 20_000, 70_000, 300_000, 3 * MIB])
def test_miss_then_hits(behind: Behind, size: int) -> None:
    body = body_of(size)
    fetches = behind.node.counter("fetches")
    with behind.store.client() as uploader, behind.node.client() as client:
        fid = new_fid()
        uploader.put(f"/{fid}", body, ("Content-Type", "image/x"))
        first = client.get(f"/{fid}")
        assert first.status == 200, first
        assert (first.body, first.headers["x-cache"]) == (body, "miss")
        for _ in range(4):
            answer = client.get(f"/{fid}")
            assert (answer.status, answer.body, answer.headers["x-cache"]) == (200, body, "hit")
            assert answer.headers["via"] == "1.1 haystack-cache"
            assert answer.headers["age"].isdecimal()
        behind.node.counted("fetches", fetches + 1)


def test_a_delete_that_the_feed_tells_of_is_gone(behind: Behind) -> None:
    with behind.store.client() as uploader, behind.node.client() as client:
        fid = new_fid()
        uploader.put(f"/{fid}", b"photo")
        for _ in range(3):
            assert client.get(f"/{fid}").status == 200
        uploader.delete(f"/{fid}")
        behind.directory.change(1, fid.key)
        until(lambda: client.get(f"/{fid}").status == 404, "the photo is gone")


def test_what_is_asked_for_once_pushes_nothing_out_that_was_asked_for_twice(tmp_path: Path) -> None:
    """The request that brings a photo is not one that asks for it again."""
    with one_store(tmp_path, memory_bytes=92 * MIB) as behind, behind.node.client() as client:
        popular = new_fid()
        behind.put(popular, body_of(200_000))
        for expected in ("miss", "hit", "hit"):
            assert client.get(f"/{popular}").headers["x-cache"] == expected
        evictions = behind.node.counter("evictions")
        passing = [new_fid() for _ in range(220)]
        for fid in passing:
            behind.put(fid, body_of(200_000))
        for fid in passing:
            assert client.get(f"/{fid}").headers["x-cache"] == "miss"
        until(lambda: behind.node.counter("evictions") > evictions + 50, "they did not fit")
        assert client.get(f"/{popular}").headers["x-cache"] == "hit"
        assert client.get(f"/{passing[0]}").headers["x-cache"] == "miss"


def test_other_methods_and_paths(behind: Behind) -> None:
    with behind.node.client() as client:
        assert client.request("DELETE", "/1,0123456789abcdef01").status == 405
    with behind.node.client() as client:
        assert client.get("/nothing").status == 400
        assert client.get("/healthz").json() == {"status": "alive"}
        assert client.get("/readyz").json() == {"status": "ready"}
        for page in ("/healthz", "/readyz", "/metrics", "/nothing"):
            assert client.get(page).headers["cache-control"] == "no-store"
        missing = client.get(f"/{new_fid()}")
        assert missing.status == 404 and "not here" in missing.error
        assert missing.headers["cache-control"] == "no-store"  # it may be there in a moment
        assert client.get(f"/{new_fid(volume=77)}").status == 404
        page = parse_metrics(client.get("/metrics").body.decode())
    assert page["haystack_cache_workers"] == 1
    assert page["haystack_cache_vouching"] == 1


def test_photos_by_id(behind: Behind) -> None:
    with behind.store.client() as uploader, behind.node.client() as client:
        fid = new_fid()
        small = Fid(1, fid.key, fid.cookie, 2)
        uploader.put(f"/{fid}", b"original")
        uploader.put(f"/{small}", b"small")
        behind.directory.photos[fid.key] = [str(fid), str(small)]
        assert client.get(f"/photo/{fid.key:x}").body == b"original"
        assert client.get(f"/photo/{fid.key:x}/2").body == b"small"
        again = client.get(f"/photo/{fid.key:x}/2.jpg")
        assert (again.body, again.headers["x-cache"]) == (b"small", "hit")
        assert client.get(f"/photo/{fid.key:x}/3").status == 404
        assert client.get("/photo/1/0").status == 404
        assert client.get("/photo/xyz").status == 400


def test_a_wrong_cookie_is_not_found_even_for_what_is_here(behind: Behind) -> None:
    with behind.store.client() as uploader, behind.node.client() as client:
        fid = new_fid()
        uploader.put(f"/{fid}", b"photo")
        assert client.get(f"/{fid}").status == 200
        assert client.get(f"/{Fid(1, fid.key, fid.cookie ^ 1)}").status == 404
        assert client.get(f"/{fid}").headers["x-cache"] == "hit"


def test_the_node_is_known_again_and_says_when_it_leaves(tmp_path: Path, behind: Behind) -> None:
    seen = len(behind.directory.beats)
    with cache_node(tmp_path, behind.directory) as node:
        beat = until(lambda: behind.directory.beats[seen:] and _beat_of(behind, node.port), "a heartbeat")
        assert beat["workers"] == 1
        cache_id = node.status()["cacheId"]
        assert beat["cacheId"] == cache_id
    assert behind.directory.left == [cache_id]
    with cache_node(tmp_path, behind.directory) as node:
        assert node.status()["cacheId"] == cache_id


def _beat_of(behind: Behind, port: int) -> dict[str, Any] | None:
    return next((beat for beat in behind.directory.beats if beat["url"] == f"127.0.0.1:{port}"), None)


def test_purge_and_warm(behind: Behind) -> None:
    with behind.store.client() as uploader, behind.node.client() as client:
        behind.node.admin("/admin/cache/purge", {"all": True})
        fids = [new_fid() for _ in range(10)]
        for fid in fids:
            uploader.put(f"/{fid}", b"photo")
        names = [str(fid) for fid in fids]
        assert client.get(f"/{fids[0]}").status == 200
        assert behind.node.admin("/admin/cache/warm", {"fids": [*names, str(new_fid())]}) == {
            "fetched": 9,
            "present": 1,
            "failed": 1,
        }
        assert client.get(f"/{fids[5]}").headers["x-cache"] == "hit"
        assert behind.node.admin("/admin/cache/purge", {"fids": names[:3]}) == {"purged": 3}
        assert client.get(f"/{fids[0]}").headers["x-cache"] == "miss"
        assert behind.node.admin("/admin/cache/purge", {"volumes": [1]}) == {"purged": 8}
        assert behind.node.admin("/admin/cache/purge", {"all": True}) == {"purged": 0}
