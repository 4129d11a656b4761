"""What an upload takes its bytes from: memory, a file, or an iterator; read in bounded pieces, off the event loop."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import xxhash

from haystack.client.errors import SourceChanged
from haystack.errors import InvalidRequest

PIECE_BYTES = 256 * 1024
"""Bytes of one upload that are in memory at a time, per copy."""

FILE_PIECE_BYTES = 1024 * 1024
"""Larger than PIECE_BYTES: each read of a file is a hop to a thread."""

Data = bytes | bytearray | memoryview


class Source(Protocol):
    """Something to upload."""

    @property
    def size_bytes(self) -> int | None:
        """Its size, or None when only its end will tell."""

    @property
    def repeatable(self) -> bool:
        """Whether it can be read a second time for a second attempt."""

    def whole(self) -> bytes | memoryview | None:
        """Return all of it if that is small and in memory already."""

    def pieces(self) -> AsyncIterator[Data]:
        """Read it from its beginning."""


class MemorySource:
    """Bytes in memory."""

    def __init__(self, data: Data) -> None:
        self._view = memoryview(data).cast("B")

    @property
    def size_bytes(self) -> int | None:
        return len(self._view)

    @property
    def repeatable(self) -> bool:
        return True

    def whole(self) -> bytes | memoryview | None:
        return bytes(self._view) if len(self._view) <= PIECE_BYTES else None

    async def pieces(self) -> AsyncIterator[Data]:
        for offset in range(0, len(self._view), PIECE_BYTES):
            yield self._view[offset : offset + PIECE_BYTES]


class IteratorSource:
    """Bytes that somebody else produces; they can be read once, so that only refusals before the body are retried."""

    def __init__(self, iterator: AsyncIterator[bytes], size_bytes: int | None = None) -> None:
        self._iterator = iterator
        self._size_bytes = size_bytes
        self._used = False

    @property
    def size_bytes(self) -> int | None:
        return self._size_bytes

    @property
    def repeatable(self) -> bool:
        return not self._used

    def whole(self) -> bytes | memoryview | None:
        return None

    async def pieces(self) -> AsyncIterator[Data]:
        self._used = True
        async for piece in self._iterator:
            yield piece


@dataclass(frozen=True, slots=True)
class FileStamp:
    """Size and time of a file, by which a change shows."""

    size_bytes: int
    mtime_ns: int


@dataclass(slots=True)
class FileSource:
    """A regular file, opened and read in threads. Use it as an async context manager.

    ``digest`` is the xxh3-64 (16 hex digits) of what the last complete :meth:`pieces` delivered.

    Parameters
    ----------
    path: the file; a link to one is followed.
    """

    path: Path
    stamp: FileStamp = field(init=False)
    head: bytes = field(init=False, default=b"")
    """The first FILE_PIECE_BYTES, which is all of most photos: a retry of a small file reads nothing again."""
    digest: str | None = field(init=False, default=None)
    _descriptor: int | None = field(init=False, default=None)

    async def __aenter__(self) -> FileSource:
        opening = asyncio.ensure_future(asyncio.to_thread(self._open))
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The thread goes on and opens a descriptor that nobody else would close.
            opening.add_done_callback(self._close_after)
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up the descriptor."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _close_after(self, opening: asyncio.Future[None]) -> None:
        opening.exception()
        self.close()

    @property
    def size_bytes(self) -> int | None:
        return self.stamp.size_bytes

    @property
    def repeatable(self) -> bool:
        return True

    def whole(self) -> bytes | memoryview | None:
        if self.stamp.size_bytes > PIECE_BYTES or len(self.head) != self.stamp.size_bytes:
            return None
        self.digest = xxhash.xxh3_64_hexdigest(self.head)
        return self.head

    async def pieces(self) -> AsyncIterator[Data]:
        """Raises SourceChanged when the file is not as it was opened; OSError when it cannot be read."""
        hasher = xxhash.xxh3_64()
        self.digest = None
        done_bytes = 0
        view = memoryview(self.head)
        for offset in range(0, len(view), PIECE_BYTES):
            piece = view[offset : offset + PIECE_BYTES]
            hasher.update(piece)
            done_bytes += len(piece)
            yield piece
        while done_bytes < self.stamp.size_bytes:
            data = await asyncio.to_thread(self._read, done_bytes)
            if not data:
                raise SourceChanged(f"{self.path}: became shorter while it was uploaded; nothing was stored")
            hasher.update(data)
            done_bytes += len(data)
            if done_bytes == self.stamp.size_bytes:
                await asyncio.to_thread(self._check_unchanged)
            yield data
        self.digest = hasher.hexdigest()

    def _open(self) -> None:
        # Non-blocking, so that a named pipe with no writer does not hold the thread for ever.
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._descriptor = descriptor
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise InvalidRequest(f"{self.path}: not a regular file; only files can be uploaded")
            self.stamp = FileStamp(status.st_size, status.st_mtime_ns)
            self.head = self._read(0)
            if len(self.head) < min(status.st_size, FILE_PIECE_BYTES):
                raise SourceChanged(f"{self.path}: became shorter while it was opened")
        except BaseException:
            self.close()
            raise

    def _read(self, offset: int) -> bytes:
        if self._descriptor is None:
            raise ValueError(f"{self.path}: is closed")
        wanted = min(FILE_PIECE_BYTES, self.stamp.size_bytes - offset)
        data = os.pread(self._descriptor, wanted, offset)
        # A short read is allowed in the middle of a file, on network file systems.
        while data and len(data) < wanted:
            more = os.pread(self._descriptor, wanted - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def _check_unchanged(self) -> None:
        if self._descriptor is None:
            raise ValueError(f"{self.path}: is closed")
        status = os.fstat(self._descriptor)
        if FileStamp(status.st_size, status.st_mtime_ns) != self.stamp:
            raise SourceChanged(f"{self.path}: was changed while it was uploaded; nothing was stored")
