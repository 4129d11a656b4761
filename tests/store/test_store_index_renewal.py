"""A damaged index of a running Store is made anew from its volume, without a restart."""

from __future__ import annotations

from pathlib import Path

import lmdb
from supervisor_harness import StoreProcess, fid, until_async

from haystack.volume.index_records import KEY


def damage(index: Path, key: int) -> None:
    """Write an entry that cannot be one."""
    with lmdb.open(str(index), subdir=False, max_dbs=0, map_size=2**30) as opened, opened.begin(write=True) as writer:
        assert writer.get(KEY.pack(key, 0))
        writer.put(KEY.pack(key, 0), b"bad")


async def test_a_damaged_index_is_made_anew_once(tmp_path: Path) -> None:
    async with StoreProcess(tmp_path) as store:
        await store.make_volume(1)
        photos = {key: bytes([key]) * 1000 for key in range(1, 20)}
        for key, data in photos.items():
            assert await store.put(fid(1, key), data) == 201

        async def is_back() -> bool:
            return await store.get(fid(1, 7)) == photos[7] and await store.put(fid(1, 100), b"more") == 201

        damage(tmp_path / "1.idx", 7)
        assert await store.get(fid(1, 7)) in (500, 503)
        await until_async(is_back, "the volume is back")
        assert (await store.volume(1))["state"] == "writable"
        for key, data in photos.items():
            assert await store.get(fid(1, key)) == data
        assert (await store.admin("POST", "/admin/volumes/1/check", {"full": True}))["ok"]
        # Once more, and it is left to the operator.
        damage(tmp_path / "1.idx", 8)
        assert await store.get(fid(1, 8)) in (500, 503)
        await store.until_volume(1, state="failed", reason="its index is damaged")
        assert await store.stop() == 0
    async with StoreProcess(tmp_path) as store:
        assert await store.get(fid(1, 8)) == photos[8]
