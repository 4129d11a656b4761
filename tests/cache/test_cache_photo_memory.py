"""Keeping photos in shared memory: keeper and readers in one process, time as told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from photo_memory import ListeningPolicy, ManualClock, content, cookie_of, keep, photo, small_plan

from cache.memory import Kept, MemoryReader, PhotoMemory, plan_memory
from cache.memory.layout import MAX_HEAD_BYTES, MAX_RUNS, RING_ENTRIES
from cache.policies import make_policy
from haystack.errors import ConfigError, TooLarge
from haystack.units import MIB


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def memory(clock: ManualClock) -> Iterator[PhotoMemory]:
    memory = PhotoMemory(small_plan(2000), make_policy("lru"), clock)
    yield memory
    memory.close()


@pytest.fixture
def reader(memory: PhotoMemory) -> MemoryReader:
    return MemoryReader(*memory.open_worker(0).fds)


def test_what_was_kept_is_found_with_all_that_was_said_of_it(memory: PhotoMemory, reader: MemoryReader) -> None:
    assert keep(memory, photo(7, 2, 5000, head=b"H" * 333, meta=b"M" * 21))
    record = reader.find(1, 7, cookie_of(7))
    assert record is not None
    assert (record.head, record.meta, record.body) == (b"H" * 333, b"M" * 21, content(7, 2, 5000))
    assert (record.checksum, record.time_ms, record.stored_ms, record.flags) == (
        2,
        1_700_000_000_002,
        1_700_000_100_000,
        3,
    )
    assert (record.data_bytes, record.filled_bytes, record.complete, record.expires) == (5000, 5000, True, 0)
    assert b"".join(record.pieces(10, 4000)) == content(7, 2, 5000)[10:4000]
    kept = memory.find(1, 7)
    assert isinstance(kept, Kept)
    assert (kept.entry, kept.generation, kept.cookie) == (record.entry, record.generation, cookie_of(7))
    assert b"".join(memory.views(kept)) == content(7, 2, 5000)


def test_a_wrong_name_or_cookie_finds_nothing(memory: PhotoMemory, reader: MemoryReader) -> None:
    keep(memory, photo(7, 2, 100))
    assert reader.find(1, 7, cookie_of(7) + 1) is None
    assert reader.find(2, 7, cookie_of(7)) is None
    assert reader.find(1, 8, cookie_of(7)) is None
    assert reader.find(1, 7, cookie_of(7), 1) is None


@pytest.mark.parametrize("size_bytes", [0, 1, 511, 512, 513, 100_000])
def test_any_size_is_kept(memory: PhotoMemory, reader: MemoryReader, size_bytes: int) -> None:
    assert keep(memory, photo(7, 2, size_bytes, head=b"", meta=b""))
    record = reader.find(1, 7, cookie_of(7))
    assert record is not None
    assert b"".join(record.pieces()) == content(7, 2, size_bytes)


def test_a_photo_is_found_when_it_is_complete_and_opened_before(memory: PhotoMemory, reader: MemoryReader) -> None:
    data = content(7, 1, 3000)
    filling = memory.begin(photo(7, 1, 3000))
    assert filling is not None
    filling.write(data[:1000])
    assert reader.find(1, 7, cookie_of(7)) is None
    assert memory.find(1, 7) is None
    record = reader.open(filling.entry, filling.generation)
    assert record is not None
    assert (record.filled_bytes, record.complete) == (1000, False)
    assert b"".join(record.pieces(0, 1000)) == data[:1000]
    target = filling.buffer()
    target[:] = data[1000:]
    filling.advance(len(target))
    assert (record.filled_bytes, record.complete, len(filling.buffer())) == (3000, False, 0)
    assert b"".join(filling.views()) == data
    assert filling.finish()
    assert record.complete
    assert reader.valid(record)
    found = reader.find(1, 7, cookie_of(7))
    assert found is not None
    assert found.body == data


def test_too_much_or_too_little_data_is_refused(memory: PhotoMemory) -> None:
    filling = memory.begin(photo(7, 1, 10))
    assert filling is not None
    with pytest.raises(ValueError, match="11 bytes"):
        filling.write(b"x" * 11)
    filling.write(b"x" * 9)
    with pytest.raises(ValueError, match="9 of 10"):
        filling.finish()
    filling.abandon()
    assert memory.find(1, 7) is None


def test_an_abandoned_photo_goes_out_of_force(memory: PhotoMemory, reader: MemoryReader, clock: ManualClock) -> None:
    filling = memory.begin(photo(7, 1, 3000))
    assert filling is not None
    record = reader.open(filling.entry, filling.generation)
    assert record is not None
    filling.abandon()
    assert not record.in_force
    assert not reader.valid(record)
    assert reader.open(filling.entry, filling.generation) is None
    reader.rest()
    clock.settle(memory)
    assert (memory.waiting_bytes, memory.usage().arena_used_bytes) == (0, 0)


def test_a_newer_photo_takes_the_place_of_an_older_one(memory: PhotoMemory, reader: MemoryReader) -> None:
    keep(memory, photo(7, 1, 3000))
    old = reader.find(1, 7, cookie_of(7))
    assert old is not None
    keep(memory, photo(7, 2, 200))
    assert not reader.valid(old)
    new = reader.find(1, 7, cookie_of(7))
    assert new is not None
    assert new.body == content(7, 2, 200)
    assert memory.usage().entries == 1


def test_deletes_of_one_rendition_and_of_all(memory: PhotoMemory, reader: MemoryReader) -> None:
    for alternate in range(6):
        keep(memory, photo(7, 1, 300, alternate=alternate))
    keep(memory, photo(8, 1, 300))
    assert memory.drop(1, 7, 3) == 1
    assert reader.find(1, 7, cookie_of(7), 3) is None
    assert reader.find(1, 7, cookie_of(7), 2) is not None
    assert memory.drop(1, 7) == 5
    assert all(reader.find(1, 7, cookie_of(7), alternate) is None for alternate in range(6))
    assert reader.find(1, 8, cookie_of(8)) is not None
    assert memory.drop(1, 7) == 0


def test_purging_a_volume_and_everything(memory: PhotoMemory, reader: MemoryReader) -> None:
    for key in range(20):
        keep(memory, photo(key, 1, 300, volume=1 + key % 2))
    assert memory.drop_volume(2) == 10
    assert reader.find(2, 5, cookie_of(5)) is None
    assert reader.find(1, 6, cookie_of(6)) is not None
    assert {kept.key for kept in memory.entries()} == set(range(0, 20, 2))
    assert memory.drop_all() == 10
    assert memory.usage().entries == memory.usage().data_bytes == 0


@pytest.mark.parametrize("how", ["name", "all renditions", "volume", "all"])
def test_what_is_deleted_on_its_way_is_sent_to_its_end_and_not_kept(
    memory: PhotoMemory, reader: MemoryReader, how: str
) -> None:
    filling = memory.begin(photo(7, 1, 3000))
    other = memory.begin(photo(8, 1, 3000, volume=2))
    assert filling is not None
    assert other is not None
    record = reader.open(filling.entry, filling.generation)
    assert record is not None
    record.pin()
    drop = {
        "name": lambda: memory.drop(1, 7, 0),
        "all renditions": lambda: memory.drop(1, 7),
        "volume": lambda: memory.drop_volume(1),
        "all": memory.drop_all,
    }
    assert drop[how]() == 0
    assert (filling.dropped, other.dropped) == (True, how == "all")
    filling.write(content(7, 1, 3000))
    assert filling.finish() is False
    assert record.complete
    assert record.body == content(7, 1, 3000)
    assert memory.find(1, 7) is None
    assert reader.find(1, 7, cookie_of(7)) is None


def test_space_waits_for_those_who_look_and_for_pins(
    memory: PhotoMemory, reader: MemoryReader, clock: ManualClock
) -> None:
    other = MemoryReader(*memory.open_worker(1).fds)
    keep(memory, photo(7, 1, 3000))
    seen, pinned = reader.find(1, 7, cookie_of(7)), other.find(1, 7, cookie_of(7))
    assert seen is not None
    assert pinned is not None
    pinned.pin()
    other.rest()
    memory.drop(1, 7)
    assert memory.reclaim() == 0  # nobody may know of it yet
    clock.settle(memory)
    assert memory.waiting_bytes >= 3000
    reader.rest()
    clock.settle(memory)
    assert memory.usage().pinned_bytes == memory.waiting_bytes >= 3000
    assert pinned.body == content(7, 1, 3000)
    pinned.unpin()
    clock.settle(memory)
    assert memory.waiting_bytes == 0


@pytest.mark.parametrize("look", ["find", "open", "valid"])
def test_what_a_worker_looks_at_stays_until_it_looks_elsewhere(
    memory: PhotoMemory, reader: MemoryReader, clock: ManualClock, look: str
) -> None:
    keep(memory, photo(7, 1, 3000))
    keep(memory, photo(8, 1, 3000))
    record, other = reader.find(1, 7, cookie_of(7)), reader.find(1, 8, cookie_of(8))
    assert record is not None
    assert other is not None
    if look == "find":
        reader.find(1, 7, cookie_of(7))
    elif look == "open":
        reader.open(record.entry, record.generation)
    else:
        assert reader.valid(record)
    memory.drop(1, 7)
    clock.settle(memory)
    assert memory.waiting_bytes >= 3000
    assert record.body == content(7, 1, 3000)
    assert reader.valid(other)
    clock.settle(memory)
    assert memory.waiting_bytes == 0


def test_a_worker_that_pins_right_before_it_looks_elsewhere_is_seen(
    memory: PhotoMemory, reader: MemoryReader, clock: ManualClock
) -> None:
    keep(memory, photo(7, 1, 3000))
    record = reader.find(1, 7, cookie_of(7))
    assert record is not None
    memory.drop(1, 7)
    clock.now += 0.01
    memory.reclaim()
    record.pin()
    reader.rest()
    clock.settle(memory)
    assert memory.waiting_bytes >= 3000


def test_the_pins_of_a_dead_worker_are_given_up(memory: PhotoMemory, reader: MemoryReader, clock: ManualClock) -> None:
    keep(memory, photo(7, 1, 3000))
    record = reader.find(1, 7, cookie_of(7))
    assert record is not None
    record.pin()
    reader.hit(record)
    memory.drop(1, 7)
    clock.settle(memory)
    assert memory.waiting_bytes
    memory.open_worker(0)
    clock.settle(memory)
    assert memory.waiting_bytes == 0


def test_more_is_kept_than_fits_by_evicting(memory: PhotoMemory, clock: ManualClock) -> None:
    evicted: list[tuple[int, bytes]] = []
    memory.evicted = lambda kept, views: evicted.append((kept.key, b"".join(views)))
    for key in range(200):
        assert keep(memory, photo(key, 1, 20_000))
        clock.settle(memory)
    usage = memory.usage()
    assert usage.entries + usage.evictions == 200
    assert usage.evictions == len(evicted) > 100
    assert evicted[0] == (0, content(0, 1, 20_000))
    assert usage.data_bytes == usage.entries * 20_000
    assert usage.arena_used_bytes > 0.9 * usage.arena_bytes
    assert usage.refused == 0


def test_no_room_while_all_of_it_is_in_use(memory: PhotoMemory, reader: MemoryReader, clock: ManualClock) -> None:
    records = []
    key = 0
    while keep(memory, photo(key, 1, 50_000)):
        record = reader.find(1, key, cookie_of(key))
        assert record is not None
        record.pin()
        records.append(record)
        clock.settle(memory)
        key += 1
    assert memory.usage().refused == 1
    assert all(record.body == content(number, 1, 50_000) for number, record in enumerate(records))
    for record in records:
        record.unpin()
    clock.settle(memory)
    assert keep(memory, photo(key, 1, 50_000))


def test_a_photo_in_many_runs_is_read_like_any_other(
    memory: PhotoMemory, reader: MemoryReader, clock: ManualClock
) -> None:
    for key in range(600):
        keep(memory, photo(key, 1, 1000))
    for key in range(0, 600, 2):
        memory.drop(1, key)
    clock.settle(memory)
    while (usage := memory.usage()).arena_bytes - usage.arena_used_bytes > 300_000:  # fill up what lies behind
        assert keep(memory, photo(10_000 + usage.entries, 1, 40_000))
    data = content(5000, 1, 60_000)
    assert keep(memory, photo(5000, 1, 60_000, meta=b"meta"))
    record = reader.find(1, 5000, cookie_of(5000))
    assert record is not None
    assert 10 < len(record.pieces()) <= MAX_RUNS
    assert record.body is None
    assert (record.head, record.meta) == (b"head", b"meta")
    assert b"".join(record.pieces()) == data
    for start, end in ((0, 1), (999, 1001), (2048, 40_000), (59_999, 60_000), (5, 5), (60_000, None), (0, 99_999)):
        assert b"".join(record.pieces(start, end)) == data[start:end]


def test_hits_reach_the_policy_and_old_ones_are_lost_when_nobody_reads_them(
    memory: PhotoMemory, reader: MemoryReader, clock: ManualClock
) -> None:
    for key in range(60):
        assert keep(memory, photo(key, 1, 10_000))
    record = reader.find(1, 0, cookie_of(0))
    assert record is not None
    for _ in range(RING_ENTRIES // 2):
        reader.hit(record)
    reader.hit(record, RING_ENTRIES // 2 + 10)
    assert memory.take_hits() == RING_ENTRIES
    assert memory.usage().hits_lost == 10
    reader.hit(record)
    reader.rest()
    assert memory.take_hits() == 1
    assert memory.take_hits() == 0
    for key in range(100, 160):
        assert keep(memory, photo(key, 1, 10_000))
        clock.settle(memory)
    assert memory.find(1, 0) is not None
    assert memory.find(1, 1) is None


def test_many_hits_are_noted_at_once_across_the_end_of_the_ring() -> None:
    policy = ListeningPolicy()
    memory, told = PhotoMemory(small_plan(400), policy), policy.heard
    reader = MemoryReader(*memory.open_worker(0).fds)
    for key in (1, 2, 3):
        assert keep(memory, photo(key, 1, 3000))
    first, second, third = (reader.find(1, key, cookie_of(key)) for key in (1, 2, 3))
    assert first is not None and second is not None and third is not None
    reader.hit(first, RING_ENTRIES - 2)
    assert memory.take_hits() == RING_ENTRIES - 2
    told.clear()
    reader.hit(second, 5)
    reader.hit(third)
    assert memory.take_hits() == 6
    assert told == [second.entry] * 5 + [third.entry]
    reader.hit(first, 3 * RING_ENTRIES)
    assert memory.take_hits() == RING_ENTRIES and set(told[6:]) == {first.entry}
    memory.close()


def test_when_it_was_verified_can_be_told_later(memory: PhotoMemory, reader: MemoryReader) -> None:
    keep(memory, photo(7, 1, 100))
    record = reader.find(1, 7, cookie_of(7))
    assert record is not None
    assert record.verified_ns == 5
    assert memory.set_verified(record.entry, record.generation, 10**18)
    assert record.verified_ns == 10**18
    kept = memory.find(1, 7)
    assert kept is not None
    assert kept.verified_ns == 10**18
    memory.drop(1, 7)
    assert not memory.set_verified(record.entry, record.generation, 3)


def test_what_is_too_large_is_not_taken(memory: PhotoMemory) -> None:
    assert memory.begin(photo(1, 1, memory.plan.max_photo_bytes + 1)) is None
    with pytest.raises(TooLarge, match="head"):
        memory.begin(photo(1, 1, 10, head=b"x" * (MAX_HEAD_BYTES + 1)))


def test_entries_are_paid_for_by_the_arena(clock: ManualClock) -> None:
    """Photos so small that a second block of entries is needed: the sum stays, and the pages are given back."""
    memory = PhotoMemory(small_plan(4000, max_entries=4096), make_policy("lru"), clock)
    try:
        before = memory.usage()
        for key in range(2500):
            assert keep(memory, photo(key, 1, 10))
            clock.settle(memory)
        after = memory.usage()
        assert after.entries > 2048
        paid_bytes = before.arena_bytes - after.arena_bytes
        assert paid_bytes >= after.overhead_bytes - before.overhead_bytes > 0
        assert memory.allocated_bytes < before.arena_bytes + before.overhead_bytes
        assert paid_bytes < 1.1 * (after.overhead_bytes - before.overhead_bytes) + 3 * 4096
    finally:
        memory.close()


def test_pages_that_are_paid_with_go_back_to_the_system(clock: ManualClock) -> None:
    memory = PhotoMemory(small_plan(4000, max_entries=4096), make_policy("lru"), clock)
    try:
        for key in range(200):  # every page of the arena is used once
            keep(memory, photo(key, 1, 20_000))
            clock.settle(memory)
        before = memory.usage()
        assert memory.allocated_bytes > 0.9 * before.arena_bytes
        for key in range(1000, 3500):
            keep(memory, photo(key, 1, 10))
            clock.settle(memory)
        after = memory.usage()
        assert after.arena_bytes < before.arena_bytes
        assert memory.allocated_bytes <= before.arena_bytes + before.overhead_bytes
        arena_bytes = memory.allocated_bytes - 4096 * 128 - 4096 * 2  # no more than this is in index and pins
        assert arena_bytes <= after.arena_bytes
    finally:
        memory.close()


@pytest.mark.parametrize("offset", [8, 16, 24, 32, 64, 72, 96])
def test_a_descriptor_that_does_not_agree_with_its_check_is_not_believed(
    memory: PhotoMemory, reader: MemoryReader, offset: int
) -> None:
    """What a worker may see that was held up between two of its steps while the entry was given to another photo."""
    keep(memory, photo(7, 1, 5000))
    record = reader.find(1, 7, cookie_of(7))
    assert record is not None
    cells = memory.descriptors.cells
    cells[record.generation_cell + offset // 8] ^= 1 << 40
    assert reader.find(1, 7, cookie_of(7)) is None
    assert reader.open(record.entry, record.generation) is None


def test_entries_that_are_all_in_use_are_evicted_for(clock: ManualClock) -> None:
    memory = PhotoMemory(small_plan(6000, max_entries=1024), make_policy("lru"), clock)
    try:
        for key in range(2000):
            assert keep(memory, photo(key, 1, 10))
            clock.settle(memory)
        assert 900 < memory.usage().entries < 1024
    finally:
        memory.close()


def test_a_worker_cannot_write_what_is_not_its_own(memory: PhotoMemory, reader: MemoryReader) -> None:
    assert reader.arena.readonly
    assert reader.cells.readonly
    with pytest.raises(OverflowError, match="65535"):
        keep(memory, photo(7, 1, 100))
        record = reader.find(1, 7, cookie_of(7))
        assert record is not None
        for _ in range(2**16):
            record.pin()


def test_the_plan_shares_out_the_limit() -> None:
    for memory_bytes in (256 * MIB, 1024 * MIB, 64 * 1024 * MIB):
        for workers in (1, 4):
            plan = plan_memory(memory_bytes, workers)
            whole = plan.processes_bytes + plan.table_bytes + plan.arena_bytes
            assert memory_bytes - 512 < whole <= memory_bytes
            assert plan.max_photo_bytes <= memory_bytes // 64
    assert plan_memory(4096 * MIB, 2).arena_bytes > 0.93 * 4096 * MIB
    with pytest.raises(ConfigError, match="Set at least"):
        plan_memory(64 * MIB, 4)
