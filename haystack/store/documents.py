"""What a Store says of itself and its volumes: the JSON documents of docs/design.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from haystack import __version__
from haystack.store.activity import ChangedSlots
from haystack.store.control import ControlBlock
from haystack.store.control_cells import Reason, VolumeCell, VolumeState
from haystack.store.folder import DataFolder
from haystack.store.replication.membership import promised_copies
from haystack.store.replication.rules import Duty
from haystack.store.states import nearly_full
from haystack.store.store_volume import StoreVolume
from haystack.store.volumes import StoreVolumes

Document = dict[str, Any]

_TOLD_AS_HEAT = ("reads", "bytesRead")
"""They change with every read. The Directory hears of them in another form, see :mod:`haystack.store.heat`: whole
documents would make the heartbeats of a Store with a thousand volumes most of a megabyte."""


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """What does not change while a Store runs.

    Parameters
    ----------
    url, public_url, admin_url: ``host:port`` as others reach it.
    started_ms: milliseconds since 1970.
    max_photo_bytes: room that a volume keeps when it is reported as full.
    services: other servers of this machine, by name; what they are is no matter of the Store.
    """

    store_id: str
    url: str
    public_url: str
    admin_url: str
    data_center: str
    rack: str
    started_ms: int
    workers: int
    max_photo_bytes: int
    services: Mapping[str, str] = field(default_factory=dict)


class Documents:
    """Makes the documents; a volume's is made again only when something about it has changed."""

    def __init__(self, facts: StoreFacts, folders: Sequence[DataFolder], volumes: StoreVolumes) -> None:
        self.facts = facts
        self._folders = folders
        self._volumes = volumes
        self._changed = ChangedSlots(volumes.control)
        self._made: dict[int, tuple[tuple[object, ...], Document]] = {}

    def store(self) -> Document:
        """The Store document."""
        facts = self.facts
        return {
            "storeId": facts.store_id,
            "clusterId": self.cluster_id(),
            "url": facts.url,
            "publicUrl": facts.public_url,
            "adminUrl": facts.admin_url,
            "dataCenter": facts.data_center,
            "rack": facts.rack,
            "version": __version__,
            "startedMs": facts.started_ms,
            "workers": facts.workers,
            "services": dict(facts.services),
            "folders": self.folders(),
            "volumes": list(self.known_volumes().values()),
        }

    def cluster_id(self) -> str | None:
        """The cluster that the Store belongs to."""
        return next((one.identity.cluster_id for one in self._folders if one.identity.cluster_id), None)

    def folders(self) -> list[Document]:
        """The folder documents."""
        return [folder_document(folder) for folder in self._folders]

    def volumes(self) -> dict[int, Document]:
        """All volume documents by id, those of volumes that could not be opened included."""
        for slot in self._changed.take():
            entry = self._volumes.at(slot)
            if entry is not None:
                self._made.pop(entry.id, None)
        return {entry.id: self.volume(entry) for entry in self._volumes}

    def known_volumes(self) -> dict[int, Document]:
        """Those whose uuid is known: a Directory cannot tell the others from volumes with the same id elsewhere."""
        return {volume: document for volume, document in self.volumes().items() if document["uuid"] is not None}

    def volume(self, entry: StoreVolume) -> Document:
        """One volume's document."""
        key = (entry.slot, entry.revision, self._volumes.state(entry))
        made = self._made.get(entry.id)
        if made is None or made[0] != key:
            made = key, volume_document(entry, self._volumes.control, self.facts.max_photo_bytes)
            self._made[entry.id] = made
        return made[1]


def folder_document(folder: DataFolder) -> Document:
    """A folder as the Directory and the tools see it."""
    return {
        "id": folder.id,
        "path": str(folder.path),
        "totalBytes": folder.total_bytes,
        "freeBytes": folder.free_bytes,
        "reserveBytes": folder.reserve_bytes,
        "state": folder.state.name.lower(),
        "error": folder.error,
    }


def volume_document(entry: StoreVolume, control: ControlBlock, max_photo_bytes: int) -> Document:
    """A volume as the Directory and the tools see it. ``uuid`` is None when the superblock could not be read."""
    stat, block = entry.stat, entry.superblock
    state, reason = control.state(entry.slot), entry.reason
    if state is VolumeState.READONLY and control.reason(entry.slot) is Reason.REPLICA:
        state, reason = VolumeState.WRITABLE, ""  # it takes what its primary sends
    if (
        state is VolumeState.WRITABLE
        and stat is not None
        and nearly_full(stat.size_bytes, entry.max_bytes, max_photo_bytes)
    ):
        state, reason = VolumeState.READONLY, "full"
    membership = entry.membership
    return {
        "volume": entry.id,
        "uuid": str(UUID(bytes=block.uuid)) if block else None,
        "generation": block.generation if block else 0,
        "epoch": membership.epoch if membership else entry.epoch,
        "primary": membership.primary if membership else None,
        "inSync": [member.store_id for member in membership.in_sync] if membership else [],
        "copies": membership.copies if membership else promised_copies(block.replication if block else 0),
        "stale": entry.duty in (Duty.STALE, Duty.FOLLOWER),
        "folder": entry.folder.id,
        "state": state.name.lower(),
        "reason": reason,
        "sizeBytes": stat.size_bytes if stat else 0,
        "maxBytes": entry.max_bytes,
        "liveCount": stat.live_count if stat else 0,
        "liveBytes": stat.live_bytes if stat else 0,
        "deletedCount": stat.deleted_count if stat else 0,
        "deletedBytes": stat.deleted_bytes if stat else 0,
        "indexBytes": stat.index_bytes if stat else 0,
        "maxKey": f"{stat.max_key:x}" if stat else "0",
        "reads": control.volume_sum(entry.slot, VolumeCell.READS),
        "bytesRead": control.volume_sum(entry.slot, VolumeCell.BYTES_READ),
        "writes": control.volume_sum(entry.slot, VolumeCell.WRITES),
        "replication": f"{block.replication if block else 0:03d}",
        "scrubbedMs": entry.scrubbed[0],
        "brokenBytes": entry.scrubbed[1],
        "mended": entry.scrubbed[2],
        "problem": entry.scrubbed[3],
        "lastAppendMs": stat.last_append_ms if stat else 0,
    }


def changed_documents(before: Mapping[int, Document], now: Mapping[int, Document]) -> tuple[list[Document], list[int]]:
    """Documents that are new or different in more than their reads, and ids that are gone."""
    changed = [document for volume, document in now.items() if _differ(before.get(volume), document)]
    return changed, [volume for volume in before if volume not in now]


def _differ(before: Document | None, now: Document) -> bool:
    if before is now:
        return False
    if before is None or before.keys() != now.keys():
        return True
    return any(before[name] != value for name, value in now.items() if name not in _TOLD_AS_HEAT)
