"""``GET /admin/volumes/<id>/bytes`` and ``…/hashes``: what other Stores may read of a volume."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from aiohttp import web

from haystack.errors import InvalidRequest, VolumeUnavailable
from haystack.store.admin_requests import number, volume_of
from haystack.store.confirmations import confirmable_tail
from haystack.store.copies.ranges import (
    MAX_BYTES,
    MAX_HASHED_BYTES,
    MIN_BLOCK_BYTES,
    PIECE_BYTES,
    block_hashes,
    durable_tail,
    read_piece,
)
from haystack.store.store_volume import StoreVolume
from haystack.store.volumes import StoreVolumes
from haystack.volume import Volume
from haystack.volume.layout import MAX_VOLUME_BYTES

MAX_READERS = 16
"""Calls that read at the same time; each of them has one piece in memory."""

MAX_GENERATION = 2**32 - 1


class OtherGeneration(VolumeUnavailable):
    """The volume was compacted: its bytes are not those of the generation that is asked for."""

    http_status = 409


class RangesApi:
    """Both calls."""

    def __init__(self, volumes: StoreVolumes) -> None:
        self._volumes = volumes
        self._readers = 0

    def add_routes(self, app: web.Application) -> None:
        """Add them to the admin API."""
        app.router.add_get("/admin/volumes/{volume}/bytes", self._bytes)
        app.router.add_get("/admin/volumes/{volume}/hashes", self._hashes)

    async def _bytes(self, request: web.Request) -> web.StreamResponse:
        entry = self._volumes.get(volume_of(request))
        start, end = self._range(request, entry, MAX_BYTES)
        with self._reading():
            # Before the head of the answer: an error can be told only now.
            generation = entry.require_open().superblock.generation
            piece = await entry.run(_read_of, generation, start, min(start + PIECE_BYTES, end))
            response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
            response.content_length = end - start
            await response.prepare(request)
            while piece:
                await response.write(piece)
                start += len(piece)
                piece = await entry.run(_read_of, generation, start, min(start + PIECE_BYTES, end))
            await response.write_eof()
        return response

    async def _hashes(self, request: web.Request) -> web.Response:
        entry = self._volumes.get(volume_of(request))
        start, end = self._range(request, entry, MAX_HASHED_BYTES)
        block_bytes = number(request, "block", PIECE_BYTES, MAX_HASHED_BYTES)
        if block_bytes < MIN_BLOCK_BYTES:
            raise InvalidRequest(f"parameter block={block_bytes} is too small; at least {MIN_BLOCK_BYTES}")
        with self._reading():
            hashes = await entry.run(block_hashes, start, end, block_bytes)
        block = entry.require_open().superblock
        return web.json_response(
            {
                "tail": durable_tail(self._volumes, entry),
                "committed": confirmable_tail(entry, self._volumes.control),
                "uuid": str(UUID(bytes=block.uuid)),
                "generation": block.generation,
                "hashes": hashes,
            }
        )

    def _range(self, request: web.Request, entry: StoreVolume, most: int) -> tuple[int, int]:
        """The range that is asked for; empty by default. Raises InvalidRequest, VolumeUnavailable, OtherGeneration."""
        self._require_generation(request, entry)
        tail = durable_tail(self._volumes, entry)
        start = number(request, "from", 0, MAX_VOLUME_BYTES)
        end = number(request, "to", start, MAX_VOLUME_BYTES)
        if not start <= end <= tail:
            raise InvalidRequest(f"bytes {start} to {end} of volume {entry.id} cannot be read; it has {tail} for good")
        if end - start > most:
            raise InvalidRequest(f"{end - start} bytes are too many for one call; at most {most}")
        return start, end

    def _require_generation(self, request: web.Request, entry: StoreVolume) -> None:
        generation = entry.require_open().superblock.generation
        wanted = number(request, "generation", generation, MAX_GENERATION)
        if wanted != generation:
            raise OtherGeneration(f"volume {entry.id} has generation {generation} by now, not {wanted}")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        if self._readers >= MAX_READERS:
            raise VolumeUnavailable(f"{MAX_READERS} calls read volumes at the moment; try again soon")
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1


def _read_of(volume: Volume, generation: int, start: int, end: int) -> bytes:
    """Bytes of one generation: an answer is never made of two. Raises OtherGeneration, DiskError."""
    if volume.superblock.generation != generation:
        raise OtherGeneration(f"{volume}: was compacted while bytes of generation {generation} were read")
    return read_piece(volume, start, end)
