"""The seam between the engine and the operating system: everything that touches a volume file goes through here.

Tests replace :class:`VolumeFile` to fail an fsync, shorten a write, fill the disk or drop what was not synced.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from haystack.errors import DiskError, OutOfSpace
from haystack.volume.layout import Buffer

IOV_MAX = 1024
"""Buffers that one pwritev takes (Linux UIO_MAXIOV)."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def disk_error(path: str, action: str, error: OSError) -> DiskError | OutOfSpace:
    """The Haystack error for an OSError met while doing ``action`` on ``path``."""
    if error.errno in _FULL:
        return OutOfSpace(f"{path}: no room left to {action} ({error.strerror}); nothing was stored")
    return DiskError(f"{path}: cannot {action}: {error.strerror or error}; look at the disk and the kernel's log")


class VolumeFile:
    """One open volume file: a descriptor for random reads and, unless read-only, one for appends.

    Parameters
    ----------
    path: the ``.vol`` file, which must exist.
    readonly: open it for reading alone.

    Raises :class:`DiskError` when it cannot be opened.
    """

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        self.path = str(path)
        self.readonly = readonly
        self.read_fd = self._write_fd = self._direct_fd = -1
        self._has_direct = True
        try:
            self.read_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            # A photo is one read; the kernel's read-ahead would fetch its neighbours, which nobody asked for.
            os.posix_fadvise(self.read_fd, 0, 0, os.POSIX_FADV_RANDOM)
            self._write_fd = -1 if readonly else os.open(path, os.O_RDWR | os.O_CLOEXEC)
            status = os.fstat(self.read_fd)
            self._identity = status.st_dev, status.st_ino
        except OSError as error:
            self.close()
            raise disk_error(self.path, "open it", error) from error

    def is_in_place(self) -> bool:
        """Whether the path still names this file. Raises DiskError."""
        try:
            status = os.stat(self.path)  # noqa: PTH116 - asked at every append, and a Path doubles what it costs
        except FileNotFoundError:
            return False
        except OSError as error:
            raise disk_error(self.path, "look at it", error) from error
        return (status.st_dev, status.st_ino) == self._identity

    def size_bytes(self) -> int:
        """The file's length now."""
        return os.fstat(self.read_fd).st_size

    def pread(self, size_bytes: int, offset: int) -> bytes:
        """Up to ``size_bytes`` from ``offset``; shorter only at the end of the file. Raises :class:`DiskError`."""
        try:
            data = os.pread(self.read_fd, size_bytes, offset)
            while len(data) < size_bytes:
                more = os.pread(self.read_fd, size_bytes - len(data), offset + len(data))
                if not more:
                    break
                data += more
        except OSError as error:
            raise disk_error(self.path, f"read {size_bytes} bytes at offset {offset}", error) from error
        return data

    def pread_into(self, target: memoryview, offset: int) -> None:
        """Fill ``target`` from ``offset`` in as few reads as possible. Raises DiskError, also at the file's end."""
        done = 0
        try:
            while done < len(target):
                count = os.preadv(self.read_fd, [target[done:]], offset + done)
                if not count:
                    problem = f"the file ends at {offset + done}, {len(target) - done} bytes are missing"
                    raise DiskError(f"{self.path}: cannot read {len(target)} bytes at offset {offset}: {problem}")
                done += count
        except OSError as error:
            raise disk_error(self.path, f"read {len(target)} bytes at offset {offset}", error) from error

    def direct_fd(self) -> int:
        """A descriptor for reads past the page cache (O_DIRECT), opened when first asked for; -1 when there is none."""
        if not self._has_direct:
            return -1
        if self._direct_fd < 0:
            try:
                # The file that is open here, whatever has that name by now.
                self._direct_fd = os.open(f"/proc/self/fd/{self.read_fd}", os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
            except OSError as error:
                self._has_direct = error.errno != errno.EINVAL
        return self._direct_fd

    def give_up_direct(self) -> None:
        """The file system or its disk cannot do what ``direct_fd`` promises: give none out from now on."""
        self._has_direct = False  # not closed before the file is: reads that were begun may still name it

    def pwrite(self, pieces: Sequence[Buffer], offset: int) -> int:
        """Write all pieces from ``offset`` on; returns the bytes written. Raises OutOfSpace or DiskError."""
        start = offset
        pending = [memoryview(piece).cast("B") for piece in pieces if len(piece)]
        try:
            while pending:
                written = os.pwritev(self._write_fd, pending[:IOV_MAX], offset)
                offset += written
                pending = _after(pending, written)
        except OSError as error:
            raise disk_error(self.path, f"write at offset {offset}", error) from error
        return offset - start

    def sync(self) -> None:
        """fdatasync. Raises DiskError; the caller must not try again: the kernel may have dropped the pages."""
        try:
            os.fdatasync(self._write_fd)
        except OSError as error:
            raise self.sync_error(error) from error

    def sync_error(self, error: OSError) -> DiskError:
        """What a failed fdatasync means."""
        # Also when the disk is full: unlike a write that found no room, this one may have stored something.
        problem = f"cannot make it durable (fdatasync): {error.strerror or error}"
        return DiskError(f"{self.path}: {problem}; look at the disk and the kernel's log")

    @property
    def sync_fd(self) -> int:
        """The descriptor to be synced, for whoever syncs several files at once."""
        return self._write_fd

    def truncate(self, size_bytes: int) -> None:
        """Cut the file to ``size_bytes``."""
        try:
            os.ftruncate(self._write_fd, size_bytes)
        except OSError as error:
            raise disk_error(self.path, f"cut it to {size_bytes} bytes", error) from error

    def close(self) -> None:
        """Close the descriptors; may be called twice."""
        for fd in (self.read_fd, self._write_fd, self._direct_fd):
            if fd >= 0:
                os.close(fd)
        self.read_fd = self._write_fd = self._direct_fd = -1
        self._has_direct = False


def _after(pending: list[memoryview], written: int) -> list[memoryview]:
    """What is left of ``pending`` after ``written`` bytes of it."""
    for index, piece in enumerate(pending):
        if written < len(piece):
            return [piece[written:], *pending[index + 1 :]]
        written -= len(piece)
    return []


def prefetch(path: Path, size_bytes: int) -> None:
    """Have the kernel begin to read a file into the page cache, up to ``size_bytes`` of it, without waiting for it.

    Raises DiskError.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(fd, 0, size_bytes, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(fd)
    except OSError as error:
        raise disk_error(str(path), "read it", error) from error


def sync_folder(folder: Path) -> None:
    """Make creations, renames and removals in ``folder`` durable. Raises DiskError."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise disk_error(str(folder), "make the folder durable (fsync)", error) from error


def write_durably(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content``: after a crash it is either the old or the new file, whole. Raises DiskError."""
    temporary = path.with_name(path.name + ".new")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        temporary.replace(path)
    except OSError as error:
        raise disk_error(str(path), "write it", error) from error
    sync_folder(path.parent)
