"""A dictionary beside a volume: random puts, deletes and undeletes, crashes of all kinds, damage, lost indexes."""

from __future__ import annotations

import random
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from volume_faults import Disk, abandon, flip, memory_folder

from haystack.errors import CookieMismatch, DamagedNeedle, HaystackError, NeedleNotFound, VolumeUnavailable
from haystack.volume import Delete, NeedleMeta, NewNeedle, Put, ScannedNeedle, Undelete, Volume, check_volume
from haystack.volume.layout import HEADER_BYTES, SUPERBLOCK_BYTES, NeedleHeader, needle_bytes, pack_needle
from haystack.volume.operations import Operation

TOMBSTONE_BYTES = needle_bytes(0, 0)

keys = st.integers(1, 6)
alternates = st.integers(0, 1)
photos = st.one_of(st.binary(max_size=40), st.integers(0, 3000).map(lambda size: random.Random(size).randbytes(size)))
metas = st.sampled_from([b"", NeedleMeta("a.jpg", "image/jpeg", (("k", "v"),)).pack()])
seeds = st.integers(0, 2**32)


@dataclass
class Record:
    """One needle of the volume as the model has it; ``data`` None for a marker: ``kind`` is which."""

    offset: int
    key: int
    alternate: int
    data: bytes | None
    meta: bytes
    batch: int
    acked: bool
    damage: str = ""
    kind: str = "put"
    time_ms: int = 0
    expires: int = 0

    @property
    def total_bytes(self) -> int:
        return needle_bytes(len(self.meta), len(self.data or b""))

    @property
    def end(self) -> int:
        return self.offset + self.total_bytes


@dataclass
class Named:
    """What a name stands for: its latest photo, and whether that is live, in the trash since a time, or gone."""

    photo: Record
    state: str = "live"
    deleted_ms: int = 0


def cookie_of(key: int, alternate: int) -> int:
    return key * 1000 + alternate


class VolumeMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="haystack-model-", dir=memory_folder()))
        self.path = self.folder / "7.vol"
        self.log: list[Record] = []
        self.boot = 0
        self.batches = 0
        self.time_ms = 0
        self.undamaged_from = SUPERBLOCK_BYTES
        self.stale: bytes | None = None

    @initialize()
    def create(self) -> None:
        Volume.create(self.path, 7, uuid=bytes(range(16))).close()
        self.disk = Disk(self.path)
        self._open()

    def teardown(self) -> None:
        if hasattr(self, "volume"):
            abandon(self.volume)
        shutil.rmtree(self.folder)

    def _open(self) -> None:
        self.volume = Volume.open(self.path, boot_id=f"boot {self.boot}", file_type=self.disk.open)

    # -- what the model expects

    def _names(self) -> dict[tuple[int, int], Named]:
        """All of the log, carried out in its order."""
        found: dict[tuple[int, int], Named] = {}
        for record in self.log:
            name = record.key, record.alternate
            known = found.get(name)
            if record.kind == "put":
                found[name] = Named(record)
            elif known is None:
                continue
            elif record.kind == "undelete":
                known.state = "live" if known.state == "trash" else known.state
            else:
                known.deleted_ms = record.time_ms if known.state == "live" else known.deleted_ms
                known.state = "gone" if record.kind == "delete now" else known.state.replace("live", "trash")
        return found

    def _current(self) -> dict[tuple[int, int], Record]:
        """The photos that can be read."""
        return {name: known.photo for name, known in self._names().items() if known.state == "live"}

    def _rebuilt(self) -> None:
        """A needle with a damaged header is not there for a new index."""
        self.log = [record for record in self.log if record.damage != "header"]

    def _ack_all(self) -> None:
        for record in self.log:
            record.acked = True

    # -- writing

    def _append(self, operation: Operation, *, ack: bool) -> None:
        tail = self.volume.tail()
        before = self._names()
        names = (
            [(needle.key, needle.alternate) for needle in operation.needles]
            if isinstance(operation, Put)
            else [(operation.key, operation.alternate)]
        )
        appended = self.volume.append([operation])
        outcome = appended.outcomes[0]
        # The cookie of a needle is read from its header, a deleted one's from the needle before its tombstone.
        if any(name in before and before[name].photo.damage == "header" for name in names):
            assert isinstance(outcome, DamagedNeedle), outcome
            return
        if not isinstance(operation, Put) and not self._allowed(operation, before.get(names[0])):
            assert isinstance(outcome, NeedleNotFound)
            return
        assert not isinstance(outcome, HaystackError), outcome
        self.batches += 1
        if isinstance(operation, Put):
            for needle in operation.needles:
                data = b"".join(bytes(piece) for piece in needle.data)
                self.log.append(Record(tail, needle.key, needle.alternate, data, needle.meta, self.batches, False))
                self.log[-1].expires = needle.expires
                tail = self.log[-1].end
        else:
            kind = "undelete" if isinstance(operation, Undelete) else "delete now" if operation.now else "delete"
            record = Record(tail, operation.key, operation.alternate, None, b"", self.batches, False, "", kind)
            record.time_ms = operation.time_ms
            self.log.append(record)
        assert appended.tail == self.log[-1].end
        if ack:
            self.volume.sync(appended.tail)
            self._ack_all()

    def _allowed(self, operation: Delete | Undelete, known: Named | None) -> bool:
        if known is None or (known.photo.expires and operation.time_ms >= known.photo.expires * 1000):
            return False
        if isinstance(operation, Delete):
            return known.state == "live" or (operation.now and known.state == "trash")
        limit_ms = operation.retention_ms
        return known.state == "trash" and (limit_ms is None or operation.time_ms - known.deleted_ms <= limit_ms)

    def _head(self, name: tuple[int, int]) -> Record | None:
        known = self._names().get(name)
        return None if known is None else known.photo

    def _needle(self, key: int, alternate: int, data: bytes, meta: bytes) -> NewNeedle:
        self.time_ms += 1
        half = len(data) // 2
        return NewNeedle(key, cookie_of(key, alternate), (data[:half], data[half:]), self.time_ms, alternate, meta)

    @rule(key=keys, alternate=alternates, data=photos, meta=metas, ack=st.booleans())
    def put(self, key: int, alternate: int, data: bytes, meta: bytes, ack: bool) -> None:
        self._append(Put((self._needle(key, alternate, data, meta),)), ack=ack)

    @rule(
        chosen=st.lists(st.tuples(keys, alternates), min_size=2, max_size=4, unique=True),
        data=photos,
        ack=st.booleans(),
    )
    def put_many(self, chosen: list[tuple[int, int]], data: bytes, ack: bool) -> None:
        needles = [self._needle(key, alternate, data[at:], b"") for at, (key, alternate) in enumerate(chosen)]
        self._append(Put(tuple(needles)), ack=ack)

    @rule(key=keys, alternate=alternates, ack=st.booleans(), now=st.booleans())
    def delete(self, key: int, alternate: int, ack: bool, now: bool) -> None:
        self._append(Delete(key, cookie_of(key, alternate), self.time_ms, alternate, now), ack=ack)

    @rule(key=keys, alternate=alternates, ack=st.booleans(), retention_ms=st.sampled_from([None, 0, 5, 50]))
    def undelete(self, key: int, alternate: int, ack: bool, retention_ms: int | None) -> None:
        self._append(Undelete(key, cookie_of(key, alternate), self.time_ms, alternate, retention_ms), ack=ack)

    @rule(name=st.tuples(keys, alternates), retention_ms=st.sampled_from([None, 10]), later_ms=st.integers(0, 20))
    def delete_and_take_back(self, name: tuple[int, int], retention_ms: int | None, later_ms: int) -> None:
        key, alternate = name
        self.delete(key, alternate, ack=False, now=False)
        self.time_ms += later_ms
        self.undelete(key, alternate, ack=True, retention_ms=retention_ms)

    @rule(key=keys, alternate=alternates, seconds=st.integers(0, 2), later_ms=st.integers(0, 1500))
    def put_for_a_while(self, key: int, alternate: int, seconds: int, later_ms: int) -> None:
        """Whether it is served any longer is not the engine's business, but what is marked is."""
        needle = self._needle(key, alternate, b"for a while", b"")
        self._append(Put((needle._replace(expires=self.time_ms // 1000 + seconds + 1),)), ack=False)
        self.time_ms += later_ms
        self.delete(key, alternate, ack=True, now=False)

    @rule(key=keys, alternate=alternates)
    def wrong_cookie(self, key: int, alternate: int) -> None:
        tail = self.volume.tail()
        head = self._head((key, alternate))
        with pytest.raises((NeedleNotFound, DamagedNeedle)):
            self.volume.get(key, 1, alternate=alternate)
        with pytest.raises((NeedleNotFound, DamagedNeedle)):
            self.volume.delete(key, 1, alternate=alternate)
        with pytest.raises((NeedleNotFound, DamagedNeedle)):
            self.volume.undelete(key, 1, alternate=alternate)
        if head is not None and head.damage != "header":
            with pytest.raises(CookieMismatch):
                self.volume.put(key, 1, b"intruder", alternate=alternate)
        assert self.volume.tail() == tail

    # -- opening again

    @rule()
    def close_and_open(self) -> None:
        self.volume.close()
        self._ack_all()
        self._open()
        assert self.volume.report.clean and not self.volume.report.scanned_bytes

    @rule()
    def process_crash(self) -> None:
        abandon(self.volume)
        self._open()
        self._ack_all()  # memory survived, and opening made it durable
        assert self.volume.report.clean

    @rule()
    def keep_stale_index(self) -> None:
        self.stale = self.path.with_suffix(".idx").read_bytes()

    @rule(seed=seeds, index=st.sampled_from(["kept", "kept", "gone", "stale", "mixed", "garbage"]))
    def machine_crash(self, seed: int, index: str) -> None:
        abandon(self.volume)
        rng = random.Random(seed)
        if self.path.with_suffix(".dirty").exists():
            self.disk.crash(rng)
            self._harm_index(index, rng)
        self.boot += 1
        self._open()
        self._settle()

    def _harm_index(self, index: str, rng: random.Random) -> None:
        path = self.path.with_suffix(".idx")
        if index == "gone":
            path.unlink()
        elif index == "stale" and self.stale is not None:
            path.write_bytes(self.stale)
        elif index == "mixed" and self.stale is not None:
            new = path.read_bytes()
            pages = [rng.choice((self.stale[at : at + 4096], new[at : at + 4096])) for at in range(0, len(new), 4096)]
            path.write_bytes(b"".join(pages))
        elif index == "garbage":
            path.write_bytes(rng.randbytes(path.stat().st_size))

    def _settle(self) -> None:
        """Learn which of the needles that were never acknowledged survived; each batch wholly or not at all."""
        whole = {item.offset for item in self.volume.scan() if isinstance(item, ScannedNeedle)}
        assert all(record.offset in whole or record.damage for record in self.log if record.acked)
        lost = {record.batch for record in self.log if not record.acked and record.offset not in whole}
        self.log = [record for record in self.log if record.batch not in lost]
        if self.volume.report.rebuilt:
            self._rebuilt()
        self._ack_all()

    @rule()
    def lose_index(self) -> None:
        self.volume.close()
        self._ack_all()
        self.path.with_suffix(".idx").unlink()
        self._open()
        assert self.volume.report.rebuilt
        self._expect_damage_reported()
        self._rebuilt()

    def _expect_damage_reported(self) -> None:
        reported = self.volume.report.damage
        for record in self.log:
            if record.damage:
                assert any(damage.offset <= record.offset and record.end <= damage.end for damage in reported), record
        for damage in reported:  # nothing but damaged needles, and what earlier crashes left of unacknowledged ones
            assert not any(
                damage.offset < record.end and record.offset < damage.end for record in self.log if not record.damage
            ), damage

    # -- dying in an append, damage, cuts

    @rule(key=keys, data=photos, size=st.integers(1, 2), share=st.floats(0, 1), reopen=st.booleans())
    def die_while_writing(self, key: int, data: bytes, size: int, share: float, reopen: bool) -> None:
        """Leave bytes behind the tail, whole or not; the next append, or the next opening, deals with them."""
        tail = self.volume.tail()
        header = NeedleHeader(key, cookie_of(key, 0), 0, len(data), 0, self.time_ms, batch_size=size)
        raw = b"".join(bytes(piece) for piece in pack_needle(header, b"", [data], self.volume.seed)[0])
        raw = raw[: int(len(raw) * share)]
        with self.path.open("r+b") as file:
            file.seek(tail)
            file.write(raw)
        if not reopen:
            self.put(key, 1, b"after", b"", True)
            return
        whole = len(raw) == header.total_bytes and size == 1
        abandon(self.volume)
        self._open()
        self._ack_all()
        if whole:
            self.batches += 1
            self.log.append(Record(tail, key, 0, data, b"", self.batches, True))
        elif raw:
            report = self.volume.report
            assert (report.torn_offset, report.torn_bytes) == (tail, len(raw))
            assert report.torn_file and Path(report.torn_file).read_bytes() == raw
        assert self.volume.tail() == (self.log[-1].end if whole else tail) == self.path.stat().st_size

    @precondition(lambda self: any(record.offset >= self.undamaged_from for record in self.log))
    @rule(seed=seeds)
    def flip_a_byte(self, seed: int) -> None:
        self.volume.sync(self.volume.tail())
        self._ack_all()
        victims = [record for record in self.log if record.offset >= self.undamaged_from]
        self.put(99, 0, b"says that all before is durable", b"", True)
        rng = random.Random(seed)
        victim = rng.choice(victims)
        at = rng.choice([rng.randrange(HEADER_BYTES), rng.randrange(victim.total_bytes)])
        flip(self.path, victim.offset + at, rng.randint(1, 255))
        victim.damage = "header" if at < HEADER_BYTES else "body"
        self.disk.durable = self.path.read_bytes()
        self.undamaged_from = self.log[-1].end

    @rule(seed=seeds)
    def cut_the_tail(self, seed: int) -> None:
        self.volume.close()
        self._ack_all()
        size = self.path.stat().st_size
        cut = random.Random(seed).randint(max(self.undamaged_from, size - 5000), size)
        with self.path.open("r+b") as file:
            file.truncate(cut)
        self.disk.durable = self.path.read_bytes()
        self._open()
        if cut == size:
            assert self.volume.report.clean
            return
        lost = {record.batch for record in self.log if record.end > cut}
        self.log = [record for record in self.log if record.batch not in lost]
        self._rebuilt()

    @rule()
    def second_opener(self) -> None:
        with pytest.raises(VolumeUnavailable):
            Volume.open(self.path, lock_wait_seconds=0)

    # -- what always holds

    @invariant()
    def reads_are_what_the_model_says(self) -> None:
        if not hasattr(self, "volume"):
            return
        current = self._current()
        for key in range(1, 7):
            for alternate in range(2):
                self._read(key, alternate, current.get((key, alternate)))

    def _read(self, key: int, alternate: int, record: Record | None) -> None:
        cookie = cookie_of(key, alternate)
        if record is None:
            with pytest.raises(NeedleNotFound):
                self.volume.get(key, cookie, alternate=alternate)
            return
        if record.damage:
            with pytest.raises(DamagedNeedle):
                self.volume.get(key, cookie, alternate=alternate)
            return
        needle = self.volume.get(key, cookie, alternate=alternate)
        assert (needle.offset, bytes(needle.data), needle.raw_meta) == (record.offset, record.data, record.meta)
        assert self.volume.get_at(record.offset, key, cookie, alternate=alternate).data == record.data

    @invariant()
    def sums_are_right(self) -> None:
        if not hasattr(self, "volume"):
            return
        live = list(self._current().values())
        state = self.volume.state()
        puts = [record for record in self.log if record.data is not None]
        assert state.live_count == len(live)
        assert state.live_bytes == sum(record.total_bytes for record in live)
        assert state.deleted_count == len(puts) - len(live)
        assert state.live_bytes + state.deleted_bytes == sum(record.total_bytes for record in self.log)

    @rule()
    def check(self) -> None:
        report = check_volume(self.path, full=True, index=self.volume.index)
        covered = SUPERBLOCK_BYTES + sum(record.total_bytes for record in self.log)
        if covered == self.volume.tail() and not any(record.damage for record in self.log):
            assert report.ok, report.problems
        else:
            assert not report.ok

    @rule()
    def scan_order(self) -> None:
        found = list(self.volume.scan())
        offset = SUPERBLOCK_BYTES
        for item in found:
            assert item.offset == offset
            offset = item.end
        assert offset == self.volume.tail()
        whole = {item.offset for item in found if isinstance(item, ScannedNeedle)}
        assert {record.offset for record in self.log if not record.damage} <= whole


TestVolumeModel = VolumeMachine.TestCase
TestVolumeModel.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,  # tests/campaigns/test_volume_model_long.py looks further, with other seeds each time
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
