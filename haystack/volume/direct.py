"""Reads past the page cache, without threads: O_DIRECT through the kernel's asynchronous I/O, for one event loop.

What is read once does not go through the page cache: putting 200 KB there, copying it out, and throwing something else
out for it costs more than the disk's own work. Buffers are places in one piece of memory of fixed size. A buffer that
was read into is lent to whoever gets the view of it, and comes back by itself when the last view is gone (an answer was
written). So that clients who do not read cannot hold all of them, a view into a buffer becomes a copy when too few
buffers are left.

Nothing here waits. What the kernel could only begin after waiting (a page in the range that is not on the disk yet, a
disk with a full queue, a read that the disk's limits would split in two) fails, like all that goes wrong; whoever asked
reads it some other way then, which also says what is wrong.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import mmap
import os
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from haystack.volume.aio import AioContext

BUFFER_BYTES = 272 * 1024
"""A photo of 256 KiB with its metadata, from a block's start to a block's end."""

MAX_READS = 32
"""Reads under way at the same time; more wait for their turn."""

LENT_BUFFERS = 32
"""Buffers that answers may hold on their way out; what goes out beyond that is a copy."""

BLOCK_BYTES = 4096
"""Offsets and sizes of reads are multiples of this, which suits all disks; one that wants more fails with EINVAL."""

FINISHED_AT_ONCE = 8
"""Reads that :meth:`DirectReads.finish` hands out before others have their turn (checksum and answer, 0.1 ms each)."""

_log = logging.getLogger(__name__)

_HUGE_PAGE_BYTES = 2 * 2**20

Done = Callable[[memoryview | None, int], None]
"""Gets the bytes, or None and an errno."""

_Place = ctypes.c_char * BUFFER_BYTES


class _Buffers:
    """The memory, in places of ``BUFFER_BYTES``."""

    def __init__(self, count: int) -> None:
        self._memory = mmap.mmap(-1, count * BUFFER_BYTES + _HUGE_PAGE_BYTES)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            try:
                self._memory.madvise(mmap.MADV_HUGEPAGE)  # the kernel then has 2 pages to pin for a read, not 50
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise  # anything but a kernel without huge pages
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._first = -start % _HUGE_PAGE_BYTES
        self.addresses = [start + self._first + number * BUFFER_BYTES for number in range(count)]

    def place(self, number: int) -> ctypes.Array[ctypes.c_char]:
        """An object that stands for a place: views keep it alive, and it can be watched for its end."""
        return _Place.from_buffer(self._memory, self._first + number * BUFFER_BYTES)


class DirectReads:
    """Reads of many files for one event loop. All methods are for its thread.

    Parameters
    ----------
    call_soon: the loop's: calls a function after what is being done now.

    ``event_fd`` is to be watched by the loop: call :meth:`finish` when it is readable.
    Raises OSError when the kernel has no asynchronous I/O for us.
    """

    def __init__(self, call_soon: Callable[[Callable[[], None]], Any]) -> None:
        self._call_soon = call_soon
        count = MAX_READS + LENT_BUFFERS
        self.event_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            self._aio = AioContext(MAX_READS, self.event_fd)
            self._buffers = _Buffers(count)
        except OSError:
            os.close(self.event_fd)
            raise
        self._free = list(range(count - 1, -1, -1))  # the last one used is the first to be used again
        self._lent: dict[int, weakref.ref[Any]] = {}
        self._waiting: deque[tuple[int, int, int, Done]] = deque()
        self._reading: dict[int, tuple[int, int, Done]] = {}
        self._submission_due = False

    @staticmethod
    def takes(offset: int, size_bytes: int) -> bool:
        """Whether such a range, with the rest of its blocks, goes into a buffer."""
        return _ceil(offset + size_bytes) - _floor(offset) <= BUFFER_BYTES

    @property
    def under_way(self) -> int:
        """Reads that are not done yet."""
        return len(self._waiting) + len(self._reading)

    @property
    def lent(self) -> int:
        """Buffers that somebody has a view of."""
        return len(self._lent)

    def read(self, fd: int, offset: int, size_bytes: int, done: Done) -> None:
        """Read a range that :meth:`takes` accepts, and call ``done`` later, never from here.

        Parameters
        ----------
        fd: open with O_DIRECT, until ``done`` is called.
        done: may keep the view as long as it likes; it is a copy then at the latest when buffers run out.
        """
        self._waiting.append((fd, offset, size_bytes, done))
        self._schedule()  # one submission for all requests that came in this turn of the loop

    def finish(self) -> None:
        """Hand out what was read; the rest in the loop's next turn when it is much."""
        if self.event_fd < 0:
            return
        with contextlib.suppress(BlockingIOError):  # counted before, and handed out in a turn of its own
            os.eventfd_read(self.event_fd)
        found = self._aio.collect(FINISHED_AT_ONCE, wait=False)
        if len(found) == FINISHED_AT_ONCE:
            self._call_soon(self.finish)
        for number, result in found:
            self._finish(number, result)
        if self._waiting:
            self._submit()

    def close(self) -> None:
        """Wait for what the kernel has begun and free what it holds. Nothing is handed out any more."""
        if self.event_fd >= 0:
            self._aio.close()
            os.close(self.event_fd)
            self.event_fd = -1
            self._waiting.clear()
            self._reading.clear()

    def _submit(self) -> None:
        self._submission_due = False
        if self.event_fd < 0:
            return
        count = min(len(self._waiting), MAX_READS - len(self._reading), len(self._free))
        numbers = []
        for place in range(count):
            fd, offset, size_bytes, done = self._waiting.popleft()
            number = self._free.pop()
            start = _floor(offset)
            end = _ceil(offset + size_bytes)
            self._aio.prepare_read(place, number, fd, self._buffers.addresses[number], end - start, start)
            self._reading[number] = (offset - start, size_bytes, done)
            numbers.append(number)
        place = 0
        while place < count:
            try:
                place += self._aio.submit(place, count)
            except OSError as error:
                self._refuse(numbers[place], error.errno or errno.EIO)
                place += 1
        if self._waiting and len(self._reading) < MAX_READS:  # after refusals: no result would bring them their turn
            self._schedule()

    def _schedule(self) -> None:
        if not self._submission_due:
            self._submission_due = True
            self._call_soon(self._submit)

    def _refuse(self, number: int, problem: int) -> None:
        done = self._reading.pop(number)[2]
        self._free.append(number)
        self._call_soon(lambda: _call(done, None, problem))

    def _finish(self, number: int, result: int) -> None:
        skipped, size_bytes, done = self._reading.pop(number)
        if result < skipped + size_bytes:
            self._free.append(number)
            _call(done, None, -result if result < 0 else errno.EIO)
            return
        place = self._buffers.place(number)
        view = memoryview(place).cast("B")[skipped : skipped + size_bytes]
        if len(self._lent) >= LENT_BUFFERS:
            view = memoryview(bytes(view))
            self._free.append(number)
        else:
            self._lent[number] = weakref.ref(place, lambda _: self._take_back(number))
        del place
        _call(done, view, 0)

    def _take_back(self, number: int) -> None:
        del self._lent[number]
        self._free.append(number)


def _call(done: Done, view: memoryview | None, problem: int) -> None:
    try:
        done(view, problem)
    except Exception:  # one receiver that fails must not keep the others from what they wait for
        _log.exception("what was read could not be handed out")


def _floor(offset: int) -> int:
    return offset // BLOCK_BYTES * BLOCK_BYTES


def _ceil(offset: int) -> int:
    return -(-offset // BLOCK_BYTES) * BLOCK_BYTES
