"""New memberships: what becomes of a volume's record when copies are lost, come in, or are given up.

Invariants of every function here: the primary is one of the in-sync set; only a member of the in-sync set becomes
primary (but for :func:`resurrected`); the last one in sync is never removed; whenever primary or in-sync set change,
the epoch is a higher one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Set
from dataclasses import replace

from directory.storage.tables import VolumeRecord


def without(
    record: VolumeRecord,
    lost: Collection[str],
    *,
    ready: Callable[[str], bool],
    tails: Mapping[str, int],
    led: Mapping[str, int],
    now_ms: int,
) -> VolumeRecord:
    """Return the record without ``lost`` in the in-sync set; the same record when nothing can be done.

    Parameters
    ----------
    lost: Stores that cannot be counted on.
    ready: says whether a Store may lead: it is there. Without one of those that stay being ready nothing is changed:
        who comes back first decides.
    tails: bytes of the copies, as far as they are known. led: how many volumes each Store leads.
    """
    staying = tuple(member for member in record.in_sync if member not in lost)
    if len(staying) == len(record.in_sync) or not any(ready(member) for member in staying):
        return record
    primary = record.primary
    if primary not in staying:
        primary = choose_primary([member for member in staying if ready(member)], tails, led)
    return tidy(replace(record, epoch=record.epoch + 1, primary=primary, in_sync=staying), now_ms)


def choose_primary(candidates: Collection[str], tails: Mapping[str, int], led: Mapping[str, int]) -> str:
    """Return the one with the longest tail, then the one that leads fewest volumes. There must be one."""
    return min(candidates, key=lambda member: (-tails.get(member, 0), led.get(member, 0), member))


def admitted(record: VolumeRecord, store_id: str, *, gone: Collection[str], now_ms: int) -> VolumeRecord:
    """Return the record with a copy in the in-sync set that has all bytes now.

    Parameters
    ----------
    gone: Stores that are not there. Once the promised number is in sync, they are waited for no longer: stale members
        among them are no members any more.
    """
    in_sync = (*record.in_sync, store_id) if store_id not in record.in_sync else record.in_sync
    members = record.members
    if len(in_sync) >= record.promised:
        members = tuple(member for member in members if member in in_sync or member not in gone)
    members = in_sync + tuple(member for member in members if member not in in_sync)
    return tidy(_bounded(replace(record, epoch=record.epoch + 1, in_sync=in_sync, members=members)), now_ms)


def given_up(
    record: VolumeRecord, store_id: str, *, tails: Mapping[str, int], led: Mapping[str, int], now_ms: int
) -> VolumeRecord:
    """Return the record in which a copy does not count any more; it stays a member until its file is gone.

    The same record when it does not count already, or is the last.
    """
    staying = tuple(member for member in record.in_sync if member != store_id)
    if not staying or store_id not in record.in_sync:
        return record
    primary = record.primary if record.primary in staying else choose_primary(staying, tails, led)
    after = tidy(replace(record, epoch=record.epoch + 1, primary=primary, in_sync=staying), now_ms)
    return _bounded(after, len(after.members) - 1)


def forgotten(record: VolumeRecord, store_id: str) -> VolumeRecord:
    """Return the record without a member that is not in sync; the same record when it is in sync."""
    if store_id in record.in_sync:
        return record
    return _bounded(replace(record, members=tuple(member for member in record.members if member != store_id)))


def with_extras(record: VolumeRecord) -> VolumeRecord:
    """Return the record in which all copies that are in sync are wanted."""
    return replace(record, extra_copies=max(0, len(record.in_sync) - record.promised))


def _bounded(record: VolumeRecord, copies: int | None = None) -> VolumeRecord:
    """Return the record with no more copies wanted than its members, or ``copies``, can be."""
    most = max(0, (len(record.members) if copies is None else copies) - record.promised)
    return record if record.extra_copies <= most else replace(record, extra_copies=most)


def raised(record: VolumeRecord, known_epoch: int) -> VolumeRecord:
    """Return the same membership under an epoch above the record's and above one that somebody knows."""
    return replace(record, epoch=max(record.epoch, known_epoch) + 1)


def rolled_back(record: VolumeRecord, found: Mapping[str, tuple[int, int]]) -> VolumeRecord:
    """Return the record with the generation that the files really have, when no copy in sync came to the next one.

    Nothing was acknowledged in that: it takes the word of all copies in sync, and they cannot give it.

    Parameters
    ----------
    found: by Store, the epoch of the membership that it could not take, and the generation of its file.
    """
    refused = [found.get(member, (0, 0)) for member in record.in_sync]
    if any(epoch != record.epoch for epoch, _ in refused) or found[record.primary][1] == record.generation:
        return record
    return replace(record, epoch=record.epoch + 1, generation=found[record.primary][1])


def resurrected(record: VolumeRecord, store_id: str, now_ms: int) -> VolumeRecord:
    """Return the record with a stale copy as the only one in sync. What only the lost ones had is given up by it.

    Only for an operator who has said so.
    """
    return tidy(replace(record, epoch=record.epoch + 1, primary=store_id, in_sync=(store_id,)), now_ms)


def tidy(record: VolumeRecord, now_ms: int) -> VolumeRecord:
    """Return the record with members and the time of its degradation as they follow from the in-sync set."""
    members = record.in_sync + tuple(member for member in record.members if member not in record.in_sync)
    degraded_since_ms = 0
    if len(record.in_sync) < record.promised:
        degraded_since_ms = record.degraded_since_ms or max(now_ms, 1)
    return replace(record, members=members, degraded_since_ms=degraded_since_ms)


def suspected(record: VolumeRecord, reporter: str, epoch: int, suspects: Set[str], now_ms: int) -> VolumeRecord:
    """Return the record after a report of copies that cannot be reached; the same record when it is not believed.

    Only the primary of the epoch in force is believed, and not about itself. A suspect that is not in sync makes a new
    epoch too: the primary may have waited for it as a learner, and was about to be told that it counts.
    """
    if reporter != record.primary or epoch != record.epoch or not suspects - {reporter}:
        return record
    staying = tuple(member for member in record.in_sync if member == reporter or member not in suspects)
    return tidy(replace(record, epoch=record.epoch + 1, in_sync=staying), now_ms)
