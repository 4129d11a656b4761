"""Does a physical volume that a Store reports belong to the logical volume of the same id?

- Unknown to the Directory: it is taken in with the membership that its Store knows (the Directory lost its disk, or the
  volume was copied in).
- Another uuid: it is another volume, whatever it holds; it is never used.
- A membership of a higher epoch than ours: the Directory lost its disk, or has an old backup; the highest epoch wins.
- The same uuid on a Store outside the in-sync set: a stale copy, not used, because it may lack needles and deletes.
- The same of a volume of one copy that never moved: an extra copy. When none of the members has its copy any more,
  though they are there to be asked, it takes their place under a new epoch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from directory.decisions.failure import tidy
from directory.messages import VolumeDocument
from directory.storage.tables import VolumeRecord


class Standing(Enum):
    """What a reported copy is; only a MEMBER is used."""

    MEMBER = "member"
    STALE = "stale"
    EXTRA = "extra"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The record of the logical volume from now on, and what the reported copy is."""

    record: VolumeRecord
    standing: Standing


def admit(
    record: VolumeRecord | None, reported: VolumeDocument, store_id: str, *, abandoned: bool, now_ms: int
) -> Verdict:
    """Judge one reported copy.

    Parameters
    ----------
    record: what the Directory knows of the volume id, None for nothing.
    reported: the copy.
    store_id: the Store that reports it.
    abandoned: all members have registered and none of them has the volume.
    now_ms: unix time, noted as the creation time of a volume that is taken in.
    """
    if record is None:
        record = _taken_in(reported, store_id, now_ms)
    if record.uuid != reported.uuid:
        return Verdict(record, Standing.CONFLICT)
    if reported.epoch > record.epoch and _knows_membership(reported):
        record = _with_reported_membership(record, reported, now_ms)
    if store_id not in record.in_sync:
        if record.replicated or reported.stale:
            return Verdict(_with_member(record, store_id), Standing.STALE)
        if not abandoned:
            return Verdict(record, Standing.EXTRA)
        record = replace(record, epoch=record.epoch + 1, primary=store_id, in_sync=(store_id,), members=(store_id,))
    if record.primary == store_id:
        record = replace(
            record,
            # A Directory that was restored from an old backup must not fall behind what the Stores were granted. Of
            # several copies only a document says which are in sync under an epoch.
            epoch=max(record.epoch, reported.epoch) if record.promised == 1 else record.epoch,
            state=reported.state,
            max_bytes=reported.max_bytes,
            size_bytes=reported.size_bytes,
            live_bytes=reported.live_bytes,
            live_count=reported.live_count,
        )
    return Verdict(record, Standing.MEMBER)


def worth_writing(old: VolumeRecord | None, new: VolumeRecord) -> bool:
    """Say whether more than the sizes changed; those alone are not written down, they change with every photo."""
    return old is None or new != replace(
        old, size_bytes=new.size_bytes, live_bytes=new.live_bytes, live_count=new.live_count
    )


def _taken_in(reported: VolumeDocument, store_id: str, now_ms: int) -> VolumeRecord:
    record = VolumeRecord(
        volume=reported.volume,
        uuid=reported.uuid,
        replication=reported.replication,
        epoch=max(reported.epoch, 1),
        primary=store_id,
        in_sync=(store_id,),
        state=reported.state,
        created_ms=now_ms,
        max_bytes=reported.max_bytes,
        size_bytes=reported.size_bytes,
        live_bytes=reported.live_bytes,
        live_count=reported.live_count,
        members=(store_id,),
    )
    if _knows_membership(reported):
        return _with_reported_membership(record, reported, now_ms)
    if record.promised > 1:
        # Its Store has lost the document, or never had one. Whoever has one knows better.
        record = replace(record, epoch=1)
    return tidy(record, now_ms)


def _knows_membership(reported: VolumeDocument) -> bool:
    return reported.primary is not None and reported.primary in reported.in_sync


def _with_reported_membership(record: VolumeRecord, reported: VolumeDocument, now_ms: int) -> VolumeRecord:
    """Return the record with the membership that a Store knows; former members stay members, as stale ones."""
    return tidy(
        replace(
            record,
            epoch=reported.epoch,
            primary=reported.primary or record.primary,
            in_sync=reported.in_sync,
            generation=reported.generation or None,
        ),
        now_ms,
    )


def _with_member(record: VolumeRecord, store_id: str) -> VolumeRecord:
    if store_id in record.members:
        return record
    return replace(record, members=(*record.members, store_id))
