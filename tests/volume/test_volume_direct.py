"""Reads past the page cache: the bytes or an errno for each, bounded buffers that come back, nothing that waits."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from haystack.volume.direct import BLOCK_BYTES, BUFFER_BYTES, FINISHED_AT_ONCE, LENT_BUFFERS, MAX_READS, DirectReads
from haystack.volume.files import VolumeFile

SECONDS = 30
CONTENT = b"".join(number.to_bytes(8, "little") for number in range(2**17)) + b"the end"  # 1 MiB and a bit


class Turns:
    """An event loop in its barest form."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []
        self.reads = DirectReads(self.due.append)

    def turn(self) -> None:
        due, self.due[:] = list(self.due), []
        for each in due:
            each()

    def until_done(self) -> None:
        while self.due or self.reads.under_way:
            self.turn()
            if not self.due and self.reads.under_way:
                assert select.select([self.reads.event_fd], [], [], SECONDS)[0]
                self.reads.finish()


@pytest.fixture
def turns() -> Iterator[Turns]:
    turns = Turns()
    yield turns
    turns.reads.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[VolumeFile]:
    path = tmp_path / "1.vol"
    path.write_bytes(CONTENT)
    os.sync()
    file = VolumeFile(path)
    if file.direct_fd() < 0:
        pytest.skip("this file system has no O_DIRECT")
    yield file
    file.close()


class Results(list[tuple[bytes | None, int]]):
    """What became of reads; the views are let go at once."""

    def done(self, view: memoryview | None, problem: int) -> None:
        self.append((None if view is None else bytes(view), problem))


@pytest.mark.parametrize("offset", [0, 8, 4088, 4096, 5000, 300_000, len(CONTENT) - 100])
@pytest.mark.parametrize("size", [1, 100, 4096, 200_000, BUFFER_BYTES - BLOCK_BYTES])
def test_direct_reads_give_the_bytes(turns: Turns, file: VolumeFile, offset: int, size: int) -> None:
    size = min(size, len(CONTENT) - offset)
    assert turns.reads.takes(offset, size)
    found = Results()
    turns.reads.read(file.direct_fd(), offset, size, found.done)
    assert not found  # never from within
    turns.until_done()
    assert found == [(CONTENT[offset : offset + size], 0)]
    assert not turns.reads.lent


def test_direct_reads_take_what_fits_with_the_rest_of_its_blocks() -> None:
    assert DirectReads.takes(4096, BUFFER_BYTES)
    assert not DirectReads.takes(4097, BUFFER_BYTES)
    assert not DirectReads.takes(4095, BUFFER_BYTES - BLOCK_BYTES + 2)


def test_direct_reads_of_many_take_turns(turns: Turns, file: VolumeFile) -> None:
    found: dict[int, bytes] = {}
    offsets = range(0, 5 * MAX_READS * 1000, 1000)

    def read(offset: int) -> None:
        def done(view: memoryview | None, problem: int) -> None:
            assert view is not None and not problem
            found[offset] = bytes(view)

        turns.reads.read(file.direct_fd(), offset, 900, done)

    for offset in offsets:
        read(offset)
    turns.until_done()
    assert found == {offset: CONTENT[offset : offset + 900] for offset in offsets}


def test_direct_reads_hand_out_a_few_at_a_time(turns: Turns, file: VolumeFile) -> None:
    found = Results()
    for offset in range(FINISHED_AT_ONCE + 3):
        turns.reads.read(file.direct_fd(), offset, 10, found.done)
    turns.turn()
    while len(found) < FINISHED_AT_ONCE + 3:
        before = len(found)
        assert turns.due or select.select([turns.reads.event_fd], [], [], SECONDS)[0]
        turns.due.clear()
        turns.reads.finish()
        assert len(found) <= before + FINISHED_AT_ONCE


def test_direct_reads_lend_so_many_buffers_and_then_give_copies(turns: Turns, file: VolumeFile) -> None:
    held: list[memoryview] = []

    def keep(view: memoryview | None, problem: int) -> None:
        assert view is not None and not problem
        held.append(view)

    count = 3 * LENT_BUFFERS
    for number in range(count):
        turns.reads.read(file.direct_fd(), number * 100, 5000, keep)
    turns.until_done()
    assert turns.reads.lent == LENT_BUFFERS
    for _ in range(2 * MAX_READS):  # what is held is not read over
        turns.reads.read(file.direct_fd(), 400_000, 5000, Results().done)
    turns.until_done()
    assert sorted(map(bytes, held)) == sorted(CONTENT[number * 100 :][:5000] for number in range(count))
    part = held[0][10:20]
    held.clear()
    assert turns.reads.lent == 1  # a part keeps it as well
    del part
    assert turns.reads.lent == 0


def test_direct_reads_that_fail_are_told_each_by_itself(turns: Turns, file: VolumeFile) -> None:
    reader, writer = os.pipe()
    found = Results()
    try:
        turns.reads.read(file.direct_fd(), 0, 10, found.done)
        turns.reads.read(reader, 0, 10, found.done)
        turns.reads.read(file.direct_fd(), len(CONTENT) - 10, 11, found.done)
        turns.reads.read(1_000_000, 0, 10, found.done)
        turns.reads.read(file.direct_fd(), 10, 10, found.done)
        turns.until_done()
    finally:
        os.close(reader)
        os.close(writer)
    assert sorted(data for data, _ in found if data is not None) == sorted([CONTENT[:10], CONTENT[10:20]])
    problems = sorted(problem for data, problem in found if data is None)
    assert len(problems) == 3 and 0 not in problems
    assert errno.EBADF in problems and errno.EIO in problems  # no such descriptor, and the end of the file


def test_direct_reads_that_are_all_refused_keep_nobody_waiting(turns: Turns) -> None:
    found = Results()
    for _ in range(3 * MAX_READS):
        turns.reads.read(1_000_000, 0, 10, found.done)
    turns.until_done()
    assert found == [(None, errno.EBADF)] * (3 * MAX_READS)


def test_direct_reads_go_on_when_a_receiver_fails(
    turns: Turns, file: VolumeFile, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(view: memoryview | None, problem: int) -> None:
        raise RuntimeError("the receiver's own")

    found = Results()
    turns.reads.read(file.direct_fd(), 0, 10, fail)
    turns.reads.read(file.direct_fd(), 0, 10, found.done)
    turns.until_done()
    assert found == [(CONTENT[:10], 0)]
    assert "could not be handed out" in caplog.text
    caplog.clear()


def test_direct_reads_see_what_was_just_written_or_say_that_they_would_wait(turns: Turns, file: VolumeFile) -> None:
    for number in range(20):
        written = bytes([number]) * 300
        file.pwrite([written], 8000)
        found = Results()
        turns.reads.read(file.direct_fd(), 8000, 300, found.done)
        turns.until_done()
        assert found[0] in ((written, 0), (None, errno.EAGAIN))


def test_direct_reads_closed_in_the_middle(file: VolumeFile) -> None:
    turns = Turns()
    found = Results()
    for offset in range(3 * MAX_READS):
        turns.reads.read(file.direct_fd(), offset, 10, found.done)
    turns.turn()
    turns.reads.read(file.direct_fd(), 0, 10, found.done)
    turns.reads.close()
    turns.reads.close()
    turns.turn()
    turns.reads.finish()
    assert not found and not turns.reads.under_way


def test_direct_descriptor_is_of_the_open_file_and_can_be_given_up(file: VolumeFile, turns: Turns) -> None:
    path = Path(file.path)
    file.give_up_direct()
    assert file.direct_fd() == -1
    again = VolumeFile(path)
    path.rename(path.with_name("old"))
    path.write_bytes(bytes(10_000))
    found = Results()
    turns.reads.read(again.direct_fd(), 8, 8, found.done)
    turns.until_done()
    assert found == [(CONTENT[8:16], 0)]
    again.close()
    assert again.direct_fd() == -1
