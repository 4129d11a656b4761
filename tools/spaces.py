"""Where the bytes of a cluster are, from what the Stores say: by volume, by disk, by machine. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from haystack.client.errors import UnexpectedAnswer


@dataclass(slots=True)
class Bytes:
    """Bytes of copies of volumes.

    Parameters
    ----------
    garbage: what nobody needs any more; with what is in the trash, and without what has expired, unless that is known.
    trash, expired: None when it was not asked for.
    """

    live: int = 0
    garbage: int = 0
    trash: int | None = None
    expired: int | None = None
    index: int = 0
    size: int = 0

    @property
    def gain(self) -> int:
        """What compactions now would win."""
        return self.garbage + (self.expired or 0)

    def add(self, other: Bytes) -> None:
        """Add another one's bytes to these."""
        self.live += other.live
        self.garbage += other.garbage
        self.index += other.index
        self.size += other.size
        if other.trash is not None:
            self.trash = (self.trash or 0) + other.trash
        if other.expired is not None:
            self.expired = (self.expired or 0) + other.expired

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "liveBytes": self.live,
            "garbageBytes": self.garbage,
            "trashBytes": self.trash,
            "expiredBytes": self.expired,
            "indexBytes": self.index,
            "sizeBytes": self.size,
            "gainBytes": self.gain,
        }


@dataclass(frozen=True, slots=True)
class VolumeSpaces:
    """One copy of a volume.

    Parameters
    ----------
    compaction: when it will be compacted by itself, or why not; empty when the Directory does not say.
    """

    volume: int
    store: str
    disk: str
    bytes: Bytes
    compaction: str = ""


@dataclass(slots=True)
class DiskSpaces:
    """One data folder."""

    store: str
    path: str
    state: str
    total: int
    free: int
    reserve: int
    volumes: int = 0
    bytes: Bytes = field(default_factory=Bytes)


@dataclass(slots=True)
class MachineSpaces:
    """All data folders of the Stores of one host. Folders on one disk share its free space, so that is not summed."""

    host: str
    disks: int = 0
    volumes: int = 0
    bytes: Bytes = field(default_factory=Bytes)


@dataclass(frozen=True, slots=True)
class ClusterSpaces:
    """The whole cluster."""

    volumes: Sequence[VolumeSpaces]
    disks: Sequence[DiskSpaces]
    machines: Sequence[MachineSpaces]
    total: Bytes


Statuses = Mapping[str, Mapping[str, Any]]
Exact = Mapping[tuple[str, int], Mapping[str, Any]]


def spaces_of(statuses: Statuses, exact: Exact, outlooks: Mapping[int, str] | None = None) -> ClusterSpaces:
    """Sum up.

    Parameters
    ----------
    statuses: ``/admin/status`` by address of the Store.
    exact: ``/admin/volumes/<id>/space`` by address and volume, where that was asked for.
    outlooks: when volumes will be compacted by themselves, as the Directory says.

    Raises UnexpectedAnswer.
    """
    try:
        return _spaces_of(statuses, exact, outlooks or {})
    except (KeyError, TypeError, ValueError) as error:
        raise UnexpectedAnswer(
            f"what a Store says is not understood ({type(error).__name__}: {error}); is it of the same release as "
            "this command?"
        ) from error


def _spaces_of(statuses: Statuses, exact: Exact, outlooks: Mapping[int, str]) -> ClusterSpaces:
    volumes: list[VolumeSpaces] = []
    disks: list[DiskSpaces] = []
    machines: dict[str, MachineSpaces] = {}
    total = Bytes()
    for store, status in sorted(statuses.items()):
        host = store.rpartition(":")[0]
        machine = machines.setdefault(host, MachineSpaces(host))
        by_id = {str(folder["id"]): _disk(store, folder) for folder in status["folders"]}
        disks += by_id.values()
        machine.disks += len(by_id)
        for document in status["volumes"]:
            disk = by_id[str(document["folder"])]
            number = int(document["volume"])
            found = _bytes(document, exact.get((store, number)))
            volumes.append(VolumeSpaces(number, store, disk.path, found, outlooks.get(number, "")))
            disk.volumes += 1
            machine.volumes += 1
            for sums in (disk.bytes, machine.bytes, total):
                sums.add(found)
    volumes.sort(key=lambda one: (-one.bytes.gain, one.volume, one.store))
    return ClusterSpaces(volumes, disks, list(machines.values()), total)


def _disk(store: str, folder: Mapping[str, Any]) -> DiskSpaces:
    return DiskSpaces(
        store,
        str(folder["path"]),
        str(folder["state"]),
        int(folder["totalBytes"]),
        int(folder["freeBytes"]),
        int(folder.get("reserveBytes", 0)),
    )


def _bytes(document: Mapping[str, Any], exact: Mapping[str, Any] | None) -> Bytes:
    if exact is None:
        live, index, size = (int(document[name]) for name in ("liveBytes", "indexBytes", "sizeBytes"))
        return Bytes(live, int(document["deletedBytes"]), None, None, index, size)
    names = ("liveBytes", "garbageBytes", "trashBytes", "expiredBytes", "indexBytes", "sizeBytes")
    return Bytes(*(int(exact[name]) for name in names))


def most_to_win(volumes: Iterable[VolumeSpaces], count: int | None) -> list[VolumeSpaces]:
    """Return those that are worth a compaction, most gain first; all volumes without ``count``."""
    if count is None:
        return list(volumes)
    return [one for one in volumes if one.bytes.gain][:count]
