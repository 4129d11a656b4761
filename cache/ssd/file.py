"""The file of the second level. All of it may wait for the disk: for threads alone.

Past the page cache (O_DIRECT) where the file system can: what is read goes to memory of our own, and would be there
twice. It holds nothing that is needed after the process has ended.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
from pathlib import Path
from typing import Final

from cache.ssd.plan import BLOCK_BYTES
from haystack.errors import ConfigError
from haystack.units import format_size

MAGIC: Final = b"second level of a Haystack Cache; its content is worthless without the running process\n"
FILE_MODE: Final = 0o600


class SsdFile:
    """An open file.

    Parameters
    ----------
    log_bytes: size of the log, behind a first block that says what the file is.

    Raises ConfigError when there is something else, or another Cache uses it; OSError when the disk refuses, for
    instance for want of room.
    """

    def __init__(self, path: Path, log_bytes: int) -> None:
        self.path = path
        self._log_bytes = log_bytes
        self._fd = _open(path)
        try:
            self.direct = _prepare(self._fd, path, BLOCK_BYTES + log_bytes)
        except BaseException:
            os.close(self._fd)
            raise

    def close(self) -> None:
        os.close(self._fd)

    def read(self, position: int, size_bytes: int) -> memoryview:
        """The bytes from a position of the log on, which do not go over its end. Raises OSError."""
        offset = BLOCK_BYTES + position % self._log_bytes
        first = offset - offset % BLOCK_BYTES
        wanted = -(-(offset + size_bytes - first) // BLOCK_BYTES) * BLOCK_BYTES
        buffer = mmap.mmap(-1, wanted)  # begins with a page, as O_DIRECT needs it
        if os.preadv(self._fd, [buffer], first) != wanted:
            raise OSError(errno.EIO, "the file is shorter than it was made")
        return memoryview(buffer)[offset - first : offset - first + size_bytes]

    def write(self, position: int, blocks: memoryview) -> None:
        """Write whole blocks at a position that begins with one. Raises OSError."""
        if os.pwrite(self._fd, blocks, BLOCK_BYTES + position % self._log_bytes) != len(blocks):
            raise OSError(errno.ENOSPC, "not all of it was written")


def _open(path: Path) -> int:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, FILE_MODE)
    except OSError as error:
        if error.errno in (errno.EIO, errno.ENOSPC, errno.EROFS, errno.EDQUOT):
            raise
        raise ConfigError(
            f"cache.ssd: {path} cannot be opened: {error.strerror}; give a file in a folder of ours"
        ) from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ConfigError(f"cache.ssd: {path} is no file; give the path of a file that may be made there")
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"cache.ssd: another Cache uses {path}; give each a file of its own") from None
        there = os.pread(fd, len(MAGIC), 0)
        if there and there != MAGIC:
            raise ConfigError(f"cache.ssd: {path} is a file of somebody else; remove it, or give another path")
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_room(fd: int, file_bytes: int) -> None:
    """Not by trying: that would take all that is left, if only for a moment. Raises OSError."""
    found = os.fstatvfs(fd)
    if found.f_bavail * found.f_frsize < file_bytes:
        raise OSError(
            errno.ENOSPC,
            f"{format_size(file_bytes)} are wanted, {format_size(found.f_bavail * found.f_frsize)} are free",
        )


def _prepare(fd: int, path: Path, file_bytes: int) -> bool:
    """Empty the file and give it its size; returns whether it is read past the page cache."""
    os.fchmod(fd, FILE_MODE)
    os.ftruncate(fd, 0)
    _check_room(fd, file_bytes)
    os.pwrite(fd, MAGIC.ljust(BLOCK_BYTES, b"\0"), 0)
    try:
        os.posix_fallocate(fd, 0, file_bytes)
    except OSError:
        os.ftruncate(fd, 0)  # some file systems keep what they could get
        raise
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_DIRECT)
        os.preadv(fd, [mmap.mmap(-1, BLOCK_BYTES)], 0)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)
        return False
    return True
