"""Reading what the disk has, not what is in memory: for scrubbing, which must not push photos out of memory either."""

from __future__ import annotations

import errno
import mmap
import os

from haystack.volume.files import VolumeFile, disk_error

BLOCK_BYTES = 4096
"""Disks are read in multiples of this, at multiples of it."""

_NOT_DIRECT = (errno.EINVAL, errno.EOPNOTSUPP)


class PastCache(VolumeFile):
    """An open volume file, read past the page cache where the file system can do that; for one thread.

    What was written and is not on the disk yet is written to it by the kernel before it is read.

    Parameters
    ----------
    file: stays the caller's, who keeps it open.
    """

    def __init__(self, file: VolumeFile) -> None:
        self.path = file.path
        self.readonly = True
        self.read_fd = file.read_fd
        self._write_fd = self._direct_fd = -1
        self._has_direct = False
        self._file = file
        self._buffer = mmap.mmap(-1, BLOCK_BYTES)

    def pread(self, size_bytes: int, offset: int) -> bytes:
        """As :meth:`VolumeFile.pread`."""
        fd = self._file.direct_fd()
        if fd < 0 or size_bytes <= 0:
            return self._file.pread(size_bytes, offset)
        try:
            return self._read(fd, size_bytes, offset)
        except OSError as error:
            if error.errno in _NOT_DIRECT:
                self._file.give_up_direct()
                return self._file.pread(size_bytes, offset)
            raise disk_error(self.path, f"read {size_bytes} bytes at offset {offset}", error) from error

    def close(self) -> None:
        """Nothing is open here but the file, which is the caller's."""

    def _read(self, fd: int, size_bytes: int, offset: int) -> bytes:
        start = offset // BLOCK_BYTES * BLOCK_BYTES
        wanted = -(-(offset + size_bytes - start) // BLOCK_BYTES) * BLOCK_BYTES
        if len(self._buffer) < wanted:
            self._buffer = mmap.mmap(-1, wanted)  # begins at a page, as such reads must
        with memoryview(self._buffer) as view:
            done = 0
            while done < wanted:
                count = os.preadv(fd, [view[done:wanted]], start + done)
                done += count
                if not count or count % BLOCK_BYTES:
                    break  # the end of the file
            return bytes(view[offset - start : min(offset - start + size_bytes, done)])
