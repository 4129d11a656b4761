"""What Stores send to the Directory, read from JSON into typed documents and checked field by field.

Unknown fields are left aside, so that a newer Store can talk to an older Directory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from directory.fields import HEX64, MAX_NUMBER, MAX_U32, Fields
from directory.heat.messages import NO_REPORT, HeatReport, parse_heat
from directory.settings import MAX_FOLDERS_PER_STORE, MAX_NEEDLES_PER_CONFIRMATION, MAX_VOLUMES_PER_STORE
from haystack.errors import InvalidRequest
from haystack.fid import MAX_ALTERNATE, MAX_VOLUME_ID

MAX_MEMBERS = 64
MAX_SERVICES = 16

FOLDER_STATES = ("ok", "full", "failed")
FOLLOW_STATES = ("running", "done", "failed")
VOLUME_STATES = ("recovering", "writable", "readonly", "failed")

STORED, DELETED = 0, 1

_SERVICE = re.compile(r"[a-z][a-z0-9_-]{0,29}")
_REPLICATION = re.compile(r"[0-9]{3}")


@dataclass(frozen=True, slots=True)
class FolderDocument:
    """One data folder of a Store, sizes in bytes."""

    id: str
    path: str
    total_bytes: int
    free_bytes: int
    state: str
    error: str


@dataclass(frozen=True, slots=True)
class VolumeDocument:
    """One physical volume as its Store reports it.

    Parameters
    ----------
    epoch, primary, in_sync: the membership that the Store knows; no primary when it knows none.
    stale: the Store does not count this copy as one that has every acknowledged byte.
    """

    volume: int
    uuid: str
    generation: int
    epoch: int
    folder: str
    state: str
    reason: str
    size_bytes: int
    max_bytes: int
    live_count: int
    live_bytes: int
    deleted_count: int
    deleted_bytes: int
    max_key: int
    reads: int
    writes: int
    replication: str
    last_append_ms: int
    primary: str | None = None
    in_sync: tuple[str, ...] = ()
    stale: bool = False


@dataclass(frozen=True, slots=True)
class StoreDocument:
    """A Store's identity and addresses, as registered. Volumes and folders come beside it.

    ``services``: other servers of its machine, name → address; handed on as they are.
    """

    store_id: str
    cluster_id: str | None
    url: str
    public_url: str
    admin_url: str
    data_center: str
    rack: str
    version: str
    started_ms: int
    workers: int
    services: dict[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Registration:
    """All that a Store says of itself."""

    store: StoreDocument
    folders: tuple[FolderDocument, ...]
    volumes: tuple[VolumeDocument, ...]


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What changed at a Store since its last message."""

    store_id: str
    sequence: int
    folders: tuple[FolderDocument, ...]
    volumes: tuple[VolumeDocument, ...]
    removed: tuple[int, ...]
    heat: HeatReport = NO_REPORT


@dataclass(frozen=True, slots=True)
class Needle:
    """One needle of a confirmation.

    ``kind``: :data:`STORED` or :data:`DELETED`. ``expires``: its end, seconds since 1970; 0 when it has none.
    """

    key: int
    alternate: int
    cookie: int
    size_bytes: int
    checksum: int
    time_ms: int
    kind: int
    expires: int = 0


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The needles of a volume's bytes ``begin`` … ``end``, in their order.

    ``epoch``: of the membership under which the Store is primary; None when it does not say.
    """

    store_id: str
    volume: int
    generation: int
    begin: int
    end: int
    needles: tuple[Needle, ...]
    epoch: int | None = None


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What a primary reports of copies that it could not reach, or asks (no suspects)."""

    store_id: str
    volume: int
    epoch: int
    suspects: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class FollowState:
    """How far a Store is with copying what it lacks of a volume."""

    state: str
    copied_bytes: int
    total_bytes: int
    error: str


@dataclass(frozen=True, slots=True)
class VolumeTail:
    """How far a copy of a volume is: durable up to ``tail``, and the same as all others below ``committed``."""

    uuid: str
    generation: int
    tail: int
    committed: int


def parse_registration(document: Any) -> Registration:
    """Read a Store document. Raises InvalidRequest."""
    fields = Fields(document, "registration")
    store = StoreDocument(
        store_id=fields.uuid("storeId"),
        cluster_id=fields.uuid("clusterId") if fields.has("clusterId") else None,
        url=fields.address("url"),
        public_url=fields.public_address("publicUrl"),
        admin_url=fields.address("adminUrl"),
        data_center=fields.text("dataCenter", "default"),
        rack=fields.text("rack", "default"),
        version=fields.text("version", ""),
        started_ms=fields.number("startedMs", default=0),
        workers=fields.number("workers", default=0),
        services=_services(fields),
    )
    return Registration(store, _folders(fields), _volumes(fields))


def _services(fields: Fields) -> dict[str, str]:
    found: Any = fields.value("services", None) or {}
    if not isinstance(found, dict) or len(found) > MAX_SERVICES:
        raise fields.wrong("services", f"an object of at most {MAX_SERVICES} addresses", found)
    named = Fields(found, "registration: services")
    return {name: named.public_address(name) for name in found if _SERVICE.fullmatch(name)}


def parse_heartbeat(document: Any) -> Heartbeat:
    """Read a heartbeat. Raises InvalidRequest."""
    fields = Fields(document, "heartbeat")
    removed = fields.items("removed", MAX_VOLUMES_PER_STORE)
    if not all(type(volume) is int for volume in removed):
        raise fields.wrong("removed", "a list of volume ids", removed)
    return Heartbeat(
        store_id=fields.uuid("storeId"),
        sequence=fields.number("sequence"),
        folders=_folders(fields),
        volumes=_volumes(fields),
        removed=tuple(removed),
        heat=parse_heat(Fields(document["heat"], "heartbeat: heat")) if fields.has("heat") else NO_REPORT,
    )


def parse_volume(document: Any) -> VolumeDocument:
    """Read a volume document. Raises InvalidRequest."""
    fields = Fields(document, "volume document")
    volume = fields.number("volume", MAX_VOLUME_ID)
    if volume == 0:
        raise fields.wrong("volume", f"1 … {MAX_VOLUME_ID}", volume)
    return VolumeDocument(
        volume=volume,
        uuid=fields.uuid("uuid"),
        generation=fields.number("generation"),
        epoch=fields.number("epoch", default=1),
        folder=fields.text("folder"),
        state=fields.one_of("state", VOLUME_STATES),
        reason=fields.text("reason", ""),
        size_bytes=fields.number("sizeBytes"),
        max_bytes=fields.number("maxBytes"),
        live_count=fields.number("liveCount", default=0),
        live_bytes=fields.number("liveBytes", default=0),
        deleted_count=fields.number("deletedCount", default=0),
        deleted_bytes=fields.number("deletedBytes", default=0),
        max_key=fields.hex64("maxKey", "0"),
        reads=fields.number("reads", default=0),
        writes=fields.number("writes", default=0),
        replication=fields.matching("replication", _REPLICATION, "three digits", default="000"),
        last_append_ms=fields.number("lastAppendMs", default=0),
        primary=fields.uuid("primary") if fields.has("primary") else None,
        in_sync=fields.uuids("inSync", MAX_MEMBERS),
        stale=fields.flag("stale"),
    )


def parse_confirmation(document: Any) -> Confirmation:
    """Read a confirmation. Raises InvalidRequest."""
    fields = Fields(document, "confirmation")
    begin, end = fields.number("from"), fields.number("to")
    if end < begin:
        raise fields.wrong("to", f"at least 'from' ({begin})", end)
    return Confirmation(
        store_id=fields.uuid("storeId"),
        volume=fields.number("volume", MAX_VOLUME_ID),
        generation=fields.number("generation"),
        begin=begin,
        end=end,
        needles=tuple(_needle(row) for row in fields.items("needles", MAX_NEEDLES_PER_CONFIRMATION)),
        epoch=fields.number("epoch") if fields.has("epoch") else None,
    )


def parse_suspicion(document: Any, volume: int) -> Suspicion:
    """Read what a primary says of other copies of a volume. Raises InvalidRequest."""
    fields = Fields(document, "suspicion")
    return Suspicion(
        store_id=fields.uuid("storeId"),
        volume=volume,
        epoch=fields.number("epoch"),
        suspects=fields.uuids("suspects", MAX_MEMBERS),
        reason=fields.text("reason", ""),
    )


def parse_follow(document: Any) -> FollowState:
    """Read a Store's answer to an order to follow. Raises InvalidRequest."""
    fields = Fields(document, "follow")
    return FollowState(
        state=fields.one_of("state", FOLLOW_STATES),
        copied_bytes=fields.number("copiedBytes", default=0),
        total_bytes=fields.number("totalBytes", default=0),
        error=fields.text("error", ""),
    )


def parse_tail(document: Any) -> VolumeTail:
    """Read a Store's answer to a question for a volume's tail. Raises InvalidRequest."""
    fields = Fields(document, "tail")
    return VolumeTail(
        uuid=fields.uuid("uuid"),
        generation=fields.number("generation"),
        tail=fields.number("tail"),
        committed=fields.number("committed"),
    )


def _needle(row: Any) -> Needle:
    try:
        key, alternate, cookie, size_bytes, checksum, time_ms, kind, expires = row if len(row) != 7 else (*row, 0)
        if (
            HEX64.fullmatch(key)
            and HEX64.fullmatch(cookie)
            and HEX64.fullmatch(checksum)
            and type(alternate) is int
            and 0 <= alternate <= MAX_ALTERNATE
            and type(size_bytes) is int
            and 0 <= size_bytes <= MAX_NUMBER
            and type(time_ms) is int
            and 0 <= time_ms <= MAX_NUMBER
            and kind in (STORED, DELETED)
            and type(expires) is int
            and 0 <= expires <= MAX_U32
        ):
            return Needle(
                int(key, 16), alternate, int(cookie, 16), size_bytes, int(checksum, 16), time_ms, kind, expires
            )
    except (TypeError, ValueError):
        pass  # the complaint is the same for a row of the wrong shape and for a wrong value in it
    raise InvalidRequest(
        "confirmation: a needle must be [key hex, alternate, cookie hex, size, checksum hex, time_ms, kind 0 or 1], "
        "and may have its end in seconds behind that, "
        f"got {str(row)[:200]!r}"
    )


def _folders(fields: Fields) -> tuple[FolderDocument, ...]:
    return tuple(_folder(item) for item in fields.items("folders", MAX_FOLDERS_PER_STORE))


def _folder(document: Any) -> FolderDocument:
    fields = Fields(document, "folder document")
    return FolderDocument(
        id=fields.text("id"),
        path=fields.text("path"),
        total_bytes=fields.number("totalBytes"),
        free_bytes=fields.number("freeBytes"),
        state=fields.one_of("state", FOLDER_STATES),
        error=fields.text("error", ""),
    )


def _volumes(fields: Fields) -> tuple[VolumeDocument, ...]:
    return tuple(parse_volume(item) for item in fields.items("volumes", MAX_VOLUMES_PER_STORE))
