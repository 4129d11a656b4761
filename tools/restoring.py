"""What a backup becomes: which Stores there will be, which volumes each gets, and making their folders."""

from __future__ import annotations

import errno
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import UUID, uuid4

from directory.messages import StoreDocument
from directory.settings import STORAGE_NAME
from directory.storage.restored import Contents, make_fit
from directory.storage.tables import VolumeRecord
from haystack.errors import FolderError, OutOfSpace
from haystack.store.folder_identity import IDENTITY_FILE, Identity
from haystack.store.tables import VOLUMES_FILE, write_table
from haystack.units import MIB, format_size
from haystack.volume import ScannedNeedle, Superblock
from haystack.volume.files import VolumeFile, sync_folder, write_durably
from haystack.volume.layout import SUPERBLOCK_BYTES, LayoutError
from haystack.volume.scan import scan
from tools.backup_files import BackupFolder, Manifest, SavedVolume
from tools.layout import Layout
from tools.updir import LAYOUT_FILE

COPY_BYTES = 16 * MIB
MAX_PROBLEMS = 20
"""Of one volume that are told one by one."""

_NOT_BETWEEN_THESE = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
"""What copy_file_range says between file systems of different kinds, and of those that have no such call."""

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class RestoredStore:
    """A Store that is restored, as ``store<number>``. ``document``: as it was registered."""

    number: int
    document: StoreDocument
    volumes: tuple[SavedVolume, ...]

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"store{self.number}"


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """What is made of a backup.

    Parameters
    ----------
    records: volumes as the restored Directory knows them.
    layout: of `haystack up`; None when the racks were none that it would make.
    """

    manifest: Manifest
    stores: tuple[RestoredStore, ...]
    records: dict[int, VolumeRecord]
    layout: Layout | None

    @property
    def size_bytes(self) -> int:
        """What it takes on the disk, indexes apart."""
        volumes = sum(one.size_bytes for store in self.stores for one in store.volumes)
        return volumes + self.manifest.directory_bytes


def make_plan(manifest: Manifest, contents: Contents) -> RestorePlan:
    """Return what is to be made: each Store that had all of a volume gets it back, under its own id.

    Raises FolderError when the Directory's storage does not go with the volumes.
    """
    if contents.cluster_id != manifest.cluster_id:
        raise FolderError(f"the Directory's storage is of cluster {contents.cluster_id}, not {manifest.cluster_id}")
    records = {}
    for volume, saved in manifest.volumes.items():
        record = contents.volumes.get(volume)
        if record is None or UUID(record.uuid) != UUID(saved.uuid):
            raise FolderError(f"volume {volume} ({saved.uuid}) is not in the Directory's storage of this backup")
        records[volume] = record
    ids = {store_id for record in records.values() for store_id in record.in_sync}
    unknown = ids - contents.stores.keys()
    if unknown:
        raise FolderError(f"the Directory's storage names Stores that it does not know: {', '.join(sorted(unknown))}")
    documents, layout = _order([contents.stores[store_id] for store_id in ids], records)
    stores = tuple(
        RestoredStore(
            number,
            document,
            tuple(manifest.volumes[v] for v in sorted(records) if document.store_id in records[v].in_sync),
        )
        for number, document in enumerate(documents, 1)
    )
    return RestorePlan(manifest, stores, records, layout)


def check_room(plan: RestorePlan, data: Path) -> None:
    """Raise OutOfSpace when the disk of a folder, which need not be there yet, has no room for it all."""
    there = next(path for path in (data.absolute(), *data.absolute().parents) if path.exists())
    space = os.statvfs(there)
    free_bytes = space.f_bavail * space.f_frsize
    if free_bytes < plan.size_bytes:
        raise OutOfSpace(f"{data}: {format_size(plan.size_bytes)} are needed, {format_size(free_bytes)} are free")


def restore(plan: RestorePlan, folder: BackupFolder, data: Path, advance: Advance) -> None:
    """Make all folders, durably. What says whose a folder is comes last: what is not complete cannot be started.

    Raises FolderError, DiskError, OutOfSpace, OSError.
    """
    directory = data / "directory"
    directory.mkdir(parents=True)
    for store in plan.stores:
        target = data / store.name
        target.mkdir()
        for saved in store.volumes:
            _copy(folder.volume(saved.file), target / f"{saved.volume}.vol", saved.size_bytes, advance)
        limits = {
            saved.volume: {"maxBytes": limit, "epoch": 1}
            for saved in store.volumes
            if (limit := plan.records[saved.volume].max_bytes) is not None
        }
        write_table(target / VOLUMES_FILE, limits)
    storage = directory / STORAGE_NAME
    part = directory / f"{STORAGE_NAME}.part"
    _copy(folder.path / plan.manifest.directory_file, part, plan.manifest.directory_bytes, advance)
    make_fit(part, plan.records, {store.document.store_id for store in plan.stores})
    for store in plan.stores:
        _identify(data / store.name, store.document.store_id, plan.manifest.cluster_id)
    if plan.layout is not None:
        write_durably(data / LAYOUT_FILE, json.dumps({"format": 1, **asdict(plan.layout)}, indent=2).encode() + b"\n")
    part.rename(storage)
    sync_folder(directory)
    sync_folder(data)


def verify_volume(path: Path, saved: SavedVolume, advance: Advance) -> list[str]:
    """Read all of a volume's bytes that belong to the backup; return what is wrong with them, besides known damage.

    Raises DiskError.
    """
    file = VolumeFile(path, readonly=True)
    try:
        if file.size_bytes() < saved.size_bytes:
            return [f"has {file.size_bytes()} bytes, {saved.size_bytes} belong to the backup"]
        try:
            block = Superblock.unpack(file.pread(SUPERBLOCK_BYTES, 0))
        except LayoutError as error:
            return [str(error)]
        if (block.volume, UUID(bytes=block.uuid), block.generation) != (
            saved.volume,
            UUID(saved.uuid),
            saved.generation,
        ):
            return [f"is volume {block.volume} ({UUID(bytes=block.uuid)}, generation {block.generation})"]
        problems = []
        known = set(saved.damage)
        done = 0
        for item in scan(file, block.seed, SUPERBLOCK_BYTES, saved.size_bytes):
            advance(item.end - done)
            done = item.end
            if not isinstance(item, ScannedNeedle) and (item.offset, item.length) not in known:
                problems.append(str(item))
        return problems[:MAX_PROBLEMS]
    finally:
        file.close()


def _order(
    documents: Sequence[StoreDocument], records: dict[int, VolumeRecord]
) -> tuple[list[StoreDocument], Layout | None]:
    """Return the Stores in the order of their numbers, and the layout under which each has the place that it had."""
    by_port = sorted(documents, key=lambda one: (_port(one.url), one.url))
    if not by_port:
        return [], None
    racks = {(one.data_center, one.rack) for one in by_port}
    replication = Counter(record.replication for record in records.values()).most_common(1)[0][0]
    layout = Layout(replication, len({center for center, _ in racks}), len(racks))
    left, ordered = list(by_port), []
    for number in range(1, len(by_port) + 1):
        place = layout.place(number)
        fitting = [one for one in left if (one.data_center, one.rack) == (place.data_center, place.rack)]
        if not fitting:
            return by_port, None
        ordered.append(fitting[0])
        left.remove(fitting[0])
    return ordered, layout


def _copy(source: Path, target: Path, size_bytes: int, advance: Advance) -> None:
    """Copy the beginning of a file, durably, in the kernel."""
    with source.open("rb") as reader, target.open("xb") as writer:
        left_bytes = size_bytes
        while left_bytes:
            copied = _copy_some(reader.fileno(), writer.fileno(), size_bytes - left_bytes, min(left_bytes, COPY_BYTES))
            if not copied:
                raise FolderError(f"{source}: ends {left_bytes} bytes too early; it is not as the backup says")
            left_bytes -= copied
            advance(copied)
        os.fsync(writer.fileno())


def _copy_some(source: int, target: int, position: int, size_bytes: int) -> int:
    """Copy bytes from ``position`` on to where the target ends; returns how many."""
    try:
        # Where the file system can, this shares the blocks instead of copying them.
        return os.copy_file_range(source, target, size_bytes, offset_src=position)
    except OSError as error:
        if error.errno not in _NOT_BETWEEN_THESE:
            raise
        return os.sendfile(target, source, position, size_bytes)


def _identify(folder: Path, store_id: str, cluster_id: str) -> None:
    folder_id = str(uuid4())
    identity = Identity(store_id, folder_id, cluster_id, {folder_id: os.path.realpath(folder)})
    write_durably(folder / IDENTITY_FILE, identity.to_json())


def _port(url: str) -> int:
    port = url.rpartition(":")[2]
    return int(port) if port.isdigit() else 0
