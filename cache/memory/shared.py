"""Memory that processes share, and the order in which they see it change."""

from __future__ import annotations

import mmap
import os
import threading
from typing import Final

BLOCK_BYTES: Final = 512
"""What ``st_blocks`` counts in."""

_LOCK = threading.Lock()
_LOCK.acquire()


def fence() -> None:
    """Everybody sees what was stored before this call no later than what is stored after it.

    A processor with weak ordering (ARM) may otherwise show two stores in the other order. Giving a lock back is a
    release and taking it an acquire operation; a release and an acquire after it are not exchanged, so nothing passes
    both. On x86 stores are never exchanged, and this costs a tenth of a microsecond for nothing.

    For the one thread of a process that writes shared memory.
    """
    _LOCK.release()
    _LOCK.acquire()


class SharedMemory:
    """A memfd, mapped by the process that makes it; pages that nobody touches take no memory.

    ``fd`` is writable and stays in this process. ``read_fd`` (a second opening, which can only be mapped for reading)
    and ``fd`` can be inherited when they are passed on by name (``pass_fds``).
    """

    def __init__(self, name: str, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.fd = os.memfd_create(name, os.MFD_CLOEXEC)
        try:
            os.ftruncate(self.fd, size_bytes)
            self.read_fd = os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY | os.O_CLOEXEC)
            self.map = mmap.mmap(self.fd, size_bytes)
        except OSError:
            os.close(self.fd)
            raise
        self.view = memoryview(self.map)

    @property
    def allocated_bytes(self) -> int:
        """What it takes of the machine's memory."""
        return os.fstat(self.fd).st_blocks * BLOCK_BYTES

    def give_back(self, start: int, size_bytes: int) -> None:
        """Return whole pages to the system; they read as zeros and take no memory until they are written to."""
        self.map.madvise(mmap.MADV_REMOVE, start, size_bytes)

    def close(self) -> None:
        """Close the descriptors. It stays mapped as long as there are views into it."""
        del self.map, self.view
        os.close(self.read_fd)
        os.close(self.fd)


def map_shared(fd: int, *, writable: bool = False) -> memoryview:
    """Map all of an inherited memfd, for as long as the view (or one made of it) lives."""
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    return memoryview(mmap.mmap(fd, os.fstat(fd).st_size, prot=protection))
