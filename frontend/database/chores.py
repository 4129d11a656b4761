"""What is still to be done in the store after a change here, and what is remembered of photos that are gone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from frontend.database.tables import deleted_photos, moved_photos, photos, record_writes, removals

REMEMBERED_MS = 30 * 86_400_000
"""How long a deleted photo is remembered: no intake tries to publish for so long."""

_LONGEST_WAIT_MS = 3600 * 1000


@dataclass(frozen=True, slots=True)
class RecordWrite:
    """A record that is to be stored again.

    Parameters
    ----------
    revision: tells it from one that was asked for later.
    """

    photo_id: int
    revision: int
    attempts: int


def bury(connection: Connection, photo_id: int, now_ms: int) -> None:
    """Remember that a photo was deleted, so that nobody publishes it again."""
    connection.execute(delete(deleted_photos).where(deleted_photos.c.deleted_ms < now_ms - REMEMBERED_MS))
    connection.execute(delete(deleted_photos).where(deleted_photos.c.photo_id == photo_id))
    connection.execute(insert(deleted_photos).values(photo_id=photo_id, deleted_ms=now_ms))


def is_buried(connection: Connection, photo_id: int) -> bool:
    """Whether a photo was deleted not long ago."""
    found = connection.execute(select(deleted_photos.c.photo_id).where(deleted_photos.c.photo_id == photo_id))
    return found.first() is not None


def write_record(connection: Connection, photo_id: int, now_ms: int) -> None:
    """Note down that a photo's record is to be stored again, at once."""
    done = connection.execute(
        update(record_writes)
        .where(record_writes.c.photo_id == photo_id)
        .values(revision=record_writes.c.revision + 1, retry_ms=now_ms, attempts=0)
    )
    if done.rowcount == 0:
        connection.execute(insert(record_writes).values(photo_id=photo_id, revision=1, retry_ms=now_ms))


def due_record_writes(connection: Connection, now_ms: int, limit: int) -> list[RecordWrite]:
    """Those whose time for the next attempt has come, the oldest first."""
    rows = connection.execute(
        select(record_writes.c.photo_id, record_writes.c.revision, record_writes.c.attempts)
        .where(record_writes.c.retry_ms <= now_ms)
        .order_by(record_writes.c.retry_ms)
        .limit(limit)
    )
    return [RecordWrite(*row) for row in rows]


def record_written(connection: Connection, written: RecordWrite) -> None:
    """It is done, unless it was asked for again meanwhile."""
    connection.execute(
        delete(record_writes).where(
            record_writes.c.photo_id == written.photo_id, record_writes.c.revision == written.revision
        )
    )


def record_failed(connection: Connection, failed: RecordWrite, now_ms: int) -> None:
    """Try it again later: after 1 s, 2 s, 4 s, and so on to an hour."""
    wait_ms = min(_LONGEST_WAIT_MS, 1000 << min(failed.attempts, 12))
    connection.execute(
        update(record_writes)
        .where(record_writes.c.photo_id == failed.photo_id, record_writes.c.revision == failed.revision)
        .values(retry_ms=now_ms + wait_ms, attempts=record_writes.c.attempts + 1)
    )


def set_fid(connection: Connection, photo_id: int, old_fid: str, new_fid: str, store_key: int) -> bool:
    """Point a photo to needles that were stored anew. Whether it still had the old ones."""
    done = connection.execute(
        update(photos).where(photos.c.id == photo_id, photos.c.fid == old_fid).values(fid=new_fid)
    )
    if done.rowcount == 0:
        return False
    connection.execute(delete(moved_photos).where(moved_photos.c.photo_id == photo_id))
    connection.execute(insert(moved_photos).values(store_key=store_key, photo_id=photo_id))
    return True


def remove_needles(connection: Connection, photo_id: int, fid: str, renditions: Iterable[int], now_ms: int) -> None:
    """Note down that needles are to be removed, unless they are noted already."""
    keep(connection, photo_id, fid)
    expect_removal(connection, photo_id, fid, renditions, now_ms)


def expect_removal(connection: Connection, photo_id: int, fid: str, renditions: Iterable[int], retry_ms: int) -> None:
    """Note down needles that are to be removed then, unless :func:`keep` says otherwise before."""
    connection.execute(
        insert(removals).values(
            photo_id=photo_id, fid=fid, renditions=",".join(map(str, renditions)), retry_ms=retry_ms
        )
    )


def keep(connection: Connection, photo_id: int, fid: str) -> bool:
    """Take back :func:`expect_removal`. Whether that was in time."""
    done = connection.execute(delete(removals).where(removals.c.photo_id == photo_id, removals.c.fid == fid))
    return done.rowcount > 0


def photo_ids(connection: Connection, store_keys: Iterable[int]) -> dict[int, int]:
    """Key in the store → id, of those photos for which they differ."""
    wanted = list(store_keys)
    rows = connection.execute(
        select(moved_photos.c.store_key, moved_photos.c.photo_id).where(moved_photos.c.store_key.in_(wanted))
    )
    return {int(key): int(photo_id) for key, photo_id in rows}
