"""The files of a volume made, and found as one generation by a process that attaches to them."""

from __future__ import annotations

import time
from pathlib import Path
from uuid import uuid4

from haystack.errors import HaystackError, InvalidRequest, UnknownFormat, VolumeExists
from haystack.fid import MAX_VOLUME_ID
from haystack.volume.dirty import DirtyMarker, current_boot_id
from haystack.volume.files import VolumeFile, write_durably
from haystack.volume.index import NeedleIndex, remove_index
from haystack.volume.index_records import IndexState
from haystack.volume.layout import MAX_VOLUME_BYTES, SUPERBLOCK_BYTES, LayoutError, Superblock
from haystack.volume.locks import lock_shared
from haystack.volume.names import index_path

MAX_REPLICATION = 999
UUID_BYTES = 16


def make_files(path: Path, volume: int, *, uuid: bytes | None, created_ms: int | None, replication: int) -> None:
    """Make the files of a new, empty volume; they are durable when this returns.

    Parameters are those of :meth:`haystack.volume.Volume.create`. Raises VolumeExists, InvalidRequest, DiskError or
    OutOfSpace.
    """
    if not 1 <= volume <= MAX_VOLUME_ID:
        raise InvalidRequest(f"volume {volume} is outside 1 … {MAX_VOLUME_ID}")
    if not 0 <= replication <= MAX_REPLICATION or (uuid is not None and len(uuid) != UUID_BYTES):
        raise InvalidRequest(f"replication {replication} is not three digits, or the uuid not {UUID_BYTES} bytes")
    if path.exists():
        raise VolumeExists(f"{path} exists already")
    created = created_ms if created_ms is not None else now_ms()
    superblock = Superblock(volume, uuid or uuid4().bytes, created, replication=replication)
    index_file = index_path(path, 0)
    remove_index(index_file)
    write_durably(path, superblock.pack())
    DirtyMarker(path, current_boot_id(path.parent)).renew()
    NeedleIndex.create(index_file, IndexState(superblock.uuid, 0, SUPERBLOCK_BYTES)).close()


def attach(path: Path) -> tuple[VolumeFile, Superblock, NeedleIndex]:
    """The file and the index of the generation that is in force.

    Raises VolumeUnavailable while it is being recovered, UnknownFormat, IndexDamaged, DiskError.
    """
    while True:
        file = VolumeFile(path)
        try:
            lock_shared(file)
            superblock = read_superblock(file)
            index = NeedleIndex(index_path(path, superblock.generation))
            if file.is_in_place():
                return file, superblock, index
            index.close()
        except HaystackError:
            if file.is_in_place():
                file.close()
                raise
        except BaseException:
            file.close()
            raise
        file.close()  # compacted while we looked: the next generation is there


def read_superblock(file: VolumeFile) -> Superblock:
    """The superblock of a volume file. Raises UnknownFormat, naming an unknown version."""
    try:
        return Superblock.unpack(file.pread(SUPERBLOCK_BYTES, 0))
    except LayoutError as error:
        raise UnknownFormat(file.path, 0, str(error)) from error


def require_max_bytes(max_bytes: int) -> None:
    """Raise InvalidRequest when no volume can have this limit."""
    if not SUPERBLOCK_BYTES < max_bytes <= MAX_VOLUME_BYTES:
        raise InvalidRequest(f"a volume's limit must be between {SUPERBLOCK_BYTES} and {MAX_VOLUME_BYTES}: {max_bytes}")


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000
