"""``POST /<volume>/multi``: several needles in one append, all or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest
from store_data_harness import MIB, Client, LocalStore, new_fid, running

from haystack.store.control_cells import Counter

FID = new_fid()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStore]:
    folder: Path = tmp_path_factory.mktemp("multi")
    with running(folder, max_photo_bytes=2 * MIB, upload_memory_bytes=256 * 1024, durability="os") as started:
        yield started


@pytest.fixture
def client(store: LocalStore) -> Iterator[Client]:
    with store.client() as opened:
        yield opened


def item(fid: object, data: object = b"x", **more: object) -> dict[str, object]:
    return {"fid": str(fid), "data": data, **more}


@pytest.mark.parametrize("size", [10, 50_000, 600_000])
def test_a_photo_and_its_renditions(client: Client, size: int) -> None:
    fid = new_fid()
    items = [
        item(fid, bytes(size), name="ø.jpg", pairs={"Place": "Tromsø", "b": ""}),
        item(replace(fid, alternate=1), b"\xff\xd8\xffsmall", mime=""),
        item(replace(fid, alternate=2), b"", mime="image/webp", name="../x/y.webp"),
    ]
    answer = client.request("POST", "/1/multi", msgpack.packb(items))
    assert answer.status == 201
    needles = answer.json()["needles"]
    assert [one["size"] for one in needles] == [size, 8, 0]
    assert [one["name"] for one in needles] == ["ø.jpg", "", "y.webp"]
    assert [one["fid"] for one in needles] == [str(fid), f"{fid}_1", f"{fid}_2"]
    for one, data in zip(needles, items, strict=True):
        for name in (one["fid"], one["locator"]):
            got = client.get("/" + name)
            assert got.body == data["data"] and got.headers["etag"] == f'"{one["eTag"]}"'
    first = client.get(f"/{fid}").headers
    assert first["x-haystack-meta-place"] == "Tromsø".encode().decode("latin-1")
    assert first["content-type"] == "image/jpeg"
    assert client.get(f"/{fid}_1").headers["content-type"] == "image/jpeg"
    assert client.get(f"/{fid}_2").headers["content-type"] == "image/webp"


def test_the_most_that_fit(client: Client) -> None:
    fids = [new_fid() for _ in range(256)]
    assert client.request("POST", "/1/multi", msgpack.packb([item(fid) for fid in fids])).status == 201
    for fid in fids[:3] + fids[-3:]:
        assert client.get(f"/{fid}").body == b"x"


def packed(items: Any) -> bytes:
    raw: bytes = msgpack.packb(items)
    return raw


MALFORMED = {
    "nothing": b"",
    "no msgpack": b"\xc1",
    "cut": packed([item(FID)])[:-1],
    "trailing bytes": packed([item(FID)]) + b"\0",
    "a map": packed(item(FID)),
    "a text": packed("photos"),
    "bytes": packed(b"photos"),
    "a number": packed(7),
    "nil": packed(None),
    "no needles": packed([]),
    "a list of numbers": packed([1]),
    "a list of lists": packed([[]]),
    "no fid": packed([{"data": b"x"}]),
    "no data": packed([{"fid": str(FID)}]),
    "data is a text": packed([item(FID, "x")]),
    "data is nil": packed([item(FID, None)]),
    "fid is bytes": packed([{"fid": str(FID).encode(), "data": b"x"}]),
    "fid is a number": packed([{"fid": 3, "data": b"x"}]),
    "fid is malformed": packed([{"fid": "1,zz", "data": b"x"}]),
    "fid is a locator": packed([{"fid": f"1@40,{str(FID)[2:]}", "data": b"x"}]),
    "another volume": packed([item(FID), item(new_fid(2))]),
    "the same twice": packed([item(FID), item(FID)]),
    "name is a number": packed([item(FID, name=1)]),
    "name is nil": packed([item(FID, name=None)]),
    "mime is bytes": packed([item(FID, mime=b"image/png")]),
    "pairs is a list": packed([item(FID, pairs=["a", "b"])]),
    "pair of a number": packed([item(FID, pairs={"a": 1})]),
    "pair with a bad name": packed([item(FID, pairs={"a b": "c"})]),
    "pair with a line end": packed([item(FID, pairs={"a\r\nb": "c"})]),
    "pair without a name": packed([item(FID, pairs={"": "c"})]),
    "too many pairs": packed([item(FID, pairs={f"n{number}": "" for number in range(33)})]),
    "too much metadata": packed([item(FID, pairs={"a": "x" * 9000})]),
    "unknown field": packed([item(FID, expires=7)]),
    "too many needles": packed([item(new_fid()) for _ in range(257)]),
    "keys that are numbers": packed([{1: 2}]),
    "not UTF-8": packed([item(FID)]).replace(b"fid", b"f\xff\xff"),
    "nested deeply": b"\x91" * 5000,
    "says it is long": b"\xdd\xff\xff\xff\xff",
    "says its data is long": b"\x91\x82\xa3fid\xc6\xff\xff\xff\xff",
    "an extension": b"\x91\xc7\x01\x05x",
}


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_ones_store_nothing(client: Client, store: LocalStore, what: str) -> None:
    tail = store.tail()
    answer = client.request("POST", "/1/multi", MALFORMED[what])
    assert answer.status == 400 and answer.error
    assert store.tail() == tail
    assert client.get(f"/{FID}").status == 404
    assert store.counter(Counter.UPLOAD_MEMORY_BYTES) == 0


def test_one_wrong_cookie_refuses_all(client: Client, store: LocalStore) -> None:
    taken, free = new_fid(), new_fid()
    assert client.put(f"/{taken}", b"first").status == 201
    tail = store.tail()
    for items in ([item(free), item(replace(taken, cookie=1))], [item(replace(taken, cookie=1)), item(free)]):
        assert client.request("POST", "/1/multi", packed(items)).status == 409
    assert client.get(f"/{free}").status == 404
    assert client.get(f"/{taken}").body == b"first"
    assert store.tail() == tail
    assert client.request("POST", "/1/multi", packed([item(taken, b"second"), item(free)])).status == 201
    assert client.get(f"/{taken}").body == b"second"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/2/multi", packed([item(new_fid(2))]), 404),
        ("/0/multi", b"", 400),
        ("/4294967296/multi", b"", 400),
        ("/1/multi", packed([item(FID, bytes(2 * MIB))]), 413),
    ],
    # Each of several test processes must see the same names, and a fid is random.
    ids=["unknown volume", "volume zero", "volume too high", "too large"],
)
def test_refused_ones(store: LocalStore, path: str, body: bytes, status: int) -> None:
    tail = store.tail()
    assert store.once("POST", path, body).status == status
    assert store.tail() == tail
