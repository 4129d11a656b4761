"""Volume files that fail, lose what was not synced, or kill their process, for the tests of the engine."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from haystack.errors import DiskError
from haystack.volume import Volume
from haystack.volume.files import VolumeFile, disk_error
from haystack.volume.layout import Buffer

PAGE_BYTES = 512
"""Unit in which a crash of the machine keeps or loses what was written: a sector, finer than any page cache."""


def memory_folder() -> str | None:
    """Where syncs cost nothing, for tests that sync thousands of times; None where there is no such place."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class Disk:
    """What a crash of the machine would leave of one volume file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.durable = path.read_bytes()

    def open(self, path: Path) -> VolumeFile:
        assert path == self.path
        return _DiskFile(path, self)

    def crash(self, rng: random.Random) -> None:
        """Replace the file by one where each sector that was not synced is old or new, at some length between."""
        old, new = self.durable, self.path.read_bytes()
        size = rng.choice([len(old), len(new), len(new), rng.randint(*sorted((len(old), len(new))))])
        keep = rng.choice((0.0, 0.5, 0.9, 1.0))
        image = bytearray(size)
        for start in range(0, size, PAGE_BYTES):
            end = min(start + PAGE_BYTES, size)
            source = new if rng.random() < keep else old
            image[start:end] = source[start:end].ljust(end - start, b"\0")
        self.path.write_bytes(image)
        self.durable = bytes(image)


class _DiskFile(VolumeFile):
    def __init__(self, path: Path, disk: Disk) -> None:
        super().__init__(path)
        self._disk = disk

    def sync(self) -> None:
        super().sync()
        self._disk.durable = self._disk.path.read_bytes()


class FailingFile(VolumeFile):
    """Fails on demand.

    ``sync_errno`` fails the next sync, once, as the kernel does; ``room_bytes`` is the size the file may grow to;
    ``write_errno`` fails every write after ``write_bytes`` bytes of it.
    """

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        super().__init__(path, readonly=readonly)
        self.sync_errno = 0
        self.room_bytes: int | None = None
        self.write_errno = 0
        self.write_bytes = 0
        self.syncs = 0
        self.before_sync: Callable[[], None] = lambda: None

    def sync(self) -> None:
        self.syncs += 1
        self.before_sync()
        if self.sync_errno:
            code, self.sync_errno = self.sync_errno, 0
            raise DiskError(f"{self.path}: {os.strerror(code)}")
        super().sync()

    def pwrite(self, pieces: Sequence[Buffer], offset: int) -> int:
        raw = b"".join(bytes(piece) for piece in pieces)
        if self.write_errno:
            super().pwrite([raw[: self.write_bytes]], offset)
            raise disk_error(self.path, "write", OSError(self.write_errno, os.strerror(self.write_errno)))
        if self.room_bytes is not None and offset + len(raw) > self.room_bytes:
            super().pwrite([raw[: max(0, self.room_bytes - offset)]], offset)
            raise disk_error(self.path, "write", OSError(errno.ENOSPC, "No space left on device"))
        return super().pwrite(pieces, offset)


class DyingFile(VolumeFile):
    """Kills its process after the write, before anything was said about it; with ``short`` in the middle of it."""

    armed = False
    short = False

    def pwrite(self, pieces: Sequence[Buffer], offset: int) -> int:
        if not DyingFile.armed:
            return super().pwrite(pieces, offset)
        raw = b"".join(bytes(piece) for piece in pieces)
        super().pwrite([raw[: len(raw) // 2] if DyingFile.short else raw], offset)
        os._exit(0)


def abandon(volume: Volume) -> None:
    """What the death of the process leaves: descriptors are closed, nothing else is done."""
    volume.index.close()
    volume.file.close()


def flip(path: Path, offset: int, mask: int = 0xFF) -> None:
    """Change one byte of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ mask]))


def failing(volume: Volume) -> FailingFile:
    assert isinstance(volume.file, FailingFile)
    return volume.file
