"""``/internal/backup``: a consistent copy of the storage, taken while the Directory runs."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from pathlib import Path
from typing import BinaryIO

import xxhash
from aiohttp import web

from directory.errors import DirectoryBusy
from directory.service import Service
from directory.signed import SignedCalls
from haystack.errors import DiskError

CHUNK_BYTES = 1024 * 1024
CHECKSUM_HEADER = "X-Haystack-Checksum"
"""xxh3-64 of the whole body, in hex."""

log = logging.getLogger(__name__)


class BackupHandlers:
    """Hands out copies of the storage.

    Parameters
    ----------
    scratch: folder for the copy while it is sent; the file in it has no name, and is gone after a crash.
    """

    def __init__(self, service: Service, signed: SignedCalls, scratch: Path) -> None:
        self._service = service
        self._signed = signed
        self._scratch = scratch
        self._one_at_a_time = asyncio.Lock()

    async def backup(self, request: web.Request) -> web.StreamResponse:
        """Copy the storage to a file first, so that a slow reader holds nothing up, then send that."""
        await self._signed.body(request)
        if self._one_at_a_time.locked():
            raise DirectoryBusy("a backup is being taken already; try again when it has ended")
        async with self._one_at_a_time:
            with await asyncio.to_thread(self._open) as file:
                size_bytes, checksum = await asyncio.to_thread(self._copy, file)
                return await send_file(request, file, size_bytes, checksum)

    def _open(self) -> BinaryIO:
        try:
            return tempfile.TemporaryFile(dir=self._scratch)
        except OSError as error:
            raise DiskError(f"{self._scratch}: no file for the backup can be made: {error.strerror}") from error

    def _copy(self, file: BinaryIO) -> tuple[int, str]:
        self._service.storage.backup(file)
        digest = xxhash.xxh3_64()
        file.seek(0)
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
        return os.fstat(file.fileno()).st_size, digest.hexdigest()


async def send_file(request: web.Request, file: BinaryIO, size_bytes: int, checksum: str) -> web.StreamResponse:
    """Answer with a file and its checksum."""
    response = web.StreamResponse(headers={CHECKSUM_HEADER: checksum, "Content-Type": "application/octet-stream"})
    response.content_length = size_bytes
    await response.prepare(request)
    file.seek(0)
    while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
        await response.write(chunk)
    await response.write_eof()
    log.info("a backup of %d bytes was sent", size_bytes)
    return response
