"""Does a physical volume that a Store reports belong to the logical volume of the same id?

- Unknown to the Directory: it is taken in as it is (the Directory lost its disk, or the volume was copied in).
- Another uuid: it is another volume, whatever it holds; it is never used.
- The same uuid on a Store outside the in-sync set: an extra copy, not used, because nobody keeps it up to date. When
  none of the members has its copy any more, though they are there to be asked, it takes their place under a new epoch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from directory.messages import VolumeDocument
from directory.tables import VolumeRecord


class Standing(Enum):
    """What a reported copy is; only a MEMBER is used."""

    MEMBER = "member"
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
        return Verdict(_taken_in(reported, store_id, now_ms), Standing.MEMBER)
    if record.uuid != reported.uuid:
        return Verdict(record, Standing.CONFLICT)
    if store_id not in record.in_sync:
        if not abandoned:
            return Verdict(record, Standing.EXTRA)
        record = replace(record, epoch=record.epoch + 1, primary=store_id, in_sync=(store_id,))
    if record.primary == store_id:
        record = replace(
            record,
            # A Directory that was restored from an old backup must not fall behind what the Stores were granted.
            epoch=max(record.epoch, reported.epoch),
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
    return VolumeRecord(
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
    )
