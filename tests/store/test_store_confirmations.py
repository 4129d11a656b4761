"""Confirmations and heartbeats, against a Directory that is down, late, forgetful or refusing."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from supervisor_harness import CLUSTER_ID, FAST_TIMING, FakeDirectory, StoreProcess, fid, kill_process, until

from haystack.store import heartbeat
from haystack.store.confirmations import Confirmer, TailLook
from haystack.store.control import ControlBlock
from haystack.store.control_cells import VolumeCell, VolumeState
from haystack.store.directories import DirectoryCalls
from haystack.store.documents import Documents, StoreFacts
from haystack.store.folder_opening import open_folders
from haystack.store.heartbeat import Heartbeats, beat_patience_seconds
from haystack.store.heat import StoreHeat
from haystack.store.needles import MAX_BATCH_NEEDLES, read_batch, read_page
from haystack.store.settings import Timing
from haystack.store.store_volume import NewVolume, StoreVolume
from haystack.store.volumes import StoreVolumes
from haystack.store.watch import Watch
from haystack.volume import NeedleMeta, NewNeedle
from haystack.volume.layout import HEADER_BYTES

STORE_ID = str(uuid4())


class Bench:
    """A supervisor's part without workers: the test appends, and publishes the tail as a worker does."""

    def __init__(self, volumes: StoreVolumes, confirmer: Confirmer, heartbeats: Heartbeats) -> None:
        self.volumes = volumes
        self.confirmer = confirmer
        self.heartbeats = heartbeats

    async def make(self, volume: int) -> StoreVolume:
        entry, _ = await self.volumes.create(NewVolume(volume, uuid4(), 0, 1, 1, None, None))
        return entry

    def publish(self, entry: StoreVolume) -> None:
        control = self.volumes.control
        control.cells[control.volume_base(0, entry.slot) + VolumeCell.DURABLE_TAIL] = entry.require_open().tail()
        control.ring()

    def put(self, entry: StoreVolume, *keys: int) -> None:
        needles = [NewNeedle(key, key * 7919, (b"photo",), 1_700_000_000_000 + key) for key in keys]
        for start in range(0, len(needles), 256):
            entry.require_open().put_many(needles[start : start + 256])
        self.publish(entry)

    def delete(self, entry: StoreVolume, key: int) -> None:
        entry.require_open().delete(key, key * 7919)
        self.publish(entry)


@asynccontextmanager
async def bench(path: Path, *urls: str, timing: Timing = FAST_TIMING) -> AsyncIterator[Bench]:
    [folder] = open_folders([path])
    control = ControlBlock.create(1)
    async with DirectoryCalls(urls, None, timing) as calls:
        volumes = StoreVolumes([folder], control, max_volume_bytes=2**30, on_change=lambda: changed())
        confirmer = Confirmer(folder, volumes, calls, STORE_ID, timing)
        facts = StoreFacts(STORE_ID, "h:1", "h:1", "h:2", "dc", "r", 1, 1, 2**20)
        documents = Documents(facts, [folder], volumes)
        heat = StoreHeat(control, time.monotonic())
        heartbeats = Heartbeats(calls, documents, [folder], timing, heat, on_registered=confirmer.ask_all)

        def changed() -> None:
            heartbeats.wake()
            confirmer.look_at(volumes)

        def moved(slots: set[int]) -> None:
            confirmer.look_at(entry for slot in slots if (entry := volumes.at(slot)))

        watch = Watch(control, 0.005)
        watch.add(TailLook(control, moved))
        volumes.register()
        await volumes.recover_all()
        tasks = [
            asyncio.create_task(confirmer.run()),
            asyncio.create_task(heartbeats.run()),
            asyncio.create_task(watch.run()),
        ]
        try:
            yield Bench(volumes, confirmer, heartbeats)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await confirmer.save()
            await volumes.close()
            folder.close()
            control.close()


def wanted(volume: int, *keys: int) -> list[str]:
    return [fid(volume, key) for key in keys]


class Swallowing(FakeDirectory):
    """A Directory that never gets the first heartbeat, as when a partition swallows it."""

    swallowed = False

    async def _heartbeat(self, request: web.Request) -> web.Response:
        if not self.swallowed:
            self.swallowed = True
            await asyncio.Event().wait()
        return await super()._heartbeat(request)


async def test_a_heartbeat_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "MIN_PATIENCE_SECONDS", 0.1)
    patient = replace(FAST_TIMING, directory_timeout_seconds=60.0)
    async with Swallowing() as directory, bench(tmp_path, directory.url, timing=patient):
        await until(lambda: len(directory.heartbeats) > 2, "heartbeats go on")
        assert directory.swallowed and len(directory.registrations) == 1


@given(st.floats(0.02, 60), st.integers(0, 1000), st.floats(0.1, 60))
def test_a_slow_directory_is_waited_for_longer_each_time(interval: float, failures: int, most: float) -> None:
    patience = beat_patience_seconds(interval, failures, most)
    assert min(2.0, most) <= patience <= most
    assert patience <= beat_patience_seconds(interval, failures + 1, most)
    assert beat_patience_seconds(interval, 1000, most) == most


async def test_needles_are_confirmed_in_their_order(tmp_path: Path) -> None:
    async with FakeDirectory() as directory, bench(tmp_path, directory.url) as store:
        entry = await store.make(3)
        store.put(entry, 1, 2)
        store.delete(entry, 1)
        await until(lambda: directory.confirmed.get((3, 0)) == entry.require_open().tail())
        rows = [row for batch in directory.batches for row in batch["needles"]]
        checksum = entry.require_open().get(2, 2 * 7919).checksum
        assert rows[1] == ["2", 0, f"{2 * 7919:016x}", 5, f"{checksum:016x}", 1_700_000_000_002, 0]
        assert [(row[0], row[6]) for row in rows] == [("1", 0), ("2", 0), ("1", 1)]
        assert directory.listed(*wanted(3, 2))
        assert ("1", 0) not in directory.photos
        starts = [batch["from"] for batch in directory.batches]
        assert starts[0] == 0
        assert starts == sorted(starts)
        assert all(batch["storeId"] == STORE_ID for batch in directory.batches)


async def test_what_is_not_durable_is_not_told(tmp_path: Path) -> None:
    async with FakeDirectory() as directory, bench(tmp_path, directory.url) as store:
        entry = await store.make(3)
        store.put(entry, 1)
        await until(lambda: directory.listed(*wanted(3, 1)))
        entry.require_open().put(2, 2 * 7919, b"photo")
        store.put(await store.make(4), 5)
        await until(lambda: directory.listed(*wanted(4, 5)))
        assert not directory.listed(*wanted(3, 2))
        store.publish(entry)
        await until(lambda: directory.listed(*wanted(3, 2)))


async def test_what_a_dead_worker_did_not_tell_is_told_after_the_checkpoint(tmp_path: Path) -> None:
    async with FakeDirectory() as directory, bench(tmp_path, directory.url) as store:
        entry = await store.make(3)
        entry.require_open().put(2, 2 * 7919, b"photo")
        await store.volumes.checkpoint(entry)
        await until(lambda: directory.listed(*wanted(3, 2)))


async def test_batches_are_bounded(tmp_path: Path) -> None:
    async with FakeDirectory() as directory, bench(tmp_path, directory.url) as store:
        keys = range(1, 2 * MAX_BATCH_NEEDLES + 500)
        store.put(await store.make(3), *keys)
        await until(lambda: len(directory.photos) == len(keys))
        sizes = [len(batch["needles"]) for batch in directory.batches]
        assert max(sizes) == MAX_BATCH_NEEDLES
        assert sum(sizes) == len(keys)


async def test_a_directory_that_is_down_misses_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with FakeDirectory() as directory:
        await directory.go_down()
        async with bench(tmp_path, directory.url) as store:
            entry = await store.make(3)
            store.put(entry, 1)
            await until(lambda: "cannot be reached" in caplog.text)
            store.put(entry, 2)
            await directory.go_up()
            await until(lambda: directory.listed(*wanted(3, 1, 2)))
            assert caplog.text.count("cannot be reached") <= 2


async def test_a_flapping_directory_misses_nothing(tmp_path: Path) -> None:
    async with FakeDirectory() as directory, bench(tmp_path, directory.url) as store:
        entries = [await store.make(volume) for volume in (3, 4, 5)]
        for turn in range(1, 13):
            for entry in entries:
                store.put(entry, entry.id * 1000 + turn)
            if turn % 3 == 0:
                directory.status = 503
            elif turn % 3 == 1:
                directory.status = None
                await directory.go_down()
            else:
                await directory.go_up()
            await asyncio.sleep(0.02)  # lets something happen in between; nothing depends on what
        if directory._runner is None:
            await directory.go_up()
        directory.status = None
        for entry in entries:
            keys = [entry.id * 1000 + turn for turn in range(1, 13)]
            await until(lambda entry=entry, keys=keys: directory.listed(*wanted(entry.id, *keys)))


async def test_late_answers_are_waited_for_and_uploads_go_on(tmp_path: Path) -> None:
    async with FakeDirectory() as directory, bench(tmp_path, directory.url) as store:
        entry = await store.make(3)
        await until(lambda: directory.registrations)
        directory.answer_gate.clear()
        for key in range(1, 6):
            store.put(entry, key)
            await asyncio.sleep(0.01)
        directory.answer_gate.set()
        await until(lambda: directory.listed(*wanted(3, 1, 2, 3, 4, 5)))


async def test_a_directory_that_lost_its_disk_is_told_everything_again(tmp_path: Path) -> None:
    async with FakeDirectory() as directory, bench(tmp_path, directory.url) as store:
        store.put(await store.make(3), 1, 2)
        store.put(await store.make(4), 3)
        await until(lambda: directory.listed(*wanted(3, 1, 2), *wanted(4, 3)))
        directory.lose_disk()
        await until(lambda: len(directory.registrations) == 2)
        await until(lambda: directory.listed(*wanted(3, 1, 2), *wanted(4, 3)), "no upload is needed for it")


async def test_confirmed_json_saves_the_walk_and_its_loss_costs_one_question(tmp_path: Path) -> None:
    async with FakeDirectory() as directory:
        async with bench(tmp_path, directory.url) as store:
            entry = await store.make(3)
            store.put(entry, 1, 2)
            tail = entry.require_open().tail()
            await until(lambda: directory.confirmed.get((3, 0)) == tail)
        saved = json.loads((tmp_path / "confirmed.json").read_bytes())
        assert saved["volumes"]["3"]["confirmedTo"] == tail
        for lose in (False, True):
            if lose:
                (tmp_path / "confirmed.json").unlink()
            directory.batches.clear()
            async with bench(tmp_path, directory.url) as store:
                await until(lambda: directory.batches)
                store.put(store.volumes.get(3), 4 + lose)
                await until(lambda lose=lose: directory.listed(*wanted(3, 4 + lose)))
            rows = [row[0] for batch in directory.batches for row in batch["needles"]]
            assert rows == [str(4 + lose)]


async def test_confirmed_json_of_another_volume_is_not_believed(tmp_path: Path) -> None:
    record = {"uuid": uuid4().hex, "generation": 0, "confirmedTo": 10**6}
    (tmp_path / "data").mkdir()
    async with FakeDirectory() as directory:
        async with bench(tmp_path / "data", directory.url) as store:
            await store.make(3)
        (tmp_path / "data" / "confirmed.json").write_text(json.dumps({"format": 1, "volumes": {"3": record}}))
        async with bench(tmp_path / "data", directory.url) as store:
            store.put(store.volumes.get(3), 1)
            await until(lambda: directory.listed(*wanted(3, 1)))


async def test_a_mark_beyond_the_volume_is_taken_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with FakeDirectory() as directory:
        async with bench(tmp_path, directory.url) as store:
            store.put(await store.make(3), 1)
            await until((tmp_path / "confirmed.json").exists)  # the Directory knows it a moment before
        table = json.loads((tmp_path / "confirmed.json").read_bytes())
        table["volumes"]["3"]["confirmedTo"] = 10**6
        (tmp_path / "confirmed.json").write_text(json.dumps(table))
        directory.lose_disk()
        async with bench(tmp_path, directory.url) as store:
            await until(lambda: directory.listed(*wanted(3, 1)))
        assert "its end was lost" in caplog.text


async def test_a_refused_volume_does_not_keep_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with FakeDirectory() as directory, bench(tmp_path, directory.url) as store:
        directory.refuse[3] = 409
        store.put(await store.make(3), 1)
        store.put(await store.make(4), 2)
        await until(lambda: directory.listed(*wanted(4, 2)))
        assert "needles of volume 3 are not confirmed" in caplog.text
        directory.refuse.clear()
        await until(lambda: directory.listed(*wanted(3, 1)))


async def test_any_of_several_directories_takes_confirmations(tmp_path: Path) -> None:
    async with FakeDirectory() as one, FakeDirectory() as two:
        await one.go_down()
        async with bench(tmp_path, one.url, two.url) as store:
            store.put(await store.make(3), 1)
            await until(lambda: two.listed(*wanted(3, 1)))
            assert store.heartbeats.status()[0]["registered"] is False
            assert store.heartbeats.status()[1]["registered"] is True


async def test_needles_behind_damage_are_confirmed(tmp_path: Path) -> None:
    async with FakeDirectory() as directory:
        async with bench(tmp_path) as store:
            entry = await store.make(3)
            store.put(entry, 1, 2, 3)
            offset = entry.require_open().get(2, 2 * 7919).offset
        with (tmp_path / "3.vol").open("r+b") as file:
            file.seek(offset)
            file.write(bytes(HEADER_BYTES))
        async with bench(tmp_path, directory.url):
            await until(lambda: directory.listed(*wanted(3, 1, 3)))
            assert not directory.listed(*wanted(3, 2))


async def test_the_cluster_is_noted_and_named(tmp_path: Path) -> None:
    async with FakeDirectory() as directory:
        async with bench(tmp_path, directory.url):
            await until(lambda: json.loads((tmp_path / "folder.json").read_bytes())["cluster_id"] == CLUSTER_ID)
        async with bench(tmp_path, directory.url):
            await until(lambda: len(directory.registrations) == 2)
        assert [one["clusterId"] for one in directory.registrations] == [None, CLUSTER_ID]


async def test_heartbeats_carry_what_changed_and_come_at_once_when_it_matters(tmp_path: Path) -> None:
    async with FakeDirectory() as directory, bench(tmp_path, directory.url) as store:
        directory.heartbeat_seconds = 60.0
        await until(lambda: directory.registrations and directory.heartbeats == [])
        entry = await store.make(3)
        beat: dict[str, Any] = await until(lambda: next((b for b in directory.heartbeats if b["volumes"]), None))
        assert [one["volume"] for one in beat["volumes"]] == [3]
        assert UUID(beat["volumes"][0]["uuid"]).bytes == entry.require_open().superblock.uuid
        count = len(directory.heartbeats)
        store.volumes.fail(entry, "a test says so")
        await until(lambda: len(directory.heartbeats) > count)
        assert directory.heartbeats[-1]["volumes"][0]["state"] == "failed"
        sequences = [one["sequence"] for one in directory.heartbeats]
        assert sequences == sorted(set(sequences))
        assert store.volumes.state(entry) is VolumeState.FAILED


async def test_nothing_is_said_twice(tmp_path: Path) -> None:
    async with FakeDirectory() as directory, bench(tmp_path, directory.url) as store:
        await store.make(3)
        await until(lambda: len(directory.heartbeats) > 3)
        assert sum(1 for one in directory.heartbeats if one["volumes"]) <= 1


def test_a_page_for_exports_has_the_live_needles(tmp_path: Path) -> None:
    from haystack.volume import Volume

    with Volume.create(tmp_path / "3.vol", 3) as volume:
        for key in range(1, 6):
            volume.put(key, key * 7919, b"x" * key, meta=NeedleMeta(f"{key}.jpg", "image/jpeg"), time_ms=key)
        volume.put(2, 2 * 7919, b"again")
        volume.delete(3, 3 * 7919)
        volume.put(6, 6 * 7919, b"expired", expires=100)
        volume.put(7, 7 * 7919, b"expires", expires=101)
        seen, after = [], 0
        while True:
            page = read_page(volume, after, 2, now_seconds=100)
            seen += page.needles
            assert len(page.needles) <= 2
            if page.next is None:
                break
            assert page.next > after
            after = page.next
        assert [one["fid"] for one in seen] == [fid(3, key) for key in (1, 4, 5, 2, 7)]
        assert seen[-1]["expires"] == 101 and "expires" not in seen[0]
        assert (seen[0]["name"], seen[0]["mime"], seen[0]["timeMs"], seen[0]["size"]) == ("1.jpg", "image/jpeg", 1, 1)
        assert seen[1]["offset"] == volume.get(4, 4 * 7919).offset
        assert seen[1]["checksum"] == f"{volume.get(4, 4 * 7919).checksum:016x}"
        batch = read_batch(volume, 0, volume.tail())
        assert batch.end == volume.tail()
        assert len(batch.rows) == 9
        assert [len(row) for row in batch.rows] == [7] * 7 + [8, 8] and batch.rows[-1][-1] == 101


def test_what_was_brought_back_is_told_as_stored_again(tmp_path: Path) -> None:
    from haystack.volume import Volume

    with Volume.create(tmp_path / "3.vol", 3) as volume:
        for key in (1, 2, 3):
            volume.put(key, key, b"x" * key, time_ms=key, expires=2_000_000_000)
            volume.delete(key, key, time_ms=10)
        kept = volume.tail()
        for key in (1, 2, 3):
            volume.undelete(key, key, time_ms=20)
        volume.put(2, 2, b"replaced", time_ms=30)  # says itself what there is
        volume.delete(3, 3, time_ms=40)
        batch = read_batch(volume, kept, volume.tail())
        assert batch.end == volume.tail()
        assert [(row[0], row[6]) for row in batch.rows] == [("1", 0), ("3", 0), ("2", 0), ("3", 1)]
        all_rows = read_batch(volume, 0, volume.tail()).rows
        assert batch.rows[0] == all_rows[0] and batch.rows[0][-1] == 2_000_000_000
        assert [(one.start, one.end) for one in (read_batch(volume, kept, volume.tail(), 1),)] == [(kept, kept + 72)]


async def test_kill_9_at_any_moment_confirms_everything_at_last(tmp_path: Path) -> None:
    acknowledged: list[str] = []
    async with FakeDirectory() as directory:
        for turn in range(4):
            async with StoreProcess(tmp_path, directories=[directory.url]) as store:
                if turn == 0:
                    await store.make_volume(3)
                for key in range(1 + 20 * turn, 21 + 20 * turn):
                    if await store.put(fid(3, key), b"photo") == 201:
                        acknowledged.append(fid(3, key))
                if turn == 1:
                    await directory.go_down()
                for pid in [store.process.pid, *store.workers()]:
                    kill_process(pid)
            if turn == 2:
                await directory.go_up()
        async with StoreProcess(tmp_path, directories=[directory.url]) as store:
            await until(lambda: directory.listed(*acknowledged))
            assert await store.stop() == 0
    assert len(acknowledged) == 80
