"""The Directory's transactions: functions of a :class:`~directory.storage.interface.Draft`, run by the committer.

They only read and change the draft, so they may be run again when the storage reports a conflict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from uuid import uuid4

from directory.decisions.confirmations import Effect, apply_needles
from directory.decisions.membership import Standing, admit, worth_writing
from directory.decisions.spreading import checked_weights
from directory.errors import MembershipConflict, NotPossibleNow
from directory.messages import STORED, Confirmation, Registration, StoreDocument, VolumeDocument
from directory.storage.interface import Draft, Put, Storage, Table, Value
from directory.storage.tables import (
    FORMAT_VERSION,
    META_CLUSTER,
    META_FORMAT,
    META_NEXT_VOLUME,
    OLDER_FORMATS,
    PhotoRecord,
    VolumeRecord,
    confirmed_key,
    expired_key,
    expiry_key,
    parse_expiry_key,
    photo_key,
    volume_key,
)
from haystack.errors import FolderError, InvalidRequest, VolumeNotFound
from haystack.fid import MAX_VOLUME_ID

VOLUME_LOSS_MARGIN = 10_000
"""Distance kept from a reported volume id that the reservations do not account for: Stores that have not reported yet
may hold higher ones."""


@dataclass(frozen=True, slots=True)
class Admission:
    """What a Store's report came to: records that changed, what its copies are, warnings for the operator.

    ``shrunk``: volumes whose copy here has lost its end, while there are others in sync.
    """

    records: tuple[VolumeRecord, ...]
    standings: dict[int, Standing]
    warnings: dict[int, str]
    shrunk: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Confirmed:
    """How far the Directory knows a volume now, and what the needles did; no effect when they were not applied."""

    confirmed_to: int
    effect: Effect | None


def prepare(storage: Storage) -> str:
    """Return the cluster's id, made now if the storage is new.

    Raises
    ------
    FolderError: the storage is of a format that this release does not know.
    """
    known = storage.get(Table.META, META_FORMAT)
    if known is not None and known.value in OLDER_FORMATS:
        storage.commit([Put(Table.META, META_FORMAT, known.version, FORMAT_VERSION)])
    elif known is not None and known.value != FORMAT_VERSION:
        raise FolderError(
            f"the Directory's storage has format {known.value}, this release knows {FORMAT_VERSION}: use the release "
            "that wrote it"
        )
    if known is None:
        draft = Draft(storage)
        draft.put(Table.META, META_FORMAT, FORMAT_VERSION)
        draft.put(Table.META, META_CLUSTER, {"id": str(uuid4()), "joined": False})
        storage.commit(draft.changes())
    cluster = storage.get(Table.META, META_CLUSTER)
    if cluster is None:
        raise FolderError("the Directory's storage lacks the cluster's id: restore it from a backup")
    cluster_id: str = cluster.value["id"]
    return cluster_id


def register(
    draft: Draft, message: Registration, abandoned: frozenset[int], may_have_shrunk: frozenset[int], now_ms: int
) -> tuple[str, Admission]:
    """Write down a Store and its volumes. Returns the cluster's id and what its copies are.

    Parameters
    ----------
    abandoned: volumes whose members have lost them.
    may_have_shrunk: volumes that may have lost their end since they were confirmed.

    Raises
    ------
    MembershipConflict: the Store belongs to another cluster.
    """
    cluster_id = _join(draft, message.store)
    store_id = message.store.store_id
    draft.put(Table.STORES, store_id.encode(), asdict(message.store))
    return cluster_id, admit_all(draft, store_id, message.volumes, abandoned, may_have_shrunk, now_ms)


def admit_all(
    draft: Draft,
    store_id: str,
    volumes: Sequence[VolumeDocument],
    abandoned: frozenset[int],
    may_have_shrunk: frozenset[int],
    now_ms: int,
) -> Admission:
    """Judge the copies that a Store reports, and write down what changes by it. Parameters as of :func:`register`."""
    records: list[VolumeRecord] = []
    standings: dict[int, Standing] = {}
    warnings: dict[int, str] = {}
    shrunk: set[int] = set()
    for volume in volumes:
        key = volume_key(volume.volume)
        packed = draft.get(Table.VOLUMES, key)
        known = VolumeRecord.unpack(volume.volume, packed) if packed is not None else None
        verdict = admit(known, volume, store_id, abandoned=volume.volume in abandoned, now_ms=now_ms)
        if worth_writing(known, verdict.record):
            draft.put(Table.VOLUMES, key, verdict.record.pack())
        records.append(verdict.record)
        standings[volume.volume] = verdict.standing
        if verdict.standing in (Standing.EXTRA, Standing.CONFLICT):
            warnings[volume.volume] = misfit_in_words(verdict.record, volume, store_id, verdict.standing)
        elif verdict.standing is Standing.MEMBER and volume.volume in may_have_shrunk:
            alone = len(verdict.record.in_sync) == 1
            if warning := _lost_end(draft, volume, alone=alone):
                warnings[volume.volume] = warning
                if not alone:
                    shrunk.add(volume.volume)
    _reserve_above(draft, max((volume.volume for volume in volumes), default=0))
    return Admission(tuple(records), standings, warnings, frozenset(shrunk))


def misfit_in_words(record: VolumeRecord, volume: VolumeDocument, store_id: str, standing: Standing) -> str:
    """Return for the operator why a copy is not used, and what to do."""
    if standing is Standing.CONFLICT:
        return (
            f"volume {volume.volume} on Store {store_id} (uuid {volume.uuid}) is not the volume {volume.volume} of "
            f"this cluster (uuid {record.uuid}, on Store {record.primary}); it is not used: move its file away, or "
            "bring it to the cluster that it belongs to"
        )
    return (
        f"volume {volume.volume} on Store {store_id} is an extra copy; Store {record.primary} has the one in use, and "
        "this one is not kept up to date: move its file away"
    )


def _join(draft: Draft, store: StoreDocument) -> str:
    """Return the cluster's id; the first Store that ever registers may bring it along."""
    cluster: Value = draft.get(Table.META, META_CLUSTER)
    cluster_id: str = cluster["id"]
    if not cluster["joined"]:
        cluster_id = store.cluster_id or cluster_id
        draft.put(Table.META, META_CLUSTER, {"id": cluster_id, "joined": True})
    elif store.cluster_id not in (None, cluster_id):
        raise MembershipConflict(
            f"Store {store.store_id} at {store.url} belongs to cluster {store.cluster_id}, this Directory to cluster "
            f"{cluster_id}: point the Store to its own Directory, or give it an empty data folder"
        )
    return cluster_id


def _lost_end(draft: Draft, volume: VolumeDocument, *, alone: bool) -> str:
    """Say whether a copy has become shorter than what was confirmed of it: a warning, or nothing.

    If it is the only one, it is forgotten how far it was confirmed.
    """
    key = confirmed_key(volume.volume, volume.generation)
    confirmed_to: int = draft.get(Table.CONFIRMED, key) or 0
    if volume.state not in ("writable", "readonly") or confirmed_to <= volume.size_bytes:
        return ""
    what = f"volume {volume.volume} has {volume.size_bytes} bytes, but {confirmed_to} were confirmed: its end was lost"
    if not alone:
        return f"{what}; it is brought up to the other copies"
    draft.put(Table.CONFIRMED, key, 0)
    return f"{what}, or an old copy was put back; all of it will be confirmed again"


def _reserve_above(draft: Draft, volume_id: int) -> None:
    """Never hand out a volume id that a Store reports, though it was not reserved: the reservations were lost."""
    if volume_id >= (draft.get(Table.META, META_NEXT_VOLUME) or 1):
        draft.put(Table.META, META_NEXT_VOLUME, min(volume_id + VOLUME_LOSS_MARGIN, MAX_VOLUME_ID) + 1)


def confirm(draft: Draft, message: Confirmation) -> Confirmed:
    """Take the needles of a volume into the map of photos, and move the volume's offset in the same transaction.

    Raises
    ------
    VolumeNotFound: the volume was never registered.
    MembershipConflict: the Store is not the primary, or not under this epoch.
    """
    packed = draft.get(Table.VOLUMES, volume_key(message.volume))
    if packed is None:
        raise VolumeNotFound(f"volume {message.volume} is not known: its Store must register first")
    if message.store_id != packed["primary"]:
        raise MembershipConflict(
            f"Store {message.store_id} cannot confirm needles of volume {message.volume}: "
            + ("its primary does that" if message.store_id in packed["inSync"] else "its copy is not in use")
        )
    if message.epoch not in (None, packed["epoch"]):
        raise MembershipConflict(
            f"volume {message.volume} is confirmed under epoch {message.epoch}, but {packed['epoch']} is in force"
        )
    key = confirmed_key(message.volume, message.generation)
    known_to: int = draft.get(Table.CONFIRMED, key) or 0
    if message.begin > known_to or message.end <= known_to:
        return Confirmed(known_to, None)

    def lookup(photo_id: int) -> PhotoRecord | None:
        value = draft.get(Table.PHOTOS, photo_key(photo_id))
        return PhotoRecord.unpack(value) if value is not None else None

    effect = apply_needles(message.volume, message.needles, lookup)
    for photo_id, photo in effect.photos.items():
        if photo is None:
            draft.delete(Table.PHOTOS, photo_key(photo_id))
        else:
            draft.put(Table.PHOTOS, photo_key(photo_id), photo.pack())
    for needle in message.needles:
        if needle.expires and needle.kind == STORED:
            draft.put(Table.EXPIRIES, expiry_key(needle.expires, needle.key), 1)
    draft.put(Table.CONFIRMED, key, message.end)
    return Confirmed(message.end, effect)


def drop_expired(draft: Draft, due: Iterable[bytes], now_seconds: float) -> dict[int, int]:
    """Remove renditions that have expired; returns the bytes that wait for a compaction now, by volume.

    Parameters
    ----------
    due: keys of table ``expiries`` that name a second which is over. A photo that was replaced meanwhile stays.
    """
    more: Counter[int] = Counter()
    for key in due:
        _, photo_id = parse_expiry_key(key)
        value = draft.get(Table.PHOTOS, photo_key(photo_id))
        if value is not None:
            before = PhotoRecord.unpack(value)
            after = before.at(now_seconds)
            left = after.renditions if after is not None else {}
            more[before.volume] += sum(one.size_bytes for alt, one in before.renditions.items() if alt not in left)
            if after is None:
                draft.delete(Table.PHOTOS, photo_key(photo_id))
            elif after != before:
                draft.put(Table.PHOTOS, photo_key(photo_id), after.pack())
        draft.delete(Table.EXPIRIES, key)
    expired = {}
    for volume, size_bytes in more.items():
        if size_bytes:
            key = expired_key(volume)
            expired[volume] = size_bytes + (draft.get(Table.META, key) or 0)
            draft.put(Table.META, key, expired[volume])
    return expired


def volume_made(draft: Draft, record: VolumeRecord) -> VolumeRecord:
    """Write down a volume that Stores have just made, and return its record.

    The report of a Store may have been faster. The record that was made of it stays, unless it was made of one of
    several copies: nobody was given a place in that volume yet.
    """
    known = draft.get(Table.VOLUMES, volume_key(record.volume))
    if known is not None:
        taken_in = VolumeRecord.unpack(record.volume, known)
        if taken_in.uuid != record.uuid or taken_in.epoch >= record.epoch:
            return taken_in
    draft.put(Table.VOLUMES, volume_key(record.volume), record.pack())
    return record


def set_weights(
    draft: Draft, volume: int, weights: Mapping[str, float], expected: Mapping[str, float] | None
) -> VolumeRecord:
    """Write down read weights, and return the record. Raises VolumeNotFound, InvalidRequest, NotPossibleNow."""
    packed = draft.get(Table.VOLUMES, volume_key(volume))
    if packed is None:
        raise VolumeNotFound(f"volume {volume} is not known; see `haystack volume list`")
    record = VolumeRecord.unpack(volume, packed)
    if expected is not None and record.weights != expected:
        raise NotPossibleNow(f"volume {volume}: its read weights were changed meanwhile; look at them and try again")
    record = replace(record, weights=checked_weights(record, weights))
    draft.put(Table.VOLUMES, volume_key(volume), record.pack())
    return record


def reserve_volume_ids(draft: Draft, count: int) -> range:
    """Reserve volume ids for ever, whatever becomes of them. Raises InvalidRequest when they are used up."""
    first = draft.get(Table.META, META_NEXT_VOLUME) or 1
    if first + count - 1 > MAX_VOLUME_ID:
        raise InvalidRequest("the volume ids of this cluster are used up; no volume can be added")
    draft.put(Table.META, META_NEXT_VOLUME, first + count)
    return range(first, first + count)
