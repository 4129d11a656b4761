"""``GET /admin/volumes/<id>/bytes`` and ``…/hashes``: what other Stores may read of a volume."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from haystack.errors import InvalidRequest, VolumeUnavailable
from haystack.store.admin_requests import number, volume_of
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
from haystack.volume.layout import MAX_VOLUME_BYTES

MAX_READERS = 16
"""Calls that read at the same time; each of them has one piece in memory."""


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
            piece = await entry.run(read_piece, start, min(start + PIECE_BYTES, end))
            response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
            response.content_length = end - start
            await response.prepare(request)
            while piece:
                await response.write(piece)
                start += len(piece)
                piece = await entry.run(read_piece, start, min(start + PIECE_BYTES, end))
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
        return web.json_response({"tail": durable_tail(self._volumes, entry), "hashes": hashes})

    def _range(self, request: web.Request, entry: StoreVolume, most: int) -> tuple[int, int]:
        """The range that is asked for; empty by default. Raises InvalidRequest, VolumeUnavailable."""
        entry.require_open()
        tail = durable_tail(self._volumes, entry)
        start = number(request, "from", 0, MAX_VOLUME_BYTES)
        end = number(request, "to", start, MAX_VOLUME_BYTES)
        if not start <= end <= tail:
            raise InvalidRequest(f"bytes {start} to {end} of volume {entry.id} cannot be read; it has {tail} for good")
        if end - start > most:
            raise InvalidRequest(f"{end - start} bytes are too many for one call; at most {most}")
        return start, end

    @contextmanager
    def _reading(self) -> Iterator[None]:
        if self._readers >= MAX_READERS:
            raise VolumeUnavailable(f"{MAX_READERS} calls read volumes at the moment; try again soon")
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
