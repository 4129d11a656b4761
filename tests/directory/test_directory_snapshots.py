"""Snapshots: what they hold, in which order it is taken, what a restart and a compaction make of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import xxhash
from aiohttp import web
from directory_fakes import FakeStore, until

from directory.cluster.store_client import StoreClient
from directory.errors import DirectoryBusy
from directory.messages import parse_registration
from directory.service import Service
from directory.settings import STORAGE_NAME
from directory.snapshots.snapshots import FOLLOW_ATTEMPTS, Move, Snapshots
from directory.storage.interface import Table, scan_all
from directory.storage.lmdb_storage import LmdbStorage


class TailStore(FakeStore):
    """Tells how far its volumes are; ``lag``: bytes that are not on all copies yet."""

    def __init__(self) -> None:
        super().__init__()
        self.lag = 0
        self.questions = 0
        self.compact_at: int | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.job: dict[str, Any] | None = None

    def routes(self, app: web.Application) -> None:
        super().routes(app)
        app.router.add_get("/admin/volumes/{volume}/compact", self._job)
        app.router.add_get("/admin/volumes/{volume}/hashes", self._tail)

    async def _job(self, request: web.Request) -> web.Response:
        return web.json_response(self.job or {"error": "not since the start"}, status=200 if self.job else 404)

    async def _tail(self, request: web.Request) -> web.Response:
        document = self.volumes[int(request.match_info["volume"])]
        self.questions += 1
        if self.questions == self.compact_at:
            document["generation"] += 1
        await self.gate.wait()
        size_bytes = document["sizeBytes"]
        committed = size_bytes - self.lag
        self.lag = 0
        return web.json_response(
            {
                "tail": size_bytes,
                "committed": committed,
                "uuid": document["uuid"],
                "generation": document["generation"],
                "hashes": [],
            }
        )


@pytest.fixture
async def tails() -> Any:
    store = await TailStore().start()
    yield store
    await store.stop()


def needle(key: int) -> list[Any]:
    return [f"{key:x}", 0, "ab", 10, "cd", 1, 0]


async def take(directory: Any, name: str, expect: int = 201, **more: Any) -> Any:
    status, answer = await directory.call("/cluster/snapshots", "POST", json={"name": name, **more})
    assert status == expect, answer
    return answer


async def test_a_snapshot_has_the_storage_and_an_end_of_each_volume(directory: Any, tails: TailStore) -> None:
    await directory.with_store(tails)
    volume = next(iter(tails.volumes))
    assert (await tails.confirm(directory.base, volume, 0, 4096, [needle(1)]))[0] == 200
    tails.volumes[volume]["sizeBytes"] = 8192
    tails.lag = 4096
    taken = await take(directory, "first")
    assert taken["volumes"] == len(taken["held"]) == len(tails.volumes)
    held = {one["volume"]: one for one in taken["held"]}
    # What was appended before the question is waited for until all copies have it.
    assert held[volume]["end"] == 8192
    assert held[volume]["uuid"] == tails.volumes[volume]["uuid"]
    async with directory.session.get(f"{directory.base}/internal/snapshots/first") as answer:
        body = await answer.read()
        assert answer.headers["X-Haystack-Checksum"] == xxhash.xxh3_64_hexdigest(body) == taken["checksum"]
    assert len(body) == taken["directoryBytes"]
    # What comes later is not in it.
    await tails.confirm(directory.base, volume, 4096, 8192, [needle(2)])
    copy = directory.settings.data / "elsewhere.lmdb"
    copy.write_bytes(body)
    storage = LmdbStorage(copy)
    try:
        assert [key for key, _ in scan_all(storage, Table.PHOTOS)] == [(1).to_bytes(8, "big")]
        assert {int.from_bytes(key, "big") for key, _ in scan_all(storage, Table.VOLUMES)} == set(held)
    finally:
        storage.close()


async def test_list_delete_and_refusals(directory: Any, tails: TailStore) -> None:
    await directory.with_store(tails)
    await take(directory, "a")
    await take(directory, "b", holdSeconds=1000)
    for name in ("", "../x", "x" * 65, ".hidden"):
        await take(directory, name, 400)
    assert "there is a snapshot a already" in (await take(directory, "a", 409))["error"]
    _, listed = await directory.call("/cluster/snapshots")
    assert [one["name"] for one in listed["snapshots"]] == ["a", "b"]
    assert listed["snapshots"][1]["expiresMs"] == listed["snapshots"][1]["createdMs"] + 1_000_000
    assert (await directory.call("/cluster/snapshots/a", "DELETE"))[0] == 200
    for path in ("/cluster/snapshots/a", "/internal/snapshots/a"):
        assert (await directory.call(path))[0] == 404
    assert sorted(path.name for path in (directory.settings.data / "snapshots").iterdir()) == ["b.lmdb"]


async def test_an_expired_one_is_given_up(directory: Any, tails: TailStore) -> None:
    await directory.with_store(tails)
    await take(directory, "short", holdSeconds=0)

    async def gone() -> bool:
        return not (await directory.call("/cluster/snapshots"))[1]["snapshots"]

    # holdSeconds 0 is over at once.
    await until(gone, "the snapshot is given up")


async def test_a_compaction_in_between_makes_it_begin_anew(directory: Any, tails: TailStore) -> None:
    await directory.with_store(tails)
    for document in tails.volumes.values():
        await tails.heartbeat(directory.base, document)
    tails.compact_at = 3
    taking = asyncio.create_task(take(directory, "x"))

    async def compacted() -> bool:
        return tails.questions >= 3

    await until(compacted, "the third volume is asked for")
    await tails.heartbeat(directory.base, *tails.volumes.values())
    taken = await taking
    assert sorted(one["generation"] for one in taken["held"]) == [0] * (len(tails.volumes) - 1) + [1]
    assert tails.questions > len(tails.volumes)


async def test_a_silent_primary_fails_it_and_leaves_nothing(
    directory: Any, tails: TailStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("directory.snapshots.snapshots.PRIMARY_SECONDS", 0.2)
    await directory.with_store(tails)
    await tails.stop()
    answer = await take(directory, "x", 503)
    assert "nobody can tell how far it is: Store" in answer["error"]
    assert list((directory.settings.data / "snapshots").iterdir()) == []
    assert (await directory.call("/cluster/snapshots"))[1] == {"snapshots": []}


async def test_a_restart_keeps_them_and_tidies_up(tmp_path: Path, tails: TailStore) -> None:
    async with opened(tmp_path, tails) as snapshots:
        await snapshots.take("kept")
        await snapshots.take("copy-lost")
        folder = tmp_path / "snapshots"
        (folder / "copy-lost.lmdb").unlink()
        (folder / "torn.lmdb.part").write_bytes(b"x")
        (folder / "unknown.lmdb").write_bytes(b"x")
        await snapshots.start()
        assert [one.name for one in snapshots.all()] == ["kept"]
        assert [path.name for path in folder.iterdir()] == ["kept.lmdb"]


async def test_full_disk(directory: Any, tails: TailStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await directory.with_store(tails)
    monkeypatch.setattr("directory.snapshots.files.SPARE_BYTES", 2**62)
    assert "are free; delete another snapshot" in (await take(directory, "x", 507))["error"]


@asynccontextmanager
async def opened(folder: Path, store: TailStore) -> AsyncIterator[Snapshots]:
    """Snapshots without a server, of a cluster with one Store of two volumes."""
    storage = LmdbStorage(folder / STORAGE_NAME)
    service, client = Service(storage, dead_after_seconds=30.0), StoreClient(None)
    try:
        for volume in (1, 2):
            store.volumes[volume] = store.volume(volume)
        await service.register(parse_registration(store.document()))
        yield Snapshots(service, client, folder)
    finally:
        await client.close()
        await service.close()
        storage.close()


async def test_what_a_compaction_is_told_and_tells(tmp_path: Path, tails: TailStore) -> None:
    async with opened(tmp_path, tails) as snapshots:
        for name, size_bytes in (("a", 4096), ("b", 72_000), ("c", 80_000)):
            tails.volumes[1]["sizeBytes"] = size_bytes
            await snapshots.take(name)
        assert snapshots.held(1, 0) == [4096, 72_000, 80_000]
        assert snapshots.held(2, 0) == [4096]
        assert snapshots.held(1, 1) == snapshots.held(99_999, 0) == []
        # a and b were told; c came while it ran.
        await snapshots.moved(1, Move(0, {4096: 1000, 72_000: 2000}, cut=72_000, new_cut=2000))
        assert snapshots.held(1, 0) == []
        assert snapshots.held(1, 1) == [1000, 2000, 10_000]
        await snapshots.moved(1, Move(0, {}, cut=0, new_cut=0))  # said twice
        assert snapshots.held(1, 1) == [1000, 2000, 10_000]
        await snapshots.moved(1, Move(1, {2000: 64}, cut=9000, new_cut=128))
        assert snapshots.held(1, 2) == [64, 1128]
        assert [one.volumes[1].lost for one in snapshots.all()] == [True, False, False]
        await snapshots.start()  # as after a restart
        assert [one.volumes[1].end for one in snapshots.all()] == [1000, 64, 1128]


@pytest.mark.parametrize("who", ["noted", "told", "nobody"])
async def test_a_compaction_whose_end_nobody_saw_is_followed(tmp_path: Path, tails: TailStore, who: str) -> None:
    async with opened(tmp_path, tails) as snapshots:
        await snapshots.take("a")
        job = {"state": "done", "error": "", "generation": 1, "cut": 5000, "newCut": 900, "ends": {"4096": 800}}
        job |= {"oldBytes": 5000, "newBytes": 900}
        if who == "noted":
            await snapshots.intend(1, Move.of(job))
        elif who == "told":
            tails.job = job
        await snapshots.start()  # as after a restart
        await snapshots.follow_all()
        assert snapshots.held(1, 0) == [4096], "nothing has happened yet"
        tails.volumes[1]["generation"] = 1
        await snapshots._service.register(parse_registration(tails.document()))
        for _ in range(FOLLOW_ATTEMPTS):
            await snapshots.follow(1)
        assert snapshots.held(1, 1) == ([] if who == "nobody" else [800])
        assert snapshots.get("a").volumes[1].lost is (who == "nobody")


async def test_a_snapshot_that_is_being_taken_is_told(tmp_path: Path, tails: TailStore) -> None:
    async with opened(tmp_path, tails) as snapshots:
        tails.gate.clear()
        taking = asyncio.create_task(snapshots.take("x"))

        async def asked() -> bool:
            return bool(tails.questions)

        await until(asked, "a volume is asked for")
        assert snapshots.taking
        with pytest.raises(DirectoryBusy, match="already"):
            await snapshots.take("y")
        tails.gate.set()
        await taking
        assert not snapshots.taking
