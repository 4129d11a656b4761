"""Volumes that come as files: ``/admin/volumes/<id>/import``.

``POST …?from=OFFSET&bytes=ALL`` takes the next piece, into ``<id>.vol.import``; 409 with ``size`` says where to go on.
``PUT {"uuid"}`` ends it: every needle is verified, then the file becomes ``<id>.vol`` and is taken into use. ``DELETE``
gives it up; so does a start of the Store a day after the last piece.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from uuid import UUID

from aiohttp import web

from haystack.errors import InvalidRequest, OutOfSpace, VolumeExists, VolumeNotFound
from haystack.fid import MAX_VOLUME_ID
from haystack.store.admin_requests import body_of, number, uuid, volume_of
from haystack.store.copies.fresh import IMPORT_SUFFIX
from haystack.store.documents import Document
from haystack.store.folder import DataFolder
from haystack.store.replication.members_file import remove_members
from haystack.store.volumes import StoreVolumes
from haystack.units import format_size
from haystack.volume import ScannedNeedle, Superblock
from haystack.volume.files import VolumeFile, disk_error, sync_folder
from haystack.volume.layout import MAX_VOLUME_BYTES, SUPERBLOCK_BYTES, LayoutError
from haystack.volume.recovery import Progress
from haystack.volume.scan import scan

MAX_IMPORTS = 16
MAX_PROBLEMS = 5


class NotSound(InvalidRequest):
    """What came is no volume, or not whole."""

    http_status = 409


class ImportApi:
    """The calls. Pieces of one volume come one after another."""

    def __init__(self, volumes: StoreVolumes) -> None:
        self._volumes = volumes
        self._arriving: dict[int, DataFolder] = {}
        self._busy: dict[int, asyncio.Lock] = {}

    def add_routes(self, app: web.Application) -> None:
        """Add them to the admin API."""
        path = "/admin/volumes/{volume}/import"
        app.router.add_post(path, self._piece)
        app.router.add_put(path, self._end)
        app.router.add_delete(path, self._give_up)

    async def _piece(self, request: web.Request) -> web.Response:
        volume = volume_of(request)
        start = number(request, "from", 0, MAX_VOLUME_BYTES)
        all_bytes = number(request, "bytes", 0, MAX_VOLUME_BYTES)
        piece = await request.read()
        async with self._lock(volume):
            self._require_absent(volume)
            if start == 0:
                await self._begin(volume, request.query.get("folder"), all_bytes)
            folder = self._arriving.get(volume)
            taken, size = (False, 0)
            if folder is not None:
                taken, size = await folder.run(_append, _path(folder, volume), start, piece)
        if not taken:
            said: Document = {"error": f"volume {volume}: {size} bytes are here, not {start}", "size": size}
            return web.json_response(said, status=409)
        return web.json_response({"size": size})

    async def _end(self, request: web.Request) -> web.Response:
        volume = volume_of(request)
        wanted = uuid((await body_of(request)).get("uuid"))
        async with self._lock(volume):
            self._require_absent(volume)
            folder = self._arriving.get(volume)
            if folder is None:
                raise VolumeNotFound(f"nothing of volume {volume} has come; begin with its first byte")
            path = _path(folder, volume)
            await folder.run(_require_sound, path, volume, wanted, self._volumes.progress)
            entry = await self._volumes.adopt(volume, folder, lambda: _put_in_place(path, volume), None, 1)
            self._arriving.pop(volume, None)
        return web.json_response({"volume": volume, "folder": entry.folder.id}, status=201)

    async def _give_up(self, request: web.Request) -> web.Response:
        volume = volume_of(request)
        async with self._lock(volume):
            folder = self._arriving.pop(volume, None)
            if folder is not None:
                await folder.run(_remove, _path(folder, volume))
        return web.json_response({"volume": volume})

    def _lock(self, volume: int) -> asyncio.Lock:
        if volume not in self._busy and len(self._busy) >= MAX_IMPORTS:
            # Those of imports that have ended are of no use.
            self._busy = {one: lock for one, lock in self._busy.items() if lock.locked() or one in self._arriving}
        if volume not in self._busy and len(self._busy) >= MAX_IMPORTS:
            raise OutOfSpace(f"{MAX_IMPORTS} volumes are being imported already; try again later")
        return self._busy.setdefault(volume, asyncio.Lock())

    def _require_absent(self, volume: int) -> None:
        if any(entry.id == volume for entry in self._volumes):
            raise VolumeExists(f"volume {volume} is here already; an import would replace it")

    async def _begin(self, volume: int, folder_id: str | None, all_bytes: int) -> None:
        if not all_bytes >= SUPERBLOCK_BYTES or volume > MAX_VOLUME_ID:
            raise InvalidRequest(f"a volume has at least {SUPERBLOCK_BYTES} bytes, not {all_bytes}")
        folder = self._volumes.folder_for(folder_id)
        free_bytes = folder.free_bytes - folder.reserve_bytes
        if free_bytes < all_bytes:
            raise OutOfSpace(
                f"data folder {folder.path}: volume {volume} takes {format_size(all_bytes)}, and "
                f"{format_size(max(0, free_bytes))} are free above its reserve"
            )
        before = self._arriving.get(volume)
        if before is not None:
            await before.run(_remove, _path(before, volume))
        self._arriving[volume] = folder
        await folder.run(_remove, _path(folder, volume))


def _path(folder: DataFolder, volume: int) -> Path:
    return folder.path / f"{volume}{IMPORT_SUFFIX}"


def _append(path: Path, start: int, piece: bytes) -> tuple[bool, int]:
    """Append a piece if it goes on where the file ends; returns whether it does, and the size then.

    Raises DiskError, OutOfSpace.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            if size != start:
                return False, size
            view = memoryview(piece)
            while view:
                written = os.pwrite(descriptor, view, size)
                view, size = view[written:], size + written
            return True, size
        finally:
            os.close(descriptor)
    except OSError as error:
        raise disk_error(str(path), "write it", error) from error


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise disk_error(str(path), "remove it", error) from error


def _require_sound(path: Path, volume: int, wanted: UUID, progress: Progress) -> None:
    """Verify every needle, and make the file durable. Raises NotSound, DiskError."""
    file = VolumeFile(path)
    try:
        try:
            block = Superblock.unpack(file.pread(SUPERBLOCK_BYTES, 0))
        except LayoutError as error:
            raise NotSound(f"what came of volume {volume} is no volume: {error}") from error
        if block.volume != volume or block.uuid != wanted.bytes:
            raise NotSound(f"what came is volume {block.volume} ({UUID(bytes=block.uuid)}), not {volume} ({wanted})")
        problems: list[str] = []
        end = file.size_bytes()
        for item in scan(file, block.seed, SUPERBLOCK_BYTES, end):
            progress(item.end, end)
            if not isinstance(item, ScannedNeedle) and len(problems) < MAX_PROBLEMS:
                problems.append(str(item))
        if problems:
            raise NotSound(f"volume {volume} is damaged: {'; '.join(problems)}")
        file.sync()
    finally:
        file.close()


def _put_in_place(path: Path, volume: int) -> Path:
    target = path.with_name(f"{volume}.vol")
    remove_members(target)  # of a volume that was here before
    try:
        path.rename(target)
    except OSError as error:
        raise disk_error(str(path), "rename it", error) from error
    sync_folder(target.parent)
    return target
