"""Photos that are given to signed URLs alone: in every way of reading, and after everything that moves needles."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest
from store_data_harness import MIB, Client, LocalStore, drop_cache, new_fid, running

from haystack.fid import Fid, Locator
from haystack.signed_urls import UrlSigner
from haystack.volume import Flags, NeedleMeta, NewNeedle, Volume
from haystack.volume.compaction import Compaction
from haystack.volume.live import CompactionOrder

SECRET = b"0123456789abcdef0123456789abcdef"
SIGNER = UrlSigner(SECRET)
SIZES = (0, 10, 20_000, 100_000, 300_000, 3 * MIB, 9 * MIB)
"""Copied, sent out of the page cache, too large for a buffer, for the event loop, and for being held."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStore]:
    folder: Path = tmp_path_factory.mktemp("signed")
    with running(folder, max_photo_bytes=16 * MIB, max_volume_bytes=256 * MIB, secret=SECRET) as started:
        yield started


@pytest.fixture
def client(store: LocalStore) -> Iterator[Client]:
    with store.client() as opened:
        yield opened


def query(fid: Fid, seconds: float = 60) -> str:
    return SIGNER.query(fid, int(time.time() + seconds))


def require_shown_to_signed_alone(client: Client, fid: Fid, body: bytes, path: str = "") -> None:
    path = path or f"/{fid}"
    other = Fid(fid.volume, fid.key, fid.cookie, fid.alternate + 1)
    for wrong in ("", "?" + query(fid, -1), "?" + query(other), "?" + query(fid)[:-1], "?s=x", "?e=99999999999"):
        assert client.get(path + wrong).status == 404, wrong
        assert client.request("HEAD", path + wrong).status == 404
    for _ in range(3):
        answer = client.get(f"{path}?{query(fid)}")
        assert (answer.status, answer.body) == (200, body)
        private, max_age = answer.headers["cache-control"].split(", ")
        assert private == "private" and 50 <= int(max_age.removeprefix("max-age=")) <= 60
    assert client.get(path).status == 404  # also when it was just given


@pytest.mark.parametrize("size_bytes", SIZES)
def test_every_way_of_reading_asks_for_the_signature(client: Client, store: LocalStore, size_bytes: int) -> None:
    fid, body = new_fid(), bytes(range(251)) * (size_bytes // 251 + 1)
    body = body[:size_bytes]
    answer = client.put(f"/{fid}?signed=true", body, ("Content-Type", "image/jpeg"))
    assert answer.status == 201
    require_shown_to_signed_alone(client, fid, body)
    require_shown_to_signed_alone(client, fid, body, f"/{Locator.parse(answer.json()['locator'])}")
    drop_cache(store.folder)
    require_shown_to_signed_alone(client, fid, body)
    if size_bytes:
        part = client.get(f"/{fid}?{query(fid)}", Range="bytes=0-4")
        assert (part.status, part.body) == (206, body[:5])
    etag = client.get(f"/{fid}?{query(fid)}").headers["etag"]
    assert client.get(f"/{fid}?{query(fid)}", If_None_Match=etag).status == 304
    assert client.get(f"/{fid}", If_None_Match=etag).status == 404


def test_a_cache_gets_the_whole_needle_by_a_signature(client: Client) -> None:
    fid = new_fid()
    assert client.put(f"/{fid}?signed=true", b"photo").status == 201
    wanted = {"Accept": "application/vnd.haystack.needle"}
    assert client.get(f"/{fid}", **wanted).status == 404
    assert client.get(f"/{fid}?{query(fid)}", **wanted).status == 200


def test_multi_writes_say_so_for_each(client: Client) -> None:
    shown, hidden = new_fid(), new_fid()
    items = [{"fid": str(shown), "data": b"a"}, {"fid": str(hidden), "data": b"b", "signed": True}]
    assert client.request("POST", "/1/multi", msgpack.packb(items)).status == 201
    assert client.get(f"/{shown}").body == b"a"
    require_shown_to_signed_alone(client, hidden, b"b")
    wrong = msgpack.packb([{"fid": str(new_fid()), "data": b"a", "signed": 1}])
    assert client.request("POST", "/1/multi", wrong).status == 400
    assert client.put(f"/{new_fid()}?signed=perhaps", b"a").status == 400


def test_it_can_be_deleted_and_superseded(client: Client) -> None:
    fid = new_fid()
    assert client.put(f"/{fid}", b"first").status == 201
    assert client.get(f"/{fid}").status == client.get(f"/{fid}").status == 200
    assert client.put(f"/{fid}?signed=true", b"second").status == 201
    require_shown_to_signed_alone(client, fid, b"second")
    assert client.delete(f"/{fid}").status == 202
    assert client.get(f"/{fid}?{query(fid)}").status == 404


def test_the_flag_outlives_index_and_compaction(tmp_path: Path) -> None:
    path = tmp_path / "1.vol"
    meta = NeedleMeta("", "image/jpeg").pack()
    with Volume.create(path, 1) as volume:
        for key in range(1, 9):
            volume.put_many([NewNeedle(key, 7, (b"x" * 100,), 5, 0, meta, 0, int(Flags.SIGNED) if key % 2 else 0)])
        volume.delete(2, 7)
        expected = {key: volume.get(key, 7).header.is_signed for key in range(1, 9) if key != 2}
        flags = {key: entry.flags for key, _, entry in volume.index.entries()}
    assert expected == {1: True, 3: True, 4: False, 5: True, 6: False, 7: True, 8: False}
    for index in tmp_path.glob("1.idx*"):
        index.unlink()
    with Volume.open(path) as volume:
        assert {key: volume.get(key, 7).header.is_signed for key in expected} == expected
        assert {key: entry.flags for key, _, entry in volume.index.entries()} == flags
        compacted = Compaction(volume, CompactionOrder(now_ms=10**12, trash_ms=0)).run()
        volume.close()
        compacted.volume.close()
    with Volume.open(path) as volume:
        assert {key: volume.get(key, 7).header.is_signed for key in expected} == expected
        assert {key: entry.flags for key, _, entry in volume.index.entries()} == {key: flags[key] for key in expected}
