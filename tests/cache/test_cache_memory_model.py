"""Arena, allocator, table, policy and pins beside a dictionary: whatever happens, no byte is wrong."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from photo_memory import ManualClock, content, cookie_of, photo, small_plan

from cache.memory import Filling, MemoryReader, PhotoMemory, Record
from cache.policies import POLICIES, make_policy

WORKERS = 2
keys = st.integers(1, 12)
alternates = st.sampled_from((0, 0, 2))
sizes = st.one_of(st.integers(0, 3000), st.integers(0, 40_000), st.just(90_000))
workers = st.integers(0, WORKERS - 1)


class MemoryMachine(RuleBasedStateMachine):
    """``latest`` is what a look-up may give: the newest version of each name, or nothing."""

    @initialize(policy=st.sampled_from(sorted(POLICIES)))
    def start(self, policy: str) -> None:
        self.clock = ManualClock()
        self.memory = PhotoMemory(small_plan(800), make_policy(policy), self.clock)
        self.readers = [MemoryReader(*self.memory.open_worker(worker).fds) for worker in range(WORKERS)]
        self.latest: dict[tuple[int, int], tuple[int, int]] = {}
        self.fillings: list[tuple[Filling, bytes]] = []
        self.pinned: list[tuple[int, Record, bytes]] = []
        self.looked_at: dict[int, tuple[Record, bytes]] = {}
        self.version = 0
        self.memory.evicted = self._evicted

    def _evicted(self, kept: Any, views: list[memoryview]) -> None:
        version, size_bytes = self.latest.pop((kept.key, kept.alternate))
        assert kept.checksum == version
        assert b"".join(views) == content(kept.key, version, size_bytes)

    @rule(key=keys, alternate=alternates, size_bytes=sizes)
    def begin(self, key: int, alternate: int, size_bytes: int) -> None:
        self.version += 1
        filling = self.memory.begin(photo(key, self.version, size_bytes, alternate=alternate))
        if filling is not None:
            self.fillings.append((filling, content(key, self.version, size_bytes)))

    @precondition(lambda self: self.fillings)
    @rule(data=st.data(), portion=st.integers(1, 30_000), worker=workers)
    def fill(self, data: st.DataObject, portion: int, worker: int) -> None:
        filling, whole = data.draw(st.sampled_from(self.fillings))
        filling.write(whole[filling.filled_bytes : filling.filled_bytes + portion])
        record = self.readers[worker].open(filling.entry, filling.generation)
        assert record is not None
        seen = record.filled_bytes
        assert b"".join(record.pieces(0, seen)) == whole[:seen]
        self.looked_at.pop(worker, None)

    @precondition(lambda self: self.fillings)
    @rule(data=st.data(), abandon=st.sampled_from((False, False, True)))
    def end(self, data: st.DataObject, abandon: bool) -> None:
        number = data.draw(st.integers(0, len(self.fillings) - 1))
        filling, whole = self.fillings.pop(number)
        if abandon:
            filling.abandon()
            return
        filling.write(whole[filling.filled_bytes :])
        kept = filling.finish()
        assert kept is not filling.dropped
        if kept:
            name = (filling.photo.key, filling.photo.alternate)
            self.latest[name] = (filling.photo.checksum, filling.data_bytes)

    @rule(key=keys, alternate=alternates, worker=workers, pin=st.booleans())
    def find(self, key: int, alternate: int, worker: int, pin: bool) -> None:
        reader = self.readers[worker]
        self.looked_at.pop(worker, None)
        record = reader.find(1, key, cookie_of(key), alternate)
        expected = self.latest.get((key, alternate))
        kept = self.memory.find(1, key, alternate)
        assert (record is not None) == (expected is not None) == (kept is not None)
        if record is None or expected is None:
            return
        assert (record.checksum, record.data_bytes) == expected
        reader.hit(record)
        self.looked_at[worker] = (record, content(key, *expected))
        if pin:
            record.pin()
            self.pinned.append((worker, record, content(key, *expected)))

    @precondition(lambda self: self.pinned)
    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        _, record, _ = self.pinned.pop(data.draw(st.integers(0, len(self.pinned) - 1)))
        record.unpin()

    @rule(key=keys, alternate=st.sampled_from((0, 2, None)))
    def drop(self, key: int, alternate: int | None) -> None:
        gone = [name for name in self.latest if name[0] == key and alternate in (None, name[1])]
        assert self.memory.drop(1, key, alternate) == len(gone)
        for name in gone:
            del self.latest[name]
        self._dropped(lambda filling: filling.photo.key == key and alternate in (None, filling.photo.alternate))

    @rule(everything=st.booleans())
    def purge(self, everything: bool) -> None:
        assert (self.memory.drop_all() if everything else self.memory.drop_volume(1)) == len(self.latest)
        self.latest.clear()
        self._dropped(lambda _: True)

    def _dropped(self, concerned: Any) -> None:
        assert all(filling.dropped for filling, _ in self.fillings if concerned(filling))

    @rule(seconds=st.sampled_from((0.0005, 0.003, 1.0)))
    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.memory.take_hits()
        self.memory.reclaim()

    @rule(worker=workers)
    def rest(self, worker: int) -> None:
        self.readers[worker].rest()
        self.looked_at.pop(worker, None)

    @rule(worker=workers)
    def restart_worker(self, worker: int) -> None:
        self.readers[worker] = MemoryReader(*self.memory.open_worker(worker).fds)
        self.pinned = [pinned for pinned in self.pinned if pinned[0] != worker]
        self.looked_at.pop(worker, None)

    @invariant()
    def what_is_in_use_is_as_it_was(self) -> None:
        for _, record, expected in getattr(self, "pinned", ()):
            assert b"".join(record.pieces()) == expected
        for record, expected in getattr(self, "looked_at", {}).values():
            assert b"".join(record.pieces()) == expected

    @invariant()
    def sums_agree(self) -> None:
        if not hasattr(self, "memory"):
            return
        usage = self.memory.usage()
        assert usage.entries == len(self.latest) == len(self.memory.policy)
        assert usage.data_bytes == sum(size_bytes for _, size_bytes in self.latest.values())

    def teardown(self) -> None:
        if not hasattr(self, "memory"):
            return
        for filling, _ in self.fillings:
            filling.abandon()
        for _, record, _ in self.pinned:
            record.unpin()
        for reader in self.readers:
            reader.rest()
        self.memory.drop_all()
        self.clock.settle(self.memory)
        usage = self.memory.usage()
        assert (usage.arena_used_bytes, usage.waiting_bytes, usage.entries, usage.holes) == (0, 0, 0, usage.holes)
        del self.pinned, self.looked_at, self.fillings, self.readers
        self.memory.close()


MemoryMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=50, deadline=None)
TestMemory = MemoryMachine.TestCase
