"""Keys and values of the Directory's tables, and the records that they hold.

=========  ==========================================  ==============================================================
table      key                                         value
=========  ==========================================  ==============================================================
meta       text                                        see the constants below
stores     the Store's uuid, text                      the Store document as registered, without its volumes
volumes    volume id, 4 bytes                          dict, see :class:`VolumeRecord`
photos     photo id, 8 bytes                           [volume, cookie, {alternate: [size, checksum, time_ms]}]; a
                                                       rendition that has an end: [size, checksum, time_ms, expires]
expiries   expires, 4 bytes; photo id, 8 bytes         1; what may be removed from ``photos`` from that second on
confirmed  volume id, 4 bytes; generation, 8 bytes     offset up to which the Directory knows the volume's needles
marks      the Store's uuid, text                      dict, see :class:`MarkRecord`
moves      the move's number, 8 bytes                  dict, see :class:`directory.moves.record.MoveRecord`
snapshots  the snapshot's name, text                   dict, see :class:`SnapshotRecord`
=========  ==========================================  ==============================================================

Numbers in keys are big-endian, so that the order of the keys is the order of the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from directory.decisions.replication import promised_copies
from directory.storage.interface import Value

FORMAT_VERSION = 2
OLDER_FORMATS = (1,)
"""Formats that are taken over as they are: 1 had volumes of one copy only, and no marks."""

MAX_WEIGHT = 100.0
"""The largest read weight of a copy."""

EQUAL_WEIGHT = 100.0
"""The read weight of every copy of a volume whose record has none."""

META_FORMAT = b"format"
"""The format version of the whole storage; another one is refused."""

META_CLUSTER = b"cluster"
"""{"id": uuid, "joined": whether a Store ever registered}. Before that the id may still be taken over from a Store."""

META_NEXT_VOLUME = b"next_volume"
"""The lowest volume id that was never reserved."""

META_NEXT_MOVE = b"next_move"
"""The lowest number that no move ever had."""


def ids_key(index: int, count: int) -> bytes:
    """Return the meta key of one id sequence's reservation; the value is the lowest id that is not reserved."""
    return f"{IDS_PREFIX}{index}/{count}".encode()


IDS_PREFIX = "ids."


def expired_key(volume: int) -> bytes:
    """Key in ``meta`` of the bytes of a volume's photos that have expired since it was compacted; about so many."""
    return f"{EXPIRED_PREFIX}{volume}".encode()


EXPIRED_PREFIX = "expired."


def ends_key(volume: int) -> bytes:
    """Key in ``meta`` of where the last compaction of a volume's copies brings the ends that snapshots hold."""
    return f"ends.{volume}".encode()


def volume_key(volume: int) -> bytes:
    """Return the key of table ``volumes``."""
    return volume.to_bytes(4, "big")


def move_key(number: int) -> bytes:
    """Return the key of table ``moves``."""
    return number.to_bytes(8, "big")


def photo_key(photo_id: int) -> bytes:
    """Return the key of table ``photos``."""
    return photo_id.to_bytes(8, "big")


def expiry_key(expires: int, photo_id: int) -> bytes:
    """Return the key of table ``expiries``."""
    return expires.to_bytes(4, "big") + photo_id.to_bytes(8, "big")


def parse_expiry_key(key: bytes) -> tuple[int, int]:
    """Return the second and the photo id that :func:`expiry_key` was given."""
    return int.from_bytes(key[:4], "big"), int.from_bytes(key[4:], "big")


def confirmed_key(volume: int, generation: int) -> bytes:
    """Return the key of table ``confirmed``."""
    return volume.to_bytes(4, "big") + generation.to_bytes(8, "big")


@dataclass(frozen=True, slots=True)
class VolumeRecord:
    """What the Directory keeps of a logical volume.

    Parameters
    ----------
    volume, uuid: its identity; a physical volume with the same id and another uuid is another volume.
    replication: as in SeaweedFS, ``000`` is one copy.
    epoch: number of the current membership.
    primary, in_sync: Store ids; the primary is one of ``in_sync``.
    members: the Stores that are to hold a copy: those in sync first, then stale ones.
    degraded_since_ms: unix time in milliseconds since when fewer copies are in sync than promised; 0: there are enough.
    state: as the primary reported it last.
    created_ms: unix time in milliseconds.
    max_bytes: size limit; None when the Store's own was to be taken and is not known yet.
    size_bytes, live_bytes, live_count: as last written down. The current ones are in memory only: they change all the
        time, and each Store reports them with its registration.
    generation: of the files that count; None as long as copies were not compacted together.
    extra_copies: above the promise, that are wanted for now and that repair keeps.
    mark: ``readonly``: the operator wants no photos put into it; empty otherwise.
    weights: read weights of copies by Store, 0 to :data:`MAX_WEIGHT`; see :meth:`weight_of`. Empty: all are equal.
    """

    volume: int
    uuid: str
    replication: str
    epoch: int
    primary: str
    in_sync: tuple[str, ...]
    state: str
    created_ms: int
    max_bytes: int | None
    size_bytes: int = 0
    live_bytes: int = 0
    live_count: int = 0
    members: tuple[str, ...] = ()
    degraded_since_ms: int = 0
    generation: int | None = None
    extra_copies: int = 0
    mark: str = ""
    weights: dict[str, float] = field(default_factory=dict, hash=False)

    @property
    def promised(self) -> int:
        """The number of copies that the replication means."""
        return promised_copies(self.replication)

    @property
    def wanted(self) -> int:
        """The number of copies that is neither too few nor too many."""
        return self.promised + self.extra_copies

    @property
    def stale(self) -> tuple[str, ...]:
        """The members that are not in sync."""
        return tuple(member for member in self.members if member not in self.in_sync)

    @property
    def replicated(self) -> bool:
        """Whether the volume has, had or is to have more than one copy: then its Stores must know its membership."""
        return self.epoch > 1 or len(self.in_sync) > 1 or self.promised > 1

    def weight_of(self, store_id: str) -> float:
        """Return the read weight of a copy; one that was given none gets the mean of those in sync that were."""
        weight = self.weights.get(store_id)
        if weight is not None:
            return weight
        given = [self.weights[member] for member in self.in_sync if member in self.weights]
        return sum(given) / len(given) if given else EQUAL_WEIGHT

    def _weights_of_members(self) -> dict[str, float]:
        """A copy that is given up loses its weight: one that is made in its place is another one."""
        return {store_id: weight for store_id, weight in self.weights.items() if store_id in self.members}

    def pack(self) -> Value:
        """Return the value for the storage."""
        return {
            "uuid": self.uuid,
            "replication": self.replication,
            "epoch": self.epoch,
            "primary": self.primary,
            "inSync": list(self.in_sync),
            "state": self.state,
            "createdMs": self.created_ms,
            "maxBytes": self.max_bytes,
            "sizeBytes": self.size_bytes,
            "liveBytes": self.live_bytes,
            "liveCount": self.live_count,
            "members": list(self.members),
            "degradedSinceMs": self.degraded_since_ms,
            **({} if self.generation is None else {"generation": self.generation}),
            **({"extraCopies": self.extra_copies} if self.extra_copies else {}),
            **({"mark": self.mark} if self.mark else {}),
            **({"weights": weights} if (weights := self._weights_of_members()) else {}),
        }

    @classmethod
    def unpack(cls, volume: int, value: Value) -> VolumeRecord:
        """Return the record that :meth:`pack` made; what format 1 did not have is filled in."""
        in_sync = tuple(value["inSync"])
        return cls(
            volume=volume,
            uuid=value["uuid"],
            replication=value["replication"],
            epoch=value["epoch"],
            primary=value["primary"],
            in_sync=in_sync,
            state=value["state"],
            created_ms=value["createdMs"],
            max_bytes=value["maxBytes"],
            size_bytes=value["sizeBytes"],
            live_bytes=value["liveBytes"],
            live_count=value["liveCount"],
            members=tuple(value.get("members", in_sync)),
            degraded_since_ms=value.get("degradedSinceMs", 0),
            generation=value.get("generation"),
            extra_copies=value.get("extraCopies", 0),
            mark=value.get("mark", ""),
            weights=value.get("weights", {}),
        )


@dataclass(frozen=True, slots=True)
class MarkRecord:
    """What the operator has decided about a Store.

    Parameters
    ----------
    mark: one of :data:`MARKS`.
    since_ms: unix time in milliseconds of the decision.
    folders: ids of data folders that are being drained, with the time of that decision.
    """

    mark: str = "none"
    since_ms: int = 0
    folders: tuple[tuple[str, int], ...] = ()

    @property
    def takes_new(self) -> bool:
        """Whether the Store takes new volumes and photos, in folders that are not marked."""
        return self.mark == "none"

    def draining(self, folder: str) -> bool:
        """Say whether copies in this folder are to be made elsewhere."""
        return self.mark == "draining" or any(folder == marked for marked, _ in self.folders)

    def pack(self) -> Value:
        """Return the value for the storage."""
        return {"mark": self.mark, "sinceMs": self.since_ms, "folders": [list(row) for row in self.folders]}

    @classmethod
    def unpack(cls, value: Value) -> MarkRecord:
        """Return the record that :meth:`pack` made."""
        return cls(value["mark"], value["sinceMs"], tuple((folder, since) for folder, since in value["folders"]))


MARKS = ("none", "readonly", "maintenance", "draining", "removed")
"""readonly: no new volumes and photos. maintenance: the same, and its silence starts no repair. draining: its copies
are made elsewhere, then given up. removed: gone for good."""

NO_MARK = MarkRecord()


@dataclass(frozen=True, slots=True)
class HeldVolume:
    """What a snapshot has of a volume: the bytes below ``end`` of one generation.

    ``lost``: the volume was compacted without regard to the snapshot; what it held cannot be told any more.
    """

    uuid: str
    generation: int
    end: int
    lost: bool = False


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """A snapshot that is held. The copy of the Directory's storage that belongs to it is a file.

    Parameters
    ----------
    created_ms: unix time in milliseconds when the copy of the storage was begun.
    expires_ms: when it is given up by itself; 0: never.
    size_bytes, checksum: of the copy (xxh3-64, hex).
    volumes: by id; exactly those that the copy names.
    """

    name: str
    created_ms: int
    expires_ms: int
    size_bytes: int
    checksum: str
    volumes: dict[int, HeldVolume]

    def pack(self) -> Value:
        """Return the value for the storage."""
        volumes = {volume: [one.uuid, one.generation, one.end, one.lost] for volume, one in self.volumes.items()}
        return {
            "createdMs": self.created_ms,
            "expiresMs": self.expires_ms,
            "sizeBytes": self.size_bytes,
            "checksum": self.checksum,
            "volumes": volumes,
        }

    @classmethod
    def unpack(cls, name: str, value: Value) -> SnapshotRecord:
        """Return the record that :meth:`pack` made."""
        return cls(
            name,
            value["createdMs"],
            value["expiresMs"],
            value["sizeBytes"],
            value["checksum"],
            {volume: HeldVolume(*row) for volume, row in value["volumes"].items()},
        )


@dataclass(frozen=True, slots=True)
class Rendition:
    """One stored picture of a photo: size in bytes, xxh3-64 of its needle, time of storing (unix, ms), end (unix, s).

    An end of 0 means that there is none.
    """

    size_bytes: int
    checksum: int
    time_ms: int
    expires: int = 0

    def pack(self) -> Value:
        """Return the value for the storage, as older releases wrote it when there is no end."""
        row = [self.size_bytes, self.checksum, self.time_ms]
        return [*row, self.expires] if self.expires else row


@dataclass(frozen=True, slots=True)
class PhotoRecord:
    """Where a photo lies, and its renditions by alternate key."""

    volume: int
    cookie: int
    renditions: dict[int, Rendition] = field(default_factory=dict)

    def pack(self) -> Value:
        """Return the value for the storage."""
        return [self.volume, self.cookie, {alternate: one.pack() for alternate, one in self.renditions.items()}]

    def at(self, now_seconds: float) -> PhotoRecord | None:
        """Return the record without the renditions that have expired by then; None when no other is left."""
        current = {
            alternate: one for alternate, one in self.renditions.items() if not one.expires or now_seconds < one.expires
        }
        return PhotoRecord(self.volume, self.cookie, current) if current else None

    @classmethod
    def unpack(cls, value: Value) -> PhotoRecord:
        """Return the record that :meth:`pack` made."""
        volume, cookie, renditions = value
        return cls(volume, cookie, {alternate: Rendition(*row) for alternate, row in renditions.items()})
