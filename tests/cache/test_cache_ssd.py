"""The second level by itself: index, log, admission, file, and the level over real files that are harmed."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photo_memory import content, cookie_of, photo, small_plan

from cache.memory import PhotoMemory
from cache.policies import make_policy
from cache.signatures import SIGNED
from cache.ssd import SecondLevel, SsdPlan, plan_ssd
from cache.ssd import level as level_module
from cache.ssd.admission import BURST_SECONDS, REWRITE_AGE, Admission, AskedPolicy, Budget
from cache.ssd.file import MAGIC, SsdFile
from cache.ssd.index import SsdIndex
from cache.ssd.log import Log
from cache.ssd.plan import BLOCK_BYTES, CHUNK_BYTES, MEMORY_SHARE
from haystack.errors import ConfigError
from haystack.fid import Fid
from haystack.units import GIB, MIB

SIZE = 20_000


# Pure parts.


@given(st.integers(16 * MIB, 8 * 2**40), st.integers(64 * MIB, 2**40))
@settings(deadline=None)
def test_a_plan_stays_within_its_file_and_its_memory(ssd_bytes: int, memory_bytes: int) -> None:
    plan = plan_ssd(ssd_bytes, memory_bytes)
    assert ssd_bytes - 2 * BLOCK_BYTES < plan.file_bytes <= ssd_bytes and plan.log_bytes % BLOCK_BYTES == 0
    assert plan.memory_bytes <= memory_bytes * MEMORY_SHARE + 13 * MIB


NAMES = st.tuples(st.integers(1, 2), st.integers(1, 6), st.integers(0, 2))
STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "add", "remove", "drop", "photo", "volume", "all"]), NAMES), max_size=60
)


@given(STEPS)
@settings(max_examples=150, deadline=None)
def test_the_index_is_a_dictionary_of_bounded_size(steps: list[tuple[str, tuple[int, int, int]]]) -> None:
    index, model = SsdIndex(8), dict[tuple[int, int, int], int]()
    slots: dict[int, int] = {}
    for position, (what, name) in enumerate(steps):
        volume, key, alternate = name
        if what == "add" and name not in model:
            slot = index.add(
                *name, cookie=key, checksum=7, position=position, verified_ns=1, stored_ms=2, size_bytes=10
            )
            assert (slot is None) == (len(model) == 8)
            if slot is not None:
                model[name], slots[position] = position, slot
        elif what == "remove" and name in model:
            at = model.pop(name)
            assert index.remove(slots[at], at) and not index.remove(slots[at], at)
        elif what in ("drop", "photo", "volume", "all"):
            gone = [
                one
                for one in model
                if what == "all" or (one[0] == volume and (what == "volume" or one[1:] == (key, alternate)
                or (what == "photo" and one[1] == key)))
            ]  # fmt: skip
            found = {
                "drop": lambda: index.drop(volume, key, alternate),  # noqa: B023 - called at once
                "photo": lambda: index.drop(volume, key, None),  # noqa: B023
                "volume": lambda: index.drop_volume(volume),  # noqa: B023
                "all": index.drop_all,
            }[what]()
            assert found == len(gone)
            for one in gone:
                del model[one]
        assert len(index) == len(model) and index.live_bytes == 10 * len(model)
        for one in [(v, k, a) for v in (1, 2) for k in range(1, 7) for a in range(3)]:
            located = index.find(*one)
            assert (located.position if located else None) == model.get(one)
            assert located is None or index.is_at(located.slot, located.position)


@given(st.lists(st.integers(1, 64), min_size=1, max_size=200), st.data())
@settings(max_examples=100, deadline=None)
def test_needles_in_the_log_never_lie_on_one_another(sizes: list[int], data: st.DataObject) -> None:
    """What was not given up has its bytes for itself; a chunk begins with a block and is not cut by the file's end."""
    log = Log(size_bytes=512, chunk_bytes=64, block_bytes=8)
    owners: dict[int, int] = {}
    living: dict[int, int] = {}
    for slot, size in enumerate(sizes):
        if not log.fits(size):
            if log.gathered_bytes:
                chunk = log.seal()
                assert chunk.start % 8 == 0 == chunk.size_bytes % 8
                assert chunk.start // 512 == (chunk.start + chunk.size_bytes - 1) // 512
            for gone, position in log.begin(size):
                assert living.pop(gone) == position
        assert log.fits(size)
        position = log.place(size)
        log.note(slot, position)
        living[slot] = position
        for byte in range(position, position + size):
            assert owners.get(byte % log.size_bytes) not in living, "somebody lives there"
            owners[byte % log.size_bytes] = slot
        assert 0 <= log.age(position) <= 1
        if data.draw(st.booleans()) and log.gathered_bytes:
            log.seal()
    for slot, position in living.items():
        assert all(owners[byte % log.size_bytes] == slot for byte in range(position, position + sizes[slot]))


def test_what_was_asked_for_twice_is_written_now_or_after_it_came_again() -> None:
    admission = Admission(10_000, 1024)
    assert admission.wants(2, 1000, True, None)
    assert not admission.wants(3, 1000, False, None)
    assert admission.wants(3, 1000, False, None)
    assert not admission.wants(4, 1000, False, None)
    for other in range(100, 112):
        admission.wants(other, 1000, False, None)
    assert not admission.wants(4, 1000, False, None)  # too long ago
    assert not admission.wants(2, 1000, True, REWRITE_AGE / 2)
    assert admission.wants(2, 1000, False, (1 + REWRITE_AGE) / 2)


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 4000)), max_size=80))
@settings(deadline=None)
def test_the_budget_is_kept(steps: list[tuple[float, int]]) -> None:
    budget, now, written = Budget(1000, 4000, 0.0), 0.0, 0
    for pause, size_bytes in steps:
        now += pause
        if budget.take(size_bytes, now):
            written += size_bytes
        assert written <= 1000 * (now + BURST_SECONDS) + 1
    assert budget.take(4000, now + 4) and Budget(0, 1, 0.0).take(2**40, 0.0)


def test_the_policy_in_between_counts_and_changes_nothing() -> None:
    plain, counted = make_policy("lru"), AskedPolicy(make_policy("lru"))
    dice = random.Random(1)
    assert counted.entry_bytes == plain.entry_bytes + 1
    for policy in (plain, counted):
        policy.resize(10_000)
        for entry in range(20):
            policy.add(entry, entry, 100)
    asked = [dice.randrange(20) for _ in range(30)]
    plain.hits(asked)
    counted.hits(asked)
    assert [counted.again(entry) for entry in range(20)] == [entry in asked for entry in range(20)]
    plain.remove(3)
    counted.remove(3)
    assert (len(plain), plain.total_bytes) == (len(counted), counted.total_bytes)
    assert [plain.victim() for _ in range(19)] == [counted.victim() for _ in range(19)]
    counted.add(asked[0], 1, 100)
    assert not counted.again(asked[0]) and not counted.again(10_000)


# The file.


def test_a_file_keeps_what_is_written_and_forgets_it_when_it_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "level"
    file = SsdFile(path, 64 * BLOCK_BYTES)
    with pytest.raises(ConfigError, match="another Cache uses"):
        SsdFile(path, 64 * BLOCK_BYTES)
    import mmap

    block = mmap.mmap(-1, BLOCK_BYTES)
    block[:] = bytes(range(256)) * 16
    file.write(65 * BLOCK_BYTES, memoryview(block))  # in the second round
    assert bytes(file.read(BLOCK_BYTES + 100, 300)) == (bytes(range(256)) * 16)[100:400]
    assert path.stat().st_mode & 0o777 == 0o600 and path.stat().st_size == 65 * BLOCK_BYTES
    file.close()
    SsdFile(path, 32 * BLOCK_BYTES).close()
    assert path.stat().st_size == 33 * BLOCK_BYTES
    assert path.read_bytes() == MAGIC.ljust(33 * BLOCK_BYTES, b"\0")


def test_nothing_of_somebody_else_is_overwritten(tmp_path: Path) -> None:
    mine = tmp_path / "wedding.raw"
    mine.write_bytes(b"the only copy")
    linked = tmp_path / "link"
    linked.symlink_to(mine)
    for path in (mine, linked, tmp_path, Path("/dev/null"), tmp_path / "none" / "level"):
        with pytest.raises(ConfigError, match=r"cache\.ssd"):
            SsdFile(path, 64 * BLOCK_BYTES)
    assert mine.read_bytes() == b"the only copy"


# The level.


class Bench:
    """A small memory over a level with a real file; photos are made of their key."""

    def __init__(self, folder: Path, *, plan: SsdPlan | None = None, bytes_per_second: int = 0) -> None:
        self.path = folder / "level"
        self.asked = AskedPolicy(make_policy("lru"))
        self.memory = PhotoMemory(small_plan(2000), self.asked)
        self.plan = plan or SsdPlan(8 * CHUNK_BYTES, 4096, 0)
        self.level = SecondLevel(self.plan, self.memory, self.asked, bytes_per_second=bytes_per_second)

    def put(
        self, key: int, *, again: bool = True, size_bytes: int = SIZE, version: int = 1, flags: int = 0, **fields: Any
    ) -> None:
        """As a photo that was fetched and asked for."""
        new = photo(key, version, size_bytes, **fields)
        new = replace(new, flags=flags)
        while (filling := self.memory.begin(new)) is None:
            assert self.memory.waiting_bytes
            self.memory.reclaim()
        filling.write(content(key, version, size_bytes))
        assert filling.finish()
        if again:
            self.memory.touched(filling.entry)

    def push_out(self) -> None:
        """Have everything leave memory."""
        while self.memory._evict():
            pass

    async def settle(self) -> None:
        """Everything is written."""
        for _ in range(2):
            self.level._flush_now()
            while self.level._writing:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.001)

    async def has(self, key: int, *, version: int = 1, size_bytes: int = SIZE) -> bool:
        found = await self.level.read(Fid(1, key, cookie_of(key)))
        if found is not None:
            self.level.gave(found)
            assert found.data == content(key, version, size_bytes) and found.meta == b"m"
            assert found.located.checksum == version
        return found is not None


def over(folder: Path, test: Callable[[Bench], Any], **options: Any) -> Bench:
    """Run a test with a level that is open."""

    async def run() -> Bench:
        bench = Bench(folder, **options)
        await bench.level.open(bench.path)
        try:
            await test(bench)
        finally:
            await bench.settle()
            bench.level.close()
            bench.memory.close()
        return bench

    return asyncio.run(run())


def test_what_leaves_memory_is_found_and_has_all_its_fields(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.put(1)
        bench.put(2, again=False)
        bench.put(3, meta=b"x" * 500, alternate=4, size_bytes=77_777, flags=SIGNED)
        bench.push_out()
        assert not await bench.has(1), "it is not written yet"
        await bench.settle()
        assert await bench.has(1) and not await bench.has(2)
        found = await bench.level.read(Fid(1, 3, cookie_of(3), 4))
        assert found is not None and found.meta == b"x" * 500 and found.data == content(3, 1, 77_777)
        assert (found.located.verified_ns, found.located.stored_ms) == (5, 1_700_000_100_000)
        assert (found.header.time_ms, found.header.expires, found.header.flags) == (1_700_000_000_001, 0, SIGNED)
        assert await bench.level.read(Fid(1, 1, cookie_of(1) ^ 1)) is None
        assert bench.level.usage.hits == 1 and bench.level.usage.failures == 0

    over(tmp_path, test)


@pytest.mark.parametrize("how", ["photo", "renditions", "volume", "all", "replaced", "left anew"])
@pytest.mark.parametrize("when", ["gathered", "written", "being read"])
def test_what_is_taken_out_is_gone_at_every_moment(tmp_path: Path, how: str, when: str) -> None:
    async def test(bench: Bench) -> None:
        bench.put(1)
        bench.push_out()
        if when != "gathered":
            await bench.settle()
        reading = asyncio.ensure_future(bench.has(1))
        await asyncio.sleep(0)
        if when != "being read":
            await reading
        if how == "left anew":
            bench.put(1, version=2, again=False)
            bench.push_out()
        else:
            {
                "photo": lambda: bench.level.drop(1, 1, 0),
                "renditions": lambda: bench.level.drop(1, 1),
                "volume": lambda: bench.level.drop_volume(1),
                "all": bench.level.drop_all,
                "replaced": lambda: bench.level.came(Fid(1, 1, cookie_of(1)), 2),
            }[how]()
        if when == "being read":
            assert not await reading
        await bench.settle()
        assert not await bench.has(1)
        assert len(bench.level) == 0 and bench.level.usage.failures == 0 and not bench.level.off

    over(tmp_path, test)


def test_what_a_store_gave_again_stays_when_it_is_the_same(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.put(1)
        bench.push_out()
        await bench.settle()
        bench.level.came(Fid(1, 1, cookie_of(1)), 1)
        assert await bench.has(1)
        written = bench.level.usage.written
        bench.put(1)
        bench.push_out()
        assert bench.level.usage.written == written, "it is there already"

    over(tmp_path, test)


def test_every_flipped_byte_is_noticed_and_its_photo_forgotten(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        dice = random.Random(5)
        for key in range(1, 41):
            bench.put(key, size_bytes=1000)
        bench.push_out()
        await bench.settle()
        located = {key: bench.level._index.find(1, key, 0) for key in range(1, 41)}
        with bench.path.open("r+b") as file:
            for key, found in located.items():
                assert found is not None
                place = dice.randrange(found.size_bytes) if key > 3 else (0, found.size_bytes - 1, 60)[key - 1]
                file.seek(BLOCK_BYTES + found.position + place)
                byte = file.read(1)[0]
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte ^ 1 << dice.randrange(8)]))
            file.flush()
            os.fsync(file.fileno())
        for key in located:
            assert not await bench.has(key, size_bytes=1000)
        assert len(bench.level) == 0 and bench.level.usage.failures == 40
        assert not bench.level.off, "wrong bytes alone do not switch it off"

    over(tmp_path, test)


def test_a_needle_of_another_place_is_not_taken(tmp_path: Path) -> None:
    """Also of the same photo, as when a disk loses a write."""

    async def test(bench: Bench) -> None:
        bench.put(1, size_bytes=8000)
        bench.put(2, size_bytes=8000)
        bench.push_out()
        await bench.settle()
        first, second = (bench.level._index.find(1, key, 0) for key in (1, 2))
        assert first is not None and second is not None
        with bench.path.open("r+b") as file:
            file.seek(BLOCK_BYTES + first.position)
            needle = file.read(first.size_bytes)
            file.seek(BLOCK_BYTES + second.position)
            file.write(needle)
        bench.level._index.remove(first.slot, first.position)
        bench.level._index.add(
            1, 1, 0, cookie=first.cookie, checksum=first.checksum, position=second.position,
            verified_ns=1, stored_ms=1, size_bytes=first.size_bytes,
        )  # fmt: skip
        assert not await bench.has(1, size_bytes=8000)

    over(tmp_path, test)


def test_the_file_stays_as_large_as_it_is_and_the_oldest_go(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        for key in range(1, 1501):
            bench.put(key)
            if key % 40 == 0:
                bench.push_out()
                await bench.settle()
        assert bench.path.stat().st_size == bench.plan.file_bytes
        assert bench.level.usage.evictions > 500
        assert bench.level.usage.not_written <= 40  # when two chunks were full within a turn of the loop
        assert await bench.has(1480) and not await bench.has(20)
        assert 0.8 * bench.plan.log_bytes <= bench.level.live_bytes <= bench.plan.log_bytes
        for key in range(1400, 1481, 9):
            assert await bench.has(key)

    over(tmp_path, test)


def test_the_index_bounds_the_photos(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        for key in range(1, 3001):
            bench.put(key, size_bytes=4000)
            if key % 100 == 0:
                bench.push_out()
                await bench.settle()
        assert len(bench.level) <= 1500 and bench.level.usage.evictions
        assert await bench.has(2999, size_bytes=4000)

    over(tmp_path, test, plan=SsdPlan(16 * CHUNK_BYTES, 1500, 0))


def test_what_is_read_is_written_anew_before_it_is_given_up(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        for key in range(1, 1201):
            bench.put(key)
            if key % 40 == 0:
                if await bench.has(7):
                    bench.put(7, again=False)
                bench.push_out()
                await bench.settle()
        assert await bench.has(7) and not await bench.has(8)

    over(tmp_path, test)


def test_no_more_is_written_than_the_budget_allows(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        for key in range(1, 401):
            bench.put(key)
        bench.push_out()
        await bench.settle()
        assert bench.level.usage.not_written > 200
        assert bench.level.usage.written * SIZE <= CHUNK_BYTES + 1000

    over(tmp_path, test, bytes_per_second=1)


def test_a_disk_that_fails_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> Any:
        raise OSError(5, "Input/output error")

    async def reading(bench: Bench) -> None:
        for key in range(1, 9):
            bench.put(key)
        bench.push_out()
        await bench.settle()
        monkeypatch.setattr(SsdFile, "read", refuse)
        for key in range(1, 4):
            assert not bench.level.off
            assert not await bench.has(key)
        monkeypatch.undo()
        assert "reads failed" in bench.level.off and len(bench.level) == 0
        assert not await bench.has(5)
        bench.put(9)
        bench.push_out()
        assert bench.level.usage.written == 8

    async def writing(bench: Bench) -> None:
        monkeypatch.setattr(SsdFile, "write", refuse)
        bench.put(1)
        bench.push_out()
        await bench.settle()
        assert "Input/output error" in bench.level.off and bench.level.usage.failures == 1
        assert not await bench.has(1)

    over(tmp_path, reading)
    over(tmp_path, writing)


def test_a_slow_disk_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    going = threading.Event()
    read = SsdFile.read

    def slow(file: SsdFile, position: int, size_bytes: int) -> memoryview:
        going.wait(20)
        return read(file, position, size_bytes)

    async def test(bench: Bench) -> None:
        bench.put(1)
        bench.push_out()
        await bench.settle()
        monkeypatch.setattr(SsdFile, "read", slow)
        monkeypatch.setattr(level_module, "READ_SECONDS", 0.01)
        assert [await bench.has(1) for _ in range(3)] == [False] * 3
        assert "took more than" in bench.level.off
        going.set()
        while bench.level._reading_bytes:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.001)

    over(tmp_path, test)


def test_reads_under_way_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(bench: Bench) -> None:
        for key in range(1, 9):
            bench.put(key)
        bench.push_out()
        await bench.settle()
        monkeypatch.setattr(level_module, "READING_BYTES", 3 * SIZE + 1000)
        found = await asyncio.gather(*(bench.has(key) for key in range(1, 9)))
        assert found == [True] * 3 + [False] * 5
        assert bench.level.usage.failures == 0 and await bench.has(8)

    over(tmp_path, test)


def test_a_disk_without_room_leaves_the_level_off(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        assert "are free" in bench.level.off and str(bench.path) in bench.level.off
        assert bench.path.stat().st_blocks == 0
        bench.put(1)
        bench.push_out()
        assert not await bench.has(1)

    over(tmp_path, test, plan=SsdPlan(4096 * GIB, 1024, 0))
