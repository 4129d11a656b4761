"""Reading from the page cache without a copy: views into a memory map, given out only for pages that are resident.

Touching a mapped page that is not in memory blocks the thread for a disk read, and when the disk cannot deliver it the
kernel sends SIGBUS, which kills the process. So a view is handed out only after ``mincore`` said that all its pages are
in the page cache; everything else is read with ``pread`` on another thread, where an error is an exception. What
remains is the moment between the question and the use; a worker killed by it is restarted by its supervisor.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref

PAGE_BYTES = mmap.PAGESIZE
AHEAD_BYTES = 2**30
"""How far behind the file's end it is mapped, so that what is appended can be read at once: address space alone."""

MAX_PAGES = 4096
"""Pages asked about at once (16 MiB); larger views are never handed out."""

_libc = ctypes.PyDLL(None, use_errno=False)
_mincore = _libc.mincore
_mincore.argtypes = (ctypes.c_size_t, ctypes.c_size_t, ctypes.c_size_t)
_mincore.restype = ctypes.c_int
_lseek = _libc.lseek
_lseek.argtypes = (ctypes.c_int, ctypes.c_long, ctypes.c_int)
_lseek.restype = ctypes.c_long


_mmap = _libc.mmap
_mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_mmap.restype = ctypes.c_void_p
_munmap = _libc.munmap
_munmap.argtypes = (ctypes.c_size_t, ctypes.c_size_t)
_madvise = _libc.madvise
_madvise.argtypes = (ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int)

_MAP_FAILED = ctypes.c_void_p(-1).value


_Mapped = ctypes.Array[ctypes.c_char]


def _map(fd: int, size_bytes: int) -> _Mapped | None:
    """Map a file from its start, also beyond its end, which Python's own mmap refuses; None when it is impossible.

    The map lasts as long as the object that is returned, which all views into it keep alive.
    """
    address = _mmap(None, size_bytes, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
    if address is None or address == _MAP_FAILED:
        return None
    _madvise(address, size_bytes, mmap.MADV_RANDOM)
    mapped = (ctypes.c_char * size_bytes).from_address(address)
    weakref.finalize(mapped, _munmap, address, size_bytes).atexit = False
    return mapped


def _may_ask(fd: int) -> bool:
    """Whether mincore tells the truth: of a file that we neither own nor may write it says that all is resident."""
    return os.fstat(fd).st_uid == os.geteuid() or os.access(f"/proc/self/fd/{fd}", os.W_OK, effective_ids=True)


class VolumeMap:
    """A read-only map of one volume file. For one thread.

    Parameters
    ----------
    fd: descriptor of the volume file; stays the caller's.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._may_ask = _may_ask(fd)
        self._view = memoryview(b"")
        self._address = 0
        self._mapped_bytes = 0
        self._released = False
        self._maps: list[weakref.ref[_Mapped]] = []
        self._states = bytearray(MAX_PAGES)
        self._states_address = ctypes.addressof((ctypes.c_char * MAX_PAGES).from_buffer(self._states))
        self._all_resident = b"\1" * MAX_PAGES

    def release(self) -> None:
        """Give up the map for good, and with it our hold on the file; views that were handed out keep theirs.

        A map holds on to the open file, so the lock on the file ends with the last view.
        """
        self._released = True
        self._may_ask = False  # the descriptor may be closed by now, and its number another file's
        self._view = memoryview(b"")
        self._mapped_bytes = 0

    @property
    def in_use(self) -> bool:
        """Whether views that were handed out are still held by somebody, such as an answer on its way."""
        return any(one() is not None for one in self._maps)

    def view(self, offset: int, size_bytes: int) -> memoryview | None:
        """The bytes, if they are mapped and resident, else None. Valid as long as it is referenced."""
        end = offset + size_bytes
        if end > self._mapped_bytes and not self._grow(end):
            return None
        return self._view[offset:end] if self.resident(offset, size_bytes) else None

    def covers(self, end: int) -> bool:
        """Whether the map reaches to byte ``end``."""
        return end <= self._mapped_bytes

    def resident(self, offset: int, size_bytes: int) -> bool:
        """Whether all mapped pages of this range are in the page cache right now."""
        first = offset // PAGE_BYTES
        pages = (offset + size_bytes - 1) // PAGE_BYTES - first + 1
        if pages > MAX_PAGES or not self._may_ask:
            return False
        # Large folios: of a file that was cut inside of one, mincore still calls the pages behind its end resident, and
        # touching them is a SIGBUS. Seeking to the end costs a third of fstat, and nobody uses the file's position.
        # Both calls keep the GIL: they never wait, and giving it up would mean to queue behind threads that read disks.
        if _lseek(self._fd, 0, os.SEEK_END) < offset + size_bytes:
            return False
        if _mincore(self._address + first * PAGE_BYTES, pages * PAGE_BYTES, self._states_address):
            return False
        # mincore gives one byte a page, of which only the lowest bit means anything; Linux sets no other.
        return self._states.startswith(self._all_resident[:pages])

    def _grow(self, end: int) -> bool:
        if self._released:
            return False
        size_bytes = os.fstat(self._fd).st_size
        if end > size_bytes:
            return False
        # Behind the end there is nothing to be seen before the file has grown: resident() asks for its length first.
        for mapped_bytes in (size_bytes + max(AHEAD_BYTES, size_bytes), size_bytes):
            mapped = _map(self._fd, mapped_bytes)
            if mapped is not None:
                # Views into the former map keep it alive until the last of them is sent.
                self._view = memoryview(mapped).cast("B").toreadonly()  # touched otherwise it would be the end of us
                self._maps = [one for one in self._maps if one() is not None] + [weakref.ref(mapped)]
                self._address = ctypes.addressof(mapped)
                self._mapped_bytes = mapped_bytes
                return True
        return False  # no memory; whoever reads it does without
