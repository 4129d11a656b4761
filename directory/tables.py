"""Keys and values of the Directory's tables, and the records that they hold.

=========  ==========================================  ==============================================================
table      key                                         value
=========  ==========================================  ==============================================================
meta       text                                        see the constants below
stores     the Store's uuid, text                      the Store document as registered, without its volumes
volumes    volume id, 4 bytes                          dict, see :class:`VolumeRecord`
photos     photo id, 8 bytes                           [volume, cookie, {alternate: [size, checksum, time_ms]}]
confirmed  volume id, 4 bytes; generation, 8 bytes     offset up to which the Directory knows the volume's needles
=========  ==========================================  ==============================================================

Numbers in keys are big-endian, so that the order of the keys is the order of the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from directory.storage import Value

FORMAT_VERSION = 1

META_FORMAT = b"format"
"""The format version of the whole storage; another one is refused."""

META_CLUSTER = b"cluster"
"""{"id": uuid, "joined": whether a Store ever registered}. Before that the id may still be taken over from a Store."""

META_NEXT_VOLUME = b"next_volume"
"""The lowest volume id that was never reserved."""


def ids_key(index: int, count: int) -> bytes:
    """Return the meta key of one id sequence's reservation; the value is the lowest id that is not reserved."""
    return f"{IDS_PREFIX}{index}/{count}".encode()


IDS_PREFIX = "ids."


def volume_key(volume: int) -> bytes:
    """Return the key of table ``volumes``."""
    return volume.to_bytes(4, "big")


def photo_key(photo_id: int) -> bytes:
    """Return the key of table ``photos``."""
    return photo_id.to_bytes(8, "big")


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
    state: as the primary reported it last.
    created_ms: unix time in milliseconds.
    max_bytes: size limit; None when the Store's own was to be taken and is not known yet.
    size_bytes, live_bytes, live_count: as last written down. The current ones are in memory only: they change all the
        time, and each Store reports them with its registration.
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
        }

    @classmethod
    def unpack(cls, volume: int, value: Value) -> VolumeRecord:
        """Return the record that :meth:`pack` made."""
        return cls(
            volume=volume,
            uuid=value["uuid"],
            replication=value["replication"],
            epoch=value["epoch"],
            primary=value["primary"],
            in_sync=tuple(value["inSync"]),
            state=value["state"],
            created_ms=value["createdMs"],
            max_bytes=value["maxBytes"],
            size_bytes=value["sizeBytes"],
            live_bytes=value["liveBytes"],
            live_count=value["liveCount"],
        )


@dataclass(frozen=True, slots=True)
class Rendition:
    """One stored picture of a photo: size in bytes, xxh3-64 of its needle, time of storing (unix, ms)."""

    size_bytes: int
    checksum: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class PhotoRecord:
    """Where a photo lies, and its renditions by alternate key."""

    volume: int
    cookie: int
    renditions: dict[int, Rendition] = field(default_factory=dict)

    def pack(self) -> Value:
        """Return the value for the storage."""
        renditions = {alternate: [r.size_bytes, r.checksum, r.time_ms] for alternate, r in self.renditions.items()}
        return [self.volume, self.cookie, renditions]

    @classmethod
    def unpack(cls, value: Value) -> PhotoRecord:
        """Return the record that :meth:`pack` made."""
        volume, cookie, renditions = value
        return cls(volume, cookie, {alternate: Rendition(*row) for alternate, row in renditions.items()})
