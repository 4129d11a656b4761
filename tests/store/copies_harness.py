"""Two Stores as processes, of which one follows the other."""

from __future__ import annotations

import asyncio
import io
import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
from supervisor_harness import DEADLINE_SECONDS, StoreProcess, fid

from haystack.store.folder_identity import IDENTITY_FILE, Identity
from haystack.store.replication.members_file import write_members
from haystack.store.replication.membership import Member, following
from haystack.volume import Volume, check_volume

MIB = 2**20


def photo(key: int, size: int | None = None) -> bytes:
    dice = random.Random(key)
    return dice.randbytes(size if size is not None else dice.randrange(100, 20_000))


def store_id(folder: Path) -> str:
    return Identity.from_json((folder / IDENTITY_FILE).read_bytes()).store_id


def member(folder: Path, store: StoreProcess) -> dict[str, str]:
    return {
        "storeId": store_id(folder),
        "url": f"127.0.0.1:{store.port}",
        "adminUrl": f"127.0.0.1:{store.admin_port}",
    }


def order(source: dict[str, str], uuid: str, **more: Any) -> dict[str, Any]:
    return {
        "epoch": 2,
        "uuid": uuid,
        "replication": "001",
        "createdMs": 1_700_000_000_000,
        "maxBytes": None,
        "folder": None,
        "source": source,
        "bytesPerSecond": None,
    } | more


async def until_followed(store: StoreProcess, volume: int, body: dict[str, Any], state: str = "done") -> Any:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        answer = await store.admin("POST", f"/admin/volumes/{volume}/follow", body, expect=202)
        if answer["state"] != "running":
            assert answer["state"] == state, answer
            return answer
        assert time.monotonic() < deadline, answer
        await asyncio.sleep(0.02)


async def fill(store: StoreProcess, volume: int, keys: range, size: int | None = None) -> None:
    for key in keys:
        assert await store.put(fid(volume, key), photo(key, size)) == 201


@asynccontextmanager
async def pair(tmp_path: Path, **settings: Any) -> AsyncIterator[tuple[StoreProcess, StoreProcess]]:
    """A source and a Store that has nothing yet, in ``tmp_path/a`` and ``tmp_path/b``."""
    a, b = StoreProcess(tmp_path / "a", **settings), StoreProcess(tmp_path / "b", **settings)
    async with a, b:
        yield a, b


def make_stale(folder: Path, volume: int, source: dict[str, str], uuid: str, epoch: int = 2) -> None:
    """Write down, as a push of the Directory would, that the copy does not count."""
    given = Member(source["storeId"], source["url"], source["adminUrl"])
    write_members(folder / f"{volume}.vol", following(uuid, epoch, given, 2), store_id(folder))


def change(folder: Path, volume: int, keys: range, *, delete: tuple[int, ...] = (), size: int | None = None) -> None:
    """Append to a volume of a Store that does not run."""
    with Volume.open(folder / f"{volume}.vol") as one:
        for key in keys:
            one.put(key, key * 7919, photo(key + 1_000_000, size))
        for key in delete:
            one.delete(key, key * 7919)


def require_same(a: Path, b: Path, volume: int) -> None:
    """Both copies are byte-identical, and the second one's index is right. For Stores that do not run."""
    assert (a / f"{volume}.vol").read_bytes() == (b / f"{volume}.vol").read_bytes()
    report = check_volume(b / f"{volume}.vol", full=True)
    assert report.ok, report.problems
    with Volume.open(a / f"{volume}.vol") as one, Volume.open(b / f"{volume}.vol") as other:
        mine = {name[:2]: name[2] for name in one.index.entries()}
        theirs = {name[:2]: name[2] for name in other.index.entries()}
        assert mine == theirs
        left, right = one.state(), other.state()
        assert (left.tail, left.live_count, left.live_bytes, left.deleted_count, left.deleted_bytes) == (
            right.tail,
            right.live_count,
            right.live_bytes,
            right.deleted_count,
            right.deleted_bytes,
        )


def uuid_text(raw: bytes) -> str:
    return str(UUID(bytes=raw))


def flip(path: Path, offset: int, mask: int = 0x10) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ mask]))


@asynccontextmanager
async def replicas(
    tmp_path: Path,
    keys: range,
    *,
    size: int | None = None,
    large: Mapping[int, int] | None = None,
    **settings: Any,
) -> AsyncIterator[tuple[StoreProcess, StoreProcess]]:
    """Two Stores with the same volume, both in sync; the first one leads."""
    async with pair(tmp_path, **settings) as (a, b):
        made = await a.make_volume(1)
        await fill(a, 1, keys, size)
        for key, large_size in (large or {}).items():
            body = io.BytesIO(photo(key, large_size))  # aiohttp warns of long bytes
            async with aiohttp.request("PUT", f"http://127.0.0.1:{a.port}/{fid(1, key)}", data=body) as answer:
                assert answer.status == 201
        async with aiohttp.request("DELETE", f"http://127.0.0.1:{a.port}/{fid(1, keys[2])}") as answer:
            assert answer.status == 202
        first, second = member(tmp_path / "a", a), member(tmp_path / "b", b)
        await until_followed(b, 1, order(first, made["uuid"]))
        pushed = {
            "uuid": made["uuid"],
            "epoch": 3,
            "primary": first["storeId"],
            "copies": 2,
            "inSync": [first, second],
        }
        for store in (a, b):
            await store.admin("PUT", "/admin/volumes/1/membership", pushed, expect=200)
        yield a, b
