"""The answer that is a whole needle: the very bytes of the volume, whatever way they are read."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from store_data_harness import MIB, Client, LocalStore, drop_cache, new_fid, running

from haystack.fid import Fid, Locator
from haystack.store.reads import STREAM_BYTES
from haystack.volume.layout import NEEDLE_TYPE, NeedleHeader, check_needle

ACCEPT = {"Accept": NEEDLE_TYPE}
SIZES = [0, 1, 3000, 40_000, 300_000, 3 * MIB, STREAM_BYTES + 1]


def stored(store: LocalStore, fid: Fid) -> bytes:
    """The needle as it lies in the volume's file."""
    entry = store.volumes[fid.volume].find(fid.key, fid.alternate)
    assert entry is not None
    with store.path(fid.volume).open("rb") as file:
        file.seek(entry.offset)
        return file.read(entry.total_bytes)


def put(client: Client, fid: Fid, size: int, *headers: tuple[str, str]) -> bytes:
    body = random.Random(size).randbytes(size)
    assert client.put(f"/{fid}", body, *headers).status == 201
    return body


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("cold", [False, True], ids=["resident", "cold"])
def test_it_is_the_needle_of_the_volume(tmp_path: Path, size: int, cold: bool) -> None:
    with running(tmp_path) as store, store.client() as client:
        fid = new_fid(alternate=3)
        body = put(client, fid, size, ("Content-Type", "image/x"), ("X-Haystack-Meta-Place", "Ulm"))
        photo = client.get(f"/{fid}")
        for _ in range(3):  # direct, then through the page cache, then out of it
            if cold:
                drop_cache(store.path())
            answer = client.get(f"/{fid}", **ACCEPT)
            raw = stored(store, fid)
            assert (answer.status, answer.body) == (200, raw)
        header = NeedleHeader.unpack(raw, store.volumes[1].seed)
        assert (
            answer.headers["etag"]
            == photo.headers["etag"]
            == f'"{check_needle(raw, header, store.volumes[1].seed):016x}"'
        )
        assert answer.headers["content-type"] == NEEDLE_TYPE
        assert answer.headers["cache-control"] == "no-store"
        start = 56 + header.meta_bytes
        assert raw[start : start + size] == body == photo.body


def test_head_names_the_needles_length(tmp_path: Path) -> None:
    with running(tmp_path) as store, store.client() as client:
        fid = new_fid()
        put(client, fid, 5000)
        answer = client.request("HEAD", f"/{fid}", headers=list(ACCEPT.items()))
        assert (answer.status, answer.body) == (200, b"")
        assert int(answer.headers["content-length"]) == len(stored(store, fid))


def test_photo_and_needle_under_one_line_are_never_mixed_up(tmp_path: Path) -> None:
    """The request lines are equal; the fast ways go by them."""
    with running(tmp_path) as store, store.client() as client:
        fid = new_fid()
        body = put(client, fid, 2000)
        for _ in range(4):
            assert client.get(f"/{fid}").body == body
            assert client.get(f"/{fid}", **ACCEPT).body == stored(store, fid)


def test_ranges_and_conditions_are_left_aside(tmp_path: Path) -> None:
    with running(tmp_path) as store, store.client() as client:
        fid = new_fid()
        put(client, fid, 2000)
        tag = client.get(f"/{fid}").headers["etag"]
        for extra in ({"Range": "bytes=0-10"}, {"If_None_Match": tag}):
            answer = client.get(f"/{fid}", **ACCEPT, **extra)
            assert (answer.status, answer.body) == (200, stored(store, fid))


def test_paths_of_all_kinds(tmp_path: Path) -> None:
    with running(tmp_path) as store, store.client() as client:
        fid = new_fid()
        put(client, fid, 2000)
        entry = store.volumes[1].find(fid.key)
        assert entry is not None
        for path in (f"/{fid}.jpg", f"/1/{str(fid)[2:]}/name.jpg", f"/{Locator(fid, entry.offset)}"):
            assert client.get(path, **ACCEPT).body == stored(store, fid)


def test_other_answers_are_as_ever(tmp_path: Path) -> None:
    with running(tmp_path) as store, store.client() as client:
        fid = new_fid()
        body = put(client, fid, 2000)
        assert client.get(f"/{Fid(1, fid.key, fid.cookie ^ 1)}", **ACCEPT).status == 404
        assert client.get(f"/{new_fid(volume=9)}", **ACCEPT).status == 404
        assert client.get(f"/{fid}", Accept=f"{NEEDLE_TYPE}, */*").body == body
        client.delete(f"/{fid}")
        assert client.get(f"/{fid}", **ACCEPT).status == 404


def test_a_damaged_needle_is_not_given_out(tmp_path: Path) -> None:
    with running(tmp_path) as store, store.client() as client:
        fid = new_fid()
        put(client, fid, 2000)
        entry = store.volumes[1].find(fid.key)
        assert entry is not None
        with store.path().open("r+b") as file:
            file.seek(entry.offset + 200)
            byte = file.read(1)
            file.seek(entry.offset + 200)
            file.write(bytes([byte[0] ^ 1]))
        assert client.get(f"/{fid}", **ACCEPT).status == 500
