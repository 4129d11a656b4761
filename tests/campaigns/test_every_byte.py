"""Every byte of several needles, of the superblock and of a tombstone is flipped on one copy, one at a time.

A client must never notice, and the copy must become what it was. Takes some minutes:
``pytest tests/campaigns -k every_byte``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "store"))

from copies_harness import flip, photo, replicas, require_same
from supervisor_harness import fid, until, until_async

KEYS = range(1, 6)
DELETED = 3

pytestmark = pytest.mark.timeout(3600)


async def test_every_byte_of_a_copy(tmp_path: Path) -> None:
    async with replicas(tmp_path, KEYS, size=90) as (a, b):
        path = tmp_path / "b" / "1.vol"
        good = path.read_bytes()
        for offset in range(len(good)):
            flip(path, offset, 1 << offset % 8)
            for key in KEYS:
                got = await b.get(fid(1, key))
                assert got == (404 if key == DELETED else photo(key, 90)), (offset, key)
            if path.read_bytes() != good:
                # Nobody reads this byte: a tombstone, what was deleted, the superblock.
                await b.admin("POST", "/admin/volumes/1/scrub", expect=202)
            await until(lambda: path.read_bytes() == good, f"mended at {offset}")

        async def at_rest() -> bool:
            return not (await b.admin("GET", "/admin/volumes/1/scrub"))["running"]

        await until_async(at_rest)
        assert await a.stop() == 0
        assert await b.stop() == 0
    require_same(tmp_path / "a", tmp_path / "b", 1)
