"""Volumes and folders as the supervisor keeps them: recovered, made, set aside, full; and the admin API over them."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from supervisor_harness import FAST_TIMING, StoreProcess, fid, new_volume, until
from yarl import URL

from haystack.errors import DiskError, InvalidRequest, OutOfSpace, VolumeExists, VolumeNotFound, VolumeUnavailable
from haystack.json_calls import signed_headers
from haystack.store import compactions as compactions_module
from haystack.store import out_of_service as out_of_service_module
from haystack.store.admin import AdminApi, parse_new_volume
from haystack.store.control import ControlBlock
from haystack.store.control_cells import FolderCell, FolderState, Header, Reason, Slot, VolumeState
from haystack.store.documents import Documents, StoreFacts
from haystack.store.folder import DataFolder
from haystack.store.folder_opening import open_folders
from haystack.store.out_of_service import out_of_service
from haystack.store.replication.rules import Duty
from haystack.store.scrub.mending import renew_failed_index
from haystack.store.store_volume import NewVolume, StoreVolume
from haystack.store.upkeep import FolderKeeper
from haystack.store.users import Users
from haystack.store.volumes import DOUBTFUL, StoreVolumes
from haystack.volume import Volume, locks
from haystack.volume.files import VolumeFile

SECRET = b"s" * 32
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a tmpfs, which takes root")


class Bench:
    def __init__(self, folders: list[DataFolder], max_bytes: int = 2**30, reserve_bytes: int | None = 0) -> None:
        self.folders = folders
        self.control = ControlBlock.create(1)
        self.changes = 0
        self.volumes = StoreVolumes(folders, self.control, max_volume_bytes=max_bytes, on_change=self._changed)
        self.now = 0.0
        self.keepers = [
            FolderKeeper(folder, self.volumes, FAST_TIMING, reserve_bytes=reserve_bytes, clock=lambda: self.now)
            for folder in folders
        ]
        facts = StoreFacts("id", "h:1", "h:1", "h:2", "dc", "r", 1, 1, 2**20)
        self.documents = Documents(facts, folders, self.volumes)

    def _changed(self) -> None:
        self.changes += 1

    async def make(self, volume: int, **more: Any) -> StoreVolume:
        entry, _ = await self.volumes.create(parse_new_volume(new_volume(volume, **more)))
        return entry


@asynccontextmanager
async def bench(*paths: Path, **options: Any) -> AsyncIterator[Bench]:
    one = Bench(open_folders(paths), **options)
    for keeper in one.keepers:
        await keeper.probe()
    one.volumes.register()
    await one.volumes.recover_all()
    try:
        yield one
    finally:
        await one.volumes.close()
        for folder in one.folders:
            folder.close()
        one.control.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", "-l", path], check=False)


def fill(path: Path, leave_bytes: int = 0) -> None:
    with (path / "filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC
        filler.truncate(filler.tell() - leave_bytes)


# -- making


async def test_a_volume_is_made_and_found_again_with_its_settings(tmp_path: Path) -> None:
    async with bench(tmp_path) as store:
        entry = await store.make(3, maxBytes=100_000, epoch=4, replication="010")
        assert store.volumes.state(entry) is VolumeState.READONLY  # until the Directory has told its membership
        assert (entry.duty, entry.reason) == (Duty.UNTOLD, "the Directory has not told its membership yet")
        assert store.control.slot(entry.slot).max_bytes == 100_000
        document = store.documents.volume(entry)
    async with bench(tmp_path) as store:
        again = store.documents.volume(store.volumes.get(3))
        assert again == document
        assert (again["maxBytes"], again["epoch"], again["replication"]) == (100_000, 4, "010")


async def test_making_a_volume_again_changes_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path) as store:
        wanted = parse_new_volume(new_volume(3))
        first, is_new = await store.volumes.create(wanted)
        assert is_new
        both = await asyncio.gather(store.volumes.create(wanted), store.volumes.create(wanted))
        assert both == [(first, False), (first, False)]
        with pytest.raises(VolumeExists):
            await store.make(3)


async def test_a_volume_goes_into_the_folder_that_was_asked_for(tmp_path: Path) -> None:
    async with bench(tmp_path / "one", tmp_path / "two") as store:
        wish = store.folders[1].id
        assert (await store.make(3, folder=wish)).folder is store.folders[1]
        assert (await store.make(4)).folder is store.folders[0]
        assert (await store.make(5, folder=wish)).path == store.folders[1].path / "5.vol"
        with pytest.raises(InvalidRequest, match="no data folder with id"):
            await store.make(6, folder=str(uuid4()))
        store.folders[1].fail("a test says so")
        with pytest.raises(VolumeUnavailable, match="has failed: a test says so"):
            await store.make(6, folder=wish)
        store.folders[0].state = FolderState.FULL
        with pytest.raises(OutOfSpace, match="no data folder of this Store has room"):
            await store.make(6)


async def test_a_volume_that_could_not_be_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **more: object) -> None:
        raise OutOfSpace("the index has no room")

    async with bench(tmp_path) as store:
        monkeypatch.setattr("haystack.volume.volume.NeedleIndex.create", fail)
        with pytest.raises(OutOfSpace):
            await store.make(3)
        monkeypatch.undo()
        assert not [name for name in os.listdir(tmp_path) if name.startswith("3.")]
        with pytest.raises(VolumeNotFound):
            store.volumes.get(3)
        assert await store.make(3)


# -- recovering


async def test_what_cannot_be_opened_is_set_aside_alone(tmp_path: Path) -> None:
    async with bench(tmp_path) as store:
        for volume in (3, 4, 5):
            await store.make(volume)
    (tmp_path / "4.vol").write_bytes(b"?" * 64)
    shutil.copy(tmp_path / "5.vol", tmp_path / "6.vol")
    async with bench(tmp_path) as store:
        states = {entry.id: store.volumes.state(entry) for entry in store.volumes}
        good, bad = VolumeState.WRITABLE, VolumeState.FAILED
        assert states == {3: good, 4: bad, 5: good, 6: bad}
        assert "not a Haystack volume" in store.volumes.get(4).reason
        assert "holds volume 5, but its name says 6" in store.volumes.get(6).reason
        assert set(store.documents.volumes()) == {3, 4, 5, 6}
        assert 4 not in store.documents.known_volumes()
        with pytest.raises(VolumeUnavailable, match="not a Haystack volume"):
            store.volumes.get(4).require_open()


async def test_a_volume_that_is_there_twice_is_served_from_neither(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    async with bench(one, two) as store:
        await store.make(3, folder=store.folders[0].id)
    shutil.copy(one / "3.vol", two / "3.vol")
    async with bench(one, two) as store:
        entry = store.volumes.get(3)
        assert store.volumes.state(entry) is VolumeState.FAILED
        assert str(one / "3.vol") in entry.reason
        assert str(two / "3.vol") in entry.reason


async def test_damage_is_reported_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with bench(tmp_path) as store:
        volume = (await store.make(3)).require_open()
        volume.put(1, 1, b"one")
        offset = volume.put(2, 2, b"two").offset
        volume.put(3, 3, b"three")
    with (tmp_path / "3.vol").open("r+b") as file:
        file.seek(offset)
        file.write(bytes(56))
    (tmp_path / "3.idx").unlink()
    async with bench(tmp_path) as store:
        entry = store.volumes.get(3)
        assert store.control.cells[store.control.slot_cell(entry.slot, Slot.DAMAGE_BYTES)] > 0
        assert "volume 3: damage: " in caplog.text
        assert f"at offset {offset}" in caplog.text
        assert store.volumes.state(entry) is VolumeState.WRITABLE


async def test_a_recovery_that_is_stopped_is_done_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench(tmp_path) as store:
        (await store.make(3)).require_open().put(1, 1, b"one")
    (tmp_path / "3.idx").unlink()
    one = Bench(open_folders([tmp_path]))
    one.volumes.register()
    one.volumes.stop_walks()
    await one.volumes.recover_all()
    assert one.volumes.state(one.volumes.get(3)) in (VolumeState.RECOVERING, VolumeState.WRITABLE)
    await one.volumes.close()
    one.folders[0].close()
    one.control.close()
    async with bench(tmp_path) as store:
        assert store.volumes.get(3).require_open().get(1, 1).data == b"one"


async def test_recovering_volumes_are_known_by_their_uuid(tmp_path: Path) -> None:
    async with bench(tmp_path) as store:
        uuid = store.documents.volume(await store.make(3))["uuid"]
    one = Bench(open_folders([tmp_path]))
    one.volumes.register()
    assert one.documents.known_volumes()[3]["state"] == "recovering"
    assert one.documents.known_volumes()[3]["uuid"] == uuid
    one.folders[0].close()
    one.control.close()


async def test_recovery_waits_for_space_and_goes_on_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(tmp_path) as store:
        await store.make(3)

    def full(*args: object, **more: object) -> Volume:
        raise OutOfSpace("no room for the index")

    monkeypatch.setattr(Volume, "open", full)
    async with bench(tmp_path) as store:
        entry = store.volumes.get(3)
        assert store.volumes.state(entry) is VolumeState.RECOVERING
        assert "waits for space" in entry.reason
        monkeypatch.undo()
        await store.keepers[0].tick()
        assert store.volumes.state(entry) is VolumeState.WRITABLE
        assert entry.reason == ""


# -- states


async def test_a_volume_at_its_limit_is_read_only_and_reported_before(tmp_path: Path) -> None:
    async with bench(tmp_path) as store:
        entry = await store.make(3, maxBytes=100_000)
        volume = entry.require_open()
        volume.put(1, 1, bytes(97_000 - 64))
        await store.volumes.refresh(entry)
        assert store.volumes.state(entry) is VolumeState.WRITABLE
        assert store.documents.volume(entry)["state"] == "readonly"
        assert store.documents.volume(entry)["reason"] == "full"
        volume.put(2, 2, b"still fits")
        volume.put(3, 3, bytes(2500))
        await store.volumes.refresh(entry)
        assert store.volumes.state(entry) is VolumeState.READONLY
        assert store.control.reason(entry.slot) is Reason.VOLUME_FULL
        assert entry.reason == "full"


async def test_volumes_of_a_full_folder_are_read_only_until_there_is_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench(tmp_path, reserve_bytes=1000) as store:
        entry = await store.make(3)
        space = [10**6, 500]
        real = os.statvfs(tmp_path)
        monkeypatch.setattr(
            "haystack.store.folder.os.statvfs",
            lambda path: os.statvfs_result((1, 1, space[0], space[1], space[1], *tuple(real)[5:])),
        )
        await store.keepers[0].probe()
        assert store.volumes.state(entry) is VolumeState.READONLY
        assert (store.control.reason(entry.slot), entry.reason) == (Reason.DISK_FULL, "the disk is full")
        assert store.documents.folders()[0]["state"] == "full"
        assert store.control.cells[store.control.folder_cell(0, FolderCell.STATE)] == FolderState.FULL
        space[1] = 1050
        await store.keepers[0].probe()
        assert store.volumes.state(entry) is VolumeState.READONLY
        space[1] = 2000
        await store.keepers[0].probe()
        assert store.volumes.state(entry) is VolumeState.WRITABLE
        assert store.control.cells[store.control.folder_cell(0, FolderCell.FREE_BYTES)] == 2000


async def test_a_failed_disk_takes_only_its_own_volumes_down(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    async with bench(one, two) as store:
        first = await store.make(3, folder=store.folders[0].id)
        second = await store.make(4, folder=store.folders[1].id)
        two.rename(tmp_path / "elsewhere")
        for keeper in store.keepers:
            await keeper.probe()
        assert store.volumes.state(first) is VolumeState.WRITABLE
        assert store.volumes.state(second) is VolumeState.FAILED
        assert "No such file" in second.reason
        assert store.documents.folders()[1]["state"] == "failed"
        (tmp_path / "elsewhere").rename(two)
        for keeper in store.keepers:
            await keeper.probe()
        assert store.volumes.state(second) is VolumeState.FAILED, "until a restart has recovered it"
        # A failed disk may not answer, so the Store leaves this to the end of its process.
        second.require_open().close()
    async with bench(one, two) as store:
        assert store.volumes.state(store.volumes.get(4)) is VolumeState.WRITABLE


async def test_a_disk_that_hangs_has_failed_and_delays_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = threading.Event()
    async with bench(tmp_path) as store:
        entry = await store.make(3)
        monkeypatch.setattr(store.folders[0], "probe", hanging.wait)
        keeper = FolderKeeper(
            store.folders[0],
            store.volumes,
            type(FAST_TIMING)(probe_timeout_seconds=0.05),
            reserve_bytes=0,
        )
        await keeper.probe()
        assert store.volumes.state(entry) is VolumeState.FAILED
        assert "did not answer for 50 ms" in entry.reason
        hanging.set()


async def test_a_failure_that_a_worker_met_is_noticed_and_doubted(tmp_path: Path) -> None:
    async with bench(tmp_path) as store:
        entry = await store.make(3)
        entry.require_open().put(1, 1, b"one")
        store.control.set_state(entry.slot, VolumeState.FAILED)
        before = store.changes
        await store.keepers[0].tick()
        assert store.changes > before
        assert store.documents.volume(entry)["state"] == "failed"
        assert "restart the Store" in entry.reason
        assert (tmp_path / "3.dirty").read_text() == DOUBTFUL
    assert (tmp_path / "3.dirty").read_text() == DOUBTFUL, "closing must not take it for trusted"
    async with bench(tmp_path) as store:
        entry = store.volumes.get(3)
        assert entry.require_open().report.rebuilt
        assert store.volumes.state(entry) is VolumeState.WRITABLE
        assert not (tmp_path / "3.dirty").exists()


def _met_while_it_is_taken_out(store: Bench, monkeypatch: pytest.MonkeyPatch, reason: Reason) -> None:
    """As if a worker that has not closed the volume yet met something when it was taken out of service."""
    lock = out_of_service_module._lock

    def meet(entry: StoreVolume, volume: Volume, wait_seconds: float) -> None:
        store.control.set_state(entry.slot, VolumeState.FAILED, reason)
        lock(entry, volume, wait_seconds)

    monkeypatch.setattr(out_of_service_module, "_lock", meet)


async def test_an_index_is_made_anew_though_a_worker_met_the_old_one_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench(tmp_path) as store:
        entry = await store.make(3)
        entry.require_open().put(1, 1, b"one")
        store.control.set_state(entry.slot, VolumeState.FAILED, Reason.INDEX)
        store.volumes.judge(entry)
        _met_while_it_is_taken_out(store, monkeypatch, Reason.INDEX)
        await renew_failed_index(store.volumes, entry)
        assert store.volumes.state(entry) is VolumeState.WRITABLE
        assert entry.require_open().report.rebuilt


async def test_a_volume_that_failed_of_something_else_meanwhile_stays_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench(tmp_path) as store:
        entry = await store.make(3)
        store.control.set_state(entry.slot, VolumeState.FAILED, Reason.INDEX)
        store.volumes.judge(entry)
        _met_while_it_is_taken_out(store, monkeypatch, Reason.NONE)
        await renew_failed_index(store.volumes, entry)
        assert store.volumes.state(entry) is VolumeState.FAILED
        store.control.set_state(entry.slot, VolumeState.FAILED, Reason.INDEX)
        assert store.control.reason(entry.slot) is Reason.NONE, "a worse reason is not forgotten"


async def test_a_volume_whose_index_is_damaged_while_it_is_out_of_service_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench(tmp_path) as store:
        entry = await store.make(3)
        entry.require_open().put(1, 1, b"one")
        _met_while_it_is_taken_out(store, monkeypatch, Reason.INDEX)
        async with out_of_service(store.volumes, entry, "a test"):
            pass
        monkeypatch.undo()
        assert entry.volume is not None
        await store.keepers[0].tick()
        await until(lambda: store.volumes.state(entry) is VolumeState.WRITABLE)
        assert entry.require_open().report.rebuilt


def test_the_old_generation_is_kept_open_until_nobody_else_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who closes the last descriptor of a file that is gone frees its pages; that must not be a worker."""
    with Volume.create(tmp_path / "3.vol", 3):
        pass
    old = Volume.attach(tmp_path / "3.vol")
    looked = threading.Event()
    monkeypatch.setattr(locks.time, "sleep", lambda seconds: looked.set())
    other = VolumeFile(tmp_path / "3.vol")
    locks.lock_shared(other)
    closing = threading.Thread(target=compactions_module._close_in_thread, args=(old, Users()))
    closing.start()
    assert looked.wait(10)
    assert old.file.read_fd >= 0
    other.close()
    closing.join(10)
    assert old.file.read_fd < 0


async def test_a_checkpoint_that_fails_sets_the_volume_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise DiskError("cannot make it durable")

    async with bench(tmp_path) as store:
        entry = await store.make(3)
        monkeypatch.setattr(entry.require_open(), "checkpoint", fail)
        await store.volumes.checkpoint(entry)
        assert store.volumes.state(entry) is VolumeState.FAILED
        assert entry.reason == "cannot make it durable"


async def test_checkpoints_come_when_a_volume_is_idle(tmp_path: Path) -> None:
    async with bench(tmp_path) as store:
        entry = await store.make(3)
        volume = entry.require_open()
        await store.keepers[0].tick()
        volume.put(1, 1, b"one")
        store.control.cells[store.control.volume_base(0, entry.slot)] += 1
        store.now = 10.0
        await store.keepers[0].tick()
        assert (tmp_path / "3.dirty").exists()
        store.now = 10.1
        await store.keepers[0].tick()
        assert (tmp_path / "3.dirty").exists()
        store.now = 10.3
        await store.keepers[0].tick()
        assert not (tmp_path / "3.dirty").exists()
        assert entry.durable_tail == volume.tail()


@AS_ROOT
async def test_a_small_disk_fills_up_and_empties_again(small_disk: Path) -> None:
    async with StoreProcess(small_disk, reserve_bytes=10**9) as store:
        await store.make_volume(3)
        assert await store.put(fid(3, 1), b"photo") == 201
        fill(small_disk, leave_bytes=100_000)
        await store.until_volume(3, state="readonly", reason="the disk is full")
        assert await store.put(fid(3, 2), b"photo") == 507
        assert await store.get(fid(3, 1)) == b"photo"
        assert (await store.admin("GET", "/admin/status"))["folders"][0]["state"] == "full"
        await store.admin("POST", "/admin/volumes", new_volume(4), expect=507)
        (small_disk / "filler").unlink()
        await store.until_volume(3, state="writable", reason="")
        assert await store.put(fid(3, 2), b"photo") == 201
        assert await store.stop() == 0


@AS_ROOT
async def test_a_store_on_a_full_disk_starts_and_serves(small_disk: Path) -> None:
    async with StoreProcess(small_disk) as store:
        await store.make_volume(3)
        assert await store.put(fid(3, 1), b"photo") == 201
        await store.kill()
    fill(small_disk)
    async with StoreProcess(small_disk) as store:
        assert await store.get(fid(3, 1)) == b"photo"
        assert await store.put(fid(3, 2), bytes(50_000)) == 507
        assert await store.stop() == 0
    (small_disk / "filler").unlink()
    async with StoreProcess(small_disk) as store:
        assert await store.get(fid(3, 1)) == b"photo"
        assert await store.put(fid(3, 2), b"photo") == 201


# -- the admin API


@asynccontextmanager
async def admin(store: Bench, secret: bytes | None = None) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    api = AdminApi(store.documents, store.volumes, secret=secret)
    async with TestClient(TestServer(api.application())) as client:
        yield client


async def test_the_admin_api_makes_and_shows_volumes(tmp_path: Path) -> None:
    async with bench(tmp_path) as store, admin(store) as client:
        wanted = new_volume(3)
        for status in (201, 200):
            answer = await client.post("/admin/volumes", json=wanted)
            assert answer.status == status
            document = await answer.json()
            assert (document["volume"], document["uuid"], document["state"]) == (3, wanted["uuid"], "writable")
        assert (await client.post("/admin/volumes", json=new_volume(3))).status == 409
        assert await (await client.get("/admin/volumes")).json() == {"volumes": [document]}
        assert await (await client.get("/admin/volumes/3")).json() == document
        status_document = await (await client.get("/admin/status")).json()
        assert status_document["volumes"] == [document]
        assert status_document["folders"][0]["path"] == str(store.folders[0].path)
        volume = store.volumes.get(3).require_open()
        volume.put(1, 1, b"one")
        assert (await (await client.get("/admin/volumes/3")).json())["liveCount"] == 1
        page = await (await client.get("/admin/volumes/3/needles?after=0&limit=5")).json()
        assert [one["fid"] for one in page["needles"]] == ["3,10000000000000001"]
        assert page["next"] is None
        report = await (await client.post("/admin/volumes/3/check", json={"full": True})).json()
        assert (report["ok"], report["needles"], report["full"]) == (True, 1, True)
        assert (await (await client.post("/admin/volumes/3/check")).json())["full"] is False


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("GET", "/admin/volumes/9", None, 404, "volume 9 is not on this Store"),
        ("GET", "/admin/volumes/x", None, 400, "no volume id"),
        ("GET", "/admin/volumes/0", None, 400, "no volume id"),
        ("GET", "/admin/volumes/4294967296", None, 400, "no volume id"),
        ("GET", "/admin/volumes/3/needles?after=-1", None, 400, "after"),
        ("GET", "/admin/volumes/3/needles?limit=100000", None, 400, "at most 1000"),
        ("POST", "/admin/volumes", b"", 400, "no JSON"),
        ("POST", "/admin/volumes", b"[]", 400, "JSON object"),
        ("POST", "/admin/volumes", b"x" * 100_000, 413, "too large|Too Large|exceeded"),
        ("POST", "/admin/volumes/3/check", b'{"full": 1}', 400, "true or false"),
        ("PUT", "/admin/volumes", None, 405, "Method Not Allowed"),
        ("GET", "/nothing", None, 404, "Not Found"),
    ],
)
async def test_the_admin_api_says_what_is_wrong(
    tmp_path: Path, method: str, path: str, body: bytes | None, status: int, said: str
) -> None:
    async with bench(tmp_path) as store, admin(store) as client:
        await store.make(3)
        answer = await client.request(method, path, data=body)
        assert answer.status == status
        error = (await answer.json())["error"]
        assert any(one in error for one in said.split("|")), error


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("volume", 0),
        ("volume", 2**32),
        ("volume", True),
        ("volume", "3"),
        ("uuid", "x"),
        ("uuid", None),
        ("replication", "00"),
        ("replication", 0),
        ("createdMs", -1),
        ("epoch", 1.5),
        ("maxBytes", "1"),
        ("folder", 7),
    ],
)
def test_what_the_directory_wants_made_is_checked(field: str, value: object) -> None:
    with pytest.raises(InvalidRequest, match=field):
        parse_new_volume(new_volume(3) | {field: value})


def test_what_the_directory_wants_made_is_read() -> None:
    uuid = uuid4()
    wanted = {"volume": 3, "uuid": str(uuid), "replication": "012", "createdMs": 5, "epoch": 2, "maxBytes": 9}
    assert parse_new_volume(wanted | {"folder": "f"}) == NewVolume(3, uuid, 12, 5, 2, 9, "f")
    assert parse_new_volume(new_volume(3, folder="")).folder is None


async def test_admin_calls_are_signed_and_health_is_not(tmp_path: Path) -> None:
    async with bench(tmp_path) as store, admin(store, SECRET) as client:
        body = json.dumps(new_volume(3)).encode()
        url = URL("/admin/volumes?x=%252F")
        assert (await client.post(url, data=body)).status == 401
        headers = signed_headers(SECRET, "POST", url, body)
        assert (await client.post(url, data=body + b" ", headers=headers)).status == 401
        assert (await client.post(url, data=body, headers=headers)).status == 201
        answer = await client.post(url, data=body, headers=headers)
        assert (answer.status, (await answer.json())["error"]) == (401, "this call was received before (replayed)")
        wrong = signed_headers(b"t" * 32, "GET", URL("/admin/status"), b"")
        assert (await client.get("/admin/status", headers=wrong)).status == 401
        for path in ("/healthz", "/metrics"):
            assert (await client.get(path)).status == 200


async def test_readiness(tmp_path: Path) -> None:
    async with bench(tmp_path) as store, admin(store) as client:
        assert (await client.get("/readyz")).status == 503
        store.control.cells[Header.READY] = 1
        assert (await client.get("/readyz")).status == 200
        store.control.cells[Header.STOPPING] = 1
        assert (await client.get("/readyz")).status == 503


async def test_a_check_ends_when_the_store_stops(tmp_path: Path) -> None:
    async with bench(tmp_path) as store, admin(store) as client:
        (await store.make(3)).require_open().put(1, 1, b"one")
        store.volumes.stop_walks()
        answer = await client.post("/admin/volumes/3/check", json={"full": True})
        assert (answer.status, (await answer.json())["error"]) == (503, "the Store is stopping")


async def test_a_store_with_a_lost_disk_starts_and_says_so(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    async with StoreProcess(one, two) as store:
        folders = (await store.admin("GET", "/admin/status"))["folders"]
        await store.make_volume(3, folder=folders[0]["id"])
        await store.make_volume(4, folder=folders[1]["id"])
        assert await store.put(fid(3, 1), b"photo") == 201
        assert await store.stop() == 0
    await asyncio.to_thread(two.rename, tmp_path / "away")
    async with StoreProcess(one, two) as store:
        assert await store.get(fid(3, 1)) == b"photo"
        assert await store.get(fid(4, 1)) == 404
        folders = (await store.admin("GET", "/admin/status"))["folders"]
        assert [folder["state"] for folder in folders] == ["ok", "failed"]
        assert f"data folder {two} is set aside" in store.log
        async with aiohttp.request("GET", f"http://127.0.0.1:{store.admin_port}/metrics") as answer:
            assert f'haystack_store_folder_state{{folder="{two}",state="failed"}} 1' in await answer.text()
        await until(lambda: "1 volumes are in use" in store.log)
        assert await store.stop() == 0
