"""From a connection into a file: bounded in bytes, in memory, and in time."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from frontend.intake.errors import Broken, ClientTooSlow, WrongLength
from frontend.intake.uploads import Upload
from haystack.errors import DiskError, OutOfSpace

WINDOW_SECONDS = 20.0
WINDOW_BYTES = 8 * 1024
"""So many bytes must come in each window of time: a phone on a bad line sends more, and who sends less holds a
connection for nothing."""
WRITE_BYTES = 512 * 1024
"""What is held of an upload in memory before it is written."""

Piece = Callable[[], Awaitable[bytes]]
"""The next bytes of a body; none at its end."""


class Pace:
    """Whether a client sends fast enough.

    Parameters
    ----------
    now: seconds, of any clock that goes forward.
    """

    def __init__(self, now: float, *, window_seconds: float = WINDOW_SECONDS, window_bytes: int = WINDOW_BYTES) -> None:
        self._window_seconds = window_seconds
        self._window_bytes = window_bytes
        self._ends = now + window_seconds
        self._came = 0

    def came(self, count: int, now: float) -> None:
        """Bytes have come.

        Raises
        ------
        ClientTooSlow: too few in the window that has ended.
        """
        self._came += count
        if now >= self._ends:
            if self._came < self._window_bytes:
                raise self.too_slow()
            self._came, self._ends = 0, now + self._window_seconds

    @property
    def patience_seconds(self) -> float:
        """How long nothing at all may come."""
        return self._window_seconds

    def too_slow(self) -> ClientTooSlow:
        """What to raise when nothing has come for that long."""
        return ClientTooSlow(f"less than {self._window_bytes:,} bytes came within {self._window_seconds:g} s")


async def receive(upload: Upload, piece: Piece, pace: Pace, hasher: Any | None = None) -> None:
    """Append a body to an upload; what came before it failed stays in the file, and counts.

    Parameters
    ----------
    hasher: of hashlib, is given all bytes.

    Raises
    ------
    WrongLength: more comes than belongs to the upload.
    ClientTooSlow, Broken: the body does not come to its end.
    OutOfSpace, DiskError: the disk does not take it.
    """
    descriptor = await asyncio.to_thread(_open, upload)
    held = bytearray()
    try:
        while data := await _next(piece, pace):
            if upload.offset + len(held) + len(data) > upload.size_bytes:
                raise WrongLength(f"more than the {upload.size_bytes} bytes of the ticket came")
            held += data
            if len(held) >= WRITE_BYTES:
                await _write(descriptor, upload, held, hasher)
    finally:
        try:
            await _write(descriptor, upload, held, hasher)
        finally:
            os.close(descriptor)


async def _next(piece: Piece, pace: Pace) -> bytes:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(pace.patience_seconds):
            data = await piece()
    except TimeoutError:
        raise pace.too_slow() from None
    except (aiohttp.ClientError, aiohttp.http_exceptions.HttpProcessingError, OSError) as error:
        raise Broken(f"the connection broke: {type(error).__name__}") from error
    pace.came(len(data), loop.time())
    return data


async def _write(descriptor: int, upload: Upload, held: bytearray, hasher: Any | None) -> None:
    if not held:
        return
    data = bytes(held)
    held.clear()
    await asyncio.to_thread(_append, descriptor, upload, data, hasher)


def _append(descriptor: int, upload: Upload, data: bytes, hasher: Any | None) -> None:
    if hasher is not None:
        hasher.update(data)
    view = memoryview(data)
    try:
        while view:
            written = os.pwrite(descriptor, view, upload.offset)
            upload.offset += written
            view = view[written:]
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutOfSpace("the disk for uploads is full; try again later") from error
        raise DiskError(f"{upload.path}: cannot be written: {error.strerror}") from error


def _open(upload: Upload) -> int:
    try:
        return os.open(upload.path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        raise DiskError(f"{upload.path}: cannot be opened: {error.strerror}") from error


def hasher_of(name: str) -> Any | None:
    """A hash function of those that tus clients may name; None for others."""
    return hashlib.new(name, usedforsecurity=False) if name in CHECKSUMS else None


CHECKSUMS = ("sha256", "sha1", "md5")
