"""What a primary writes, sent to a copy in any cuts, repeats and orders: equal files, equal indexes."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from volume_faults import FailingFile, abandon, failing, memory_folder

from haystack.errors import DiskError, HaystackError, OutOfSpace
from haystack.volume import Delete, NewNeedle, Put, Undelete, Volume, check_volume
from haystack.volume.layout import SUPERBLOCK_BYTES
from haystack.volume.operations import Operation
from haystack.volume.replica import BatchDamaged, BatchDiverged, Landed, read_batch

UUID = bytes(range(16))


class Gap(HaystackError):
    """The batch begins behind the tail."""


class Sent(NamedTuple):
    start: int
    data: bytes

    @property
    def end(self) -> int:
        return self.start + len(self.data)


@contextmanager
def two_copies() -> Iterator[tuple[Volume, Volume]]:
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        primary = make(Path(folder) / "1.vol")
        (Path(folder) / "copy").mkdir()
        replica = make(Path(folder) / "copy" / "1.vol")
        with primary, replica:
            yield primary, replica


def make(path: Path) -> Volume:
    return Volume.create(path, 1, uuid=UUID, created_ms=1000, replication=1)


def land(volume: Volume, sent: Sent) -> Landed:
    def judge(tail: int) -> int:
        if sent.start > tail:
            raise Gap(f"{sent.start} is behind {tail}")
        return min(tail, sent.end)

    return volume.append_batch(sent.start, sent.data, judge)


def send(primary: Volume, *operations: Operation) -> list[Sent]:
    appended = primary.append(operations)
    primary.sync(appended.tail)
    return [Sent(one.offset, b"".join(bytes(piece) for piece in one.pieces)) for one in appended.written]


def require_equal(primary: Volume, replica: Volume) -> None:
    assert Path(primary.file.path).read_bytes() == Path(replica.file.path).read_bytes()
    assert primary.index.state() == replica.index.state()
    assert list(primary.index.entries()) == list(replica.index.entries())


names = st.tuples(st.integers(1, 4), st.integers(0, 1))
needles = st.builds(
    lambda name, size, time_ms, expires: NewNeedle(
        name[0], name[0] * 7, (random.Random(size).randbytes(size),), time_ms, name[1], b"", expires
    ),
    names,
    st.integers(0, 400),
    st.integers(0, 50),
    st.sampled_from([0, 0, 1]),
)
operations = st.one_of(
    st.lists(needles, min_size=1, max_size=3).map(lambda some: Put(tuple(some))),
    st.builds(
        lambda name, time_ms, now: Delete(name[0], name[0] * 7, time_ms, name[1], now),
        names,
        st.integers(0, 50),
        st.booleans(),
    ),
    st.builds(
        lambda name, time_ms, retention_ms: Undelete(name[0], name[0] * 7, time_ms, name[1], retention_ms),
        names,
        st.integers(0, 50),
        st.sampled_from([None, 20]),
    ),
)
waves = st.lists(st.lists(operations, min_size=1, max_size=4), max_size=8)


@given(waves, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=60)
def test_any_order_cut_and_repetition_makes_equal_copies(some: list[list[Operation]], rng: random.Random) -> None:
    with two_copies() as (primary, replica):
        sent = [one for wave in some for one in send(primary, *wave)]
        # A cut is what a primary sends again out of its file: from one end of an append to any later one.
        cuts = [
            Sent(one.start, b"".join(x.data for x in sent[at : at + rng.randint(1, 3)])) for at, one in enumerate(sent)
        ]
        arriving = sent + cuts + rng.sample(sent, len(sent) // 2)
        rng.shuffle(arriving)
        for one in arriving:
            before = replica.tail()
            try:
                landed = land(replica, one)
            except Gap:
                assert replica.tail() == before < one.start
            else:
                assert landed.tail == replica.tail() == max(before, one.end)
        for one in sent:
            land(replica, one)
        require_equal(primary, replica)
        assert check_volume(Path(replica.file.path), full=True, index=replica.index).ok
        state, entries = primary.index.state(), list(primary.index.entries())
        replica.close()
        Path(replica.file.path).with_suffix(".idx").unlink()
        with Volume.open(Path(replica.file.path)) as rebuilt:
            assert rebuilt.report.rebuilt
            assert (rebuilt.index.state(), list(rebuilt.index.entries())) == (state, entries)


def test_a_batch_says_whether_earlier_answers_became_wrong() -> None:
    with two_copies() as (primary, replica):
        new = NewNeedle(1, 7, (b"photo",), 5)
        assert [land(replica, one).changed for one in send(primary, Put((new,)))] == [False]
        assert [land(replica, one).changed for one in send(primary, Put((new,)))] == [True]
        assert [land(replica, one).changed for one in send(primary, Delete(1, 7, 9))] == [True]
        require_equal(primary, replica)


def test_an_empty_batch_asks_for_the_tail() -> None:
    with two_copies() as (primary, replica):
        for one in send(primary, Put((NewNeedle(1, 7, (b"photo",), 5),))):
            land(replica, one)
        assert land(replica, Sent(SUPERBLOCK_BYTES, b"")) == Landed(primary.tail(), False)


def test_every_damaged_byte_is_refused_before_anything_is_written() -> None:
    with two_copies() as (primary, replica):
        (sent,) = send(primary, Put((NewNeedle(1, 7, (b"one",), 5), NewNeedle(2, 14, (b"two",), 5))), Delete(1, 7, 6))
        for position in range(len(sent.data)):
            damaged = bytearray(sent.data)
            damaged[position] ^= 0x10
            with pytest.raises(BatchDamaged):
                land(replica, Sent(sent.start, bytes(damaged)))
        for length in range(1, len(sent.data)):
            if length != len(sent.data) - 72:  # where the tombstone begins
                with pytest.raises(BatchDamaged):
                    land(replica, Sent(sent.start, sent.data[:length]))
        with pytest.raises(BatchDamaged):
            read_batch("1.vol", 0, b"", replica.seed)
        assert replica.tail() == SUPERBLOCK_BYTES == Path(replica.file.path).stat().st_size
        land(replica, sent)
        require_equal(primary, replica)


def test_another_history_is_refused() -> None:
    with two_copies() as (primary, replica):
        (mine,) = send(primary, Put((NewNeedle(1, 7, (b"mine",), 5),)))
        replica.put(1, 7, b"ours", time_ms=5)
        before = Path(replica.file.path).read_bytes()
        with pytest.raises(BatchDiverged) as caught:
            land(replica, mine)
        assert (caught.value.tail, caught.value.offset) == (replica.tail(), SUPERBLOCK_BYTES)
        (more,) = send(primary, Put((NewNeedle(2, 7, (b"more",), 5),)))
        with pytest.raises(BatchDiverged):
            land(replica, Sent(mine.start, mine.data + more.data))
        assert Path(replica.file.path).read_bytes() == before


def test_what_judges_may_refuse() -> None:
    with two_copies() as (primary, replica):
        (sent,) = send(primary, Put((NewNeedle(1, 7, (b"photo",), 5),)))

        def refuse(tail: int) -> int:
            raise Gap("another epoch")

        with pytest.raises(Gap):
            replica.append_batch(sent.start, sent.data, refuse)
        assert replica.tail() == SUPERBLOCK_BYTES
        replica.put(9, 9, b"the lock was given back", time_ms=1)


@pytest.mark.parametrize("guarded", [Put((NewNeedle(1, 7, (b"photo",), 5),)), Delete(1, 7, 5)])
def test_a_guard_may_refuse_an_append(guarded: Operation) -> None:
    with two_copies() as (primary, _):

        def refuse() -> None:
            raise Gap("deposed")

        with pytest.raises(Gap):
            primary.append([guarded], refuse)
        assert primary.tail() == SUPERBLOCK_BYTES
        assert primary.append([guarded], lambda: None).outcomes


def test_a_crash_at_any_byte_of_a_batch_is_mended_by_sending_it_again(tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(dir=memory_folder()))
    try:
        with make(tmp_path / "1.vol") as primary:
            first = send(primary, Put((NewNeedle(1, 7, (b"first",), 5),)))
            sent = send(primary, Put((NewNeedle(1, 7, (b"one",), 6), NewNeedle(2, 14, (b"two",), 6))), Delete(2, 14, 7))
            path = folder / "1.vol"
            replica = make(path)
            for one in first:
                land(replica, one)
            replica.close()
            durable = path.read_bytes()
            for length in range(len(sent[0].data) + 1):
                path.write_bytes(durable + sent[0].data[:length])
                with Volume.open(path) as replica:
                    assert replica.tail() <= len(durable) + length
                    for one in first + sent:
                        land(replica, one)
                    require_equal(primary, replica)
                for name in ("1.idx", "1.idx-lock", "1.dirty"):
                    (folder / name).unlink(missing_ok=True)
            path.write_bytes(durable)
    finally:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


def test_a_process_that_dies_between_write_and_commit_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    with make(tmp_path / "1.vol") as primary:
        (sent,) = send(primary, Put((NewNeedle(1, 7, (b"photo",), 5),)))
        replica = make(tmp_path / "copy" / "1.vol")
        replica.file.pwrite([sent.data[:40]], sent.start)
        land(replica, sent)
        require_equal(primary, replica)
        abandon(replica)
        with Volume.open(tmp_path / "copy" / "1.vol") as again:
            require_equal(primary, again)


@pytest.mark.parametrize("problem", ["full", "broken"])
def test_a_disk_that_fails_leaves_the_copy_as_it_was(tmp_path: Path, problem: str) -> None:
    (tmp_path / "copy").mkdir()
    with make(tmp_path / "1.vol") as primary:
        (sent,) = send(primary, Put((NewNeedle(1, 7, (b"photo",), 5),)))
        make(tmp_path / "copy" / "1.vol").close()
        with Volume.open(tmp_path / "copy" / "1.vol", file_type=FailingFile) as replica:
            failing(replica).room_bytes = 80 if problem == "full" else None
            failing(replica).write_errno = 0 if problem == "full" else 5
            with pytest.raises(OutOfSpace if problem == "full" else DiskError):
                land(replica, sent)
            assert replica.tail() == SUPERBLOCK_BYTES
            failing(replica).room_bytes, failing(replica).write_errno = None, 0
            land(replica, sent)
            require_equal(primary, replica)
