"""The supervisor's pure parts: decisions, settings, activity, tables, metrics, addresses, pauses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from haystack.addresses import advertised_host, join, reserve_address
from haystack.config import StoreSettings
from haystack.errors import ConfigError
from haystack.store.activity import ChangedSlots
from haystack.store.control import ControlBlock
from haystack.store.control_cells import (
    HISTOGRAM_BUCKETS,
    HISTOGRAM_CELLS,
    HISTOGRAM_START,
    STATUS_CELL,
    Counter,
    FolderCell,
    FolderState,
    Histogram,
    Reason,
    Slot,
    VolumeCell,
    VolumeState,
)
from haystack.store.directories import retry_pause_seconds
from haystack.store.documents import changed_documents
from haystack.store.metrics import render
from haystack.store.settings import Timing, WorkerSettings
from haystack.store.states import Room, best_folder, checkpoint_due, folder_state, nearly_full, volume_state
from haystack.store.tables import read_table, write_table
from haystack.units import GIB, KIB, MIB
from haystack.workers import restart_pause_seconds

# -- decisions


def test_a_folder_is_full_below_its_reserve_and_usable_again_with_some_to_spare() -> None:
    ok, full = FolderState.OK, FolderState.FULL
    assert folder_state(ok, 100 * GIB, 64 * MIB, 64 * MIB) is ok
    assert folder_state(ok, 100 * GIB, 64 * MIB - 1, 64 * MIB) is full
    assert folder_state(full, 100 * GIB, 64 * MIB, 64 * MIB) is full
    assert folder_state(full, 100 * GIB, 71 * MIB, 64 * MIB) is ok
    assert folder_state(FolderState.FAILED, 100 * GIB, 50 * GIB, 64 * MIB) is FolderState.FAILED


def test_the_reserve_is_at_most_a_tenth_of_the_disk() -> None:
    assert folder_state(FolderState.OK, 10 * MIB, 2 * MIB, 64 * MIB) is FolderState.OK
    assert folder_state(FolderState.OK, 10 * MIB, MIB - 1, 64 * MIB) is FolderState.FULL


@given(free=st.integers(0, 2**44), total=st.integers(0, 2**44), reserve=st.integers(0, 2**43))
def test_a_folder_does_not_flap(free: int, total: int, reserve: int) -> None:
    once = folder_state(FolderState.OK, total, free, reserve)
    assert folder_state(once, total, free, reserve) is once


def test_states_of_volumes() -> None:
    assert volume_state(100, 32 * GIB, FolderState.OK) == (VolumeState.WRITABLE, Reason.NONE)
    assert volume_state(100, 32 * GIB, FolderState.FULL) == (VolumeState.READONLY, Reason.DISK_FULL)
    assert volume_state(32 * GIB - 100, 32 * GIB, FolderState.OK) == (VolumeState.READONLY, Reason.VOLUME_FULL)
    assert volume_state(33 * GIB, 32 * GIB, FolderState.OK) == (VolumeState.READONLY, Reason.VOLUME_FULL)


@given(max_bytes=st.integers(64 * KIB, 2**43))
def test_a_new_volume_is_writable_and_not_nearly_full(max_bytes: int) -> None:
    assert volume_state(64, max_bytes, FolderState.OK) == (VolumeState.WRITABLE, Reason.NONE)
    assert not nearly_full(64, max_bytes, 64 * MIB)


@given(max_bytes=st.integers(64 * KIB, 2**43), share=st.floats(0, 1.1), photo=st.integers(64 * KIB, 2**32))
def test_a_volume_is_reported_full_before_it_is(max_bytes: int, share: float, photo: int) -> None:
    size = int(max_bytes * share)
    if volume_state(size, max_bytes, FolderState.OK)[1] is Reason.VOLUME_FULL:
        assert nearly_full(size, max_bytes, photo)


def test_a_new_volume_goes_where_most_room_is() -> None:
    ok = FolderState.OK
    assert best_folder([Room(0, ok, 5 * GIB, 1), Room(1, ok, 6 * GIB, 9)]) == 1
    assert best_folder([Room(0, ok, 5 * GIB, 2), Room(1, ok, 5 * GIB + 5, 1)]) == 1
    assert best_folder([Room(0, ok, 5 * GIB, 1), Room(1, ok, 5 * GIB, 1)]) == 0
    assert best_folder([Room(0, FolderState.FULL, 9 * GIB, 0), Room(1, ok, GIB, 5)]) == 1
    assert best_folder([Room(0, FolderState.FAILED, 9 * GIB, 0)]) is None


def test_checkpoints_are_due_when_idle_or_after_long() -> None:
    def due(now: float, appended: float, dirty_since: float) -> bool:
        return checkpoint_due(now, appended, dirty_since, idle_seconds=5, most_seconds=300)

    assert not due(100, 99, 90)
    assert due(104, 99, 90)
    assert due(400, 399.9, 100)


@given(failures=st.integers(1, 1000), dice=st.floats(0, 1, exclude_max=True))
def test_pauses_grow_and_are_bounded(failures: int, dice: float) -> None:
    timing = Timing()
    pause = retry_pause_seconds(failures, dice, timing)
    assert timing.retry_first_seconds / 2 <= pause <= timing.retry_most_seconds
    assert retry_pause_seconds(failures + 1, dice, timing) >= pause
    assert timing.restart_first_seconds <= restart_pause_seconds(failures, timing) <= timing.restart_most_seconds


def test_changed_documents() -> None:
    one, two = {"a": 1}, {"a": 2}
    assert changed_documents({}, {1: one}) == ([one], [])
    assert changed_documents({1: one, 2: one}, {1: dict(one), 2: two}) == ([two], [])
    assert changed_documents({1: one}, {}) == ([], [1])
    read = {**one, "reads": 5, "bytesRead": 500}
    assert changed_documents({1: {**one, "reads": 4, "bytesRead": 400}}, {1: read}) == ([], [])
    assert changed_documents({1: one}, {1: read}) == ([read], [])


# -- settings


def test_settings_of_a_worker_travel_through_a_descriptor(tmp_path: Path) -> None:
    store = StoreSettings(
        data=(tmp_path / "ä", tmp_path / "b"), workers=3, directories=("http://d:1",), secret=b"x" * 32
    )
    sent = WorkerSettings.of_store(store, port=8080, worker=2, store_id="id")
    got = WorkerSettings.load(sent.share())
    assert got == sent
    assert (got.workers, got.worker, got.port, got.folders) == (3, 2, 8080, (tmp_path / "ä", tmp_path / "b"))


def test_settings_of_another_release_are_refused() -> None:
    fd = os.memfd_create("test")
    os.write(fd, b'{"port": 1, "colour": "red"}')
    with pytest.raises(ValueError, match="another release"):
        WorkerSettings.load(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


# -- the control block


def test_a_failure_stays() -> None:
    control = ControlBlock.create(1)
    slot = control.add_volume(3, 0, VolumeState.WRITABLE, max_bytes=MIB)
    control.set_state(slot, VolumeState.FAILED)
    control.set_state(slot, VolumeState.WRITABLE)
    assert control.state(slot) is VolumeState.FAILED
    control.remove_volume(slot)
    assert control.add_volume(4, 0, VolumeState.WRITABLE, max_bytes=MIB) == slot
    assert control.state(slot) is VolumeState.WRITABLE
    control.close()


def test_changed_slots() -> None:
    control = ControlBlock.create(2)
    slots = [control.add_volume(volume, 0, VolumeState.WRITABLE, max_bytes=MIB) for volume in (3, 4, 5)]
    every, tails = ChangedSlots(control), ChangedSlots(control, VolumeCell.DURABLE_TAIL)
    assert every.take() == tails.take() == set(slots)
    assert every.take() == tails.take() == set()
    control.cells[control.volume_base(1, slots[1]) + VolumeCell.READS] += 1
    assert (every.take(), tails.take()) == ({slots[1]}, set())
    control.cells[control.volume_base(0, slots[2]) + VolumeCell.DURABLE_TAIL] = 64
    assert (every.take(), tails.take()) == ({slots[2]}, {slots[2]})
    slots.append(control.add_volume(6, 0, VolumeState.WRITABLE, max_bytes=MIB))
    assert (every.take(), tails.take()) == ({slots[3]}, {slots[3]})
    control.close()


# -- tables


def test_tables_are_kept_and_a_damaged_one_counts_as_empty(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "volumes.json"
    assert read_table(path) == {}
    write_table(path, {3: {"maxBytes": 5}})
    assert read_table(path) == {3: {"maxBytes": 5}}
    assert not caplog.text
    for content in (
        b"",
        b"{}",
        b"[]",
        b'{"format": 2, "volumes": {}}',
        b'{"format": 1, "volumes": {"x": {}}}',
        b"\xff",
    ):
        path.write_bytes(content)
        assert read_table(path) == {}
    assert caplog.text.count("cannot be used and is made anew") == 6


# -- metrics


def metrics_of(control: ControlBlock, *folders: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    page = render(control, folders).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def test_metrics_are_summed_over_the_workers() -> None:
    control = ControlBlock.create(2)
    slot = control.add_volume(7, 0, VolumeState.READONLY, max_bytes=1000)
    for worker in range(2):
        base = control.worker_base(worker)
        control.cells[base + Counter.GET] = 10 + worker
        control.cells[base + STATUS_CELL[404]] = 2
        control.cells[base + Counter.PID] = 1
        control.cells[control.volume_base(worker, slot) + VolumeCell.READS] = 4
        histogram = base + HISTOGRAM_START + Histogram.WRITE * HISTOGRAM_CELLS
        control.cells[histogram + 3] = 1
        control.cells[histogram + HISTOGRAM_BUCKETS - 1] = 1
        control.cells[histogram + HISTOGRAM_BUCKETS] = 5
    control.cells[control.slot_cell(slot, Slot.LIVE_BYTES)] = 77
    control.cells[control.folder_cell(0, FolderCell.FREE_BYTES)] = 5
    control.cells[control.folder_cell(0, FolderCell.STATE)] = FolderState.FULL
    found = metrics_of(control, '/da"ta\\x')
    control.close()
    assert found["haystack_store_requests_total", (("method", "GET"),)] == 21
    assert found["haystack_store_responses_total", (("status", "404"),)] == 4
    assert found["haystack_store_workers", ()] == 2
    assert found["haystack_store_volume_reads_total", (("volume", "7"),)] == 8
    assert found["haystack_store_volume_live_bytes", (("volume", "7"),)] == 77
    assert found["haystack_store_volume_state", (("state", "readonly"), ("volume", "7"))] == 1
    assert found["haystack_store_volume_state", (("state", "writable"), ("volume", "7"))] == 0
    assert found["haystack_store_folder_free_bytes", (("folder", '/da"ta\\x'),)] == 5
    assert found["haystack_store_folder_state", (("folder", '/da"ta\\x'), ("state", "full"))] == 1
    name = "haystack_store_request_duration_seconds"
    assert found[f"{name}_bucket", (("le", "4e-06"), ("operation", "write"))] == 0
    assert found[f"{name}_bucket", (("le", "8e-06"), ("operation", "write"))] == 2
    assert found[f"{name}_bucket", (("le", "+Inf"), ("operation", "write"))] == 4
    assert found[f"{name}_count", (("operation", "write"),)] == 4
    assert found[f"{name}_sum", (("operation", "write"),)] == pytest.approx(1e-5)


def test_every_family_has_its_type_and_ends_as_prometheus_wants() -> None:
    control = ControlBlock.create(1)
    control.add_volume(7, 0, VolumeState.WRITABLE, max_bytes=1000)
    families = list(text_string_to_metric_families(render(control, ["/data"]).decode()))
    control.close()
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    assert all(family.type in ("counter", "gauge", "histogram") for family in families)
    assert all(family.samples for family in families)


# -- addresses


def test_a_reserved_port_is_kept() -> None:
    sockets, port = reserve_address("127.0.0.1", 0)
    with pytest.raises(ConfigError, match=f"127.0.0.1:{port} is in use"):
        reserve_address("127.0.0.1", port)
    for one in sockets:
        one.close()
    for one in reserve_address("127.0.0.1", port)[0]:
        one.close()


def test_an_address_that_is_not_ours_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot listen on 192.0.2.1:0"):
        reserve_address("192.0.2.1", 0)


def test_how_others_reach_us() -> None:
    assert advertised_host("10.1.2.3", ()) == "10.1.2.3"
    assert advertised_host("0.0.0.0", ("http://127.0.0.1:9333",)) == "127.0.0.1"
    assert advertised_host("0.0.0.0", ())
    assert join("::1", 80) == "[::1]:80"
    assert join("host", 80) == "host:80"


def test_all_timing_has_its_unit() -> None:
    assert all(name.endswith("_seconds") for name in Timing.__dataclass_fields__)
