"""Uploads that were asked for with an idempotency key, and needles that are still to be deleted."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from frontend.database.photos import parse_renditions
from frontend.database.tables import removals, uploads

REMEMBERED_MS = 24 * 3600 * 1000
"""How long an idempotency key is remembered."""
_LONGEST_WAIT_MS = 3600 * 1000


@dataclass(frozen=True, slots=True)
class Asked:
    """An upload that was asked for before, and what was answered."""

    request_hash: bytes
    photo_id: int
    answer: str


def asked_before(connection: Connection, owner_id: int, key: str, now_ms: int) -> Asked | None:
    """What was answered to this key."""
    connection.execute(delete(uploads).where(uploads.c.created_ms < now_ms - REMEMBERED_MS))
    row = connection.execute(
        select(uploads.c.request_hash, uploads.c.photo_id, uploads.c.answer).where(
            uploads.c.owner_id == owner_id, uploads.c.idempotency_key == key
        )
    ).one_or_none()
    return None if row is None else Asked(*row)


def remember(connection: Connection, owner_id: int, key: str, asked: Asked, now_ms: int) -> None:
    connection.execute(
        insert(uploads).values(
            owner_id=owner_id,
            idempotency_key=key,
            request_hash=asked.request_hash,
            photo_id=asked.photo_id,
            answer=asked.answer,
            created_ms=now_ms,
        )
    )


@dataclass(frozen=True, slots=True)
class Removal:
    """Needles that nobody shall see any more: of one fid, each of these alternate keys."""

    photo_id: int
    fid: str
    renditions: tuple[int, ...]
    attempts: int


def due_removals(connection: Connection, now_ms: int, limit: int) -> list[Removal]:
    """Those whose time for the next attempt has come, the oldest first."""
    rows = connection.execute(
        select(removals.c.photo_id, removals.c.fid, removals.c.renditions, removals.c.attempts)
        .where(removals.c.retry_ms <= now_ms)
        .order_by(removals.c.retry_ms)
        .limit(limit)
    )
    return [Removal(row.photo_id, row.fid, parse_renditions(row.renditions), row.attempts) for row in rows]


def removal_done(connection: Connection, removal: Removal) -> None:
    connection.execute(delete(removals).where(removals.c.photo_id == removal.photo_id, removals.c.fid == removal.fid))


def removal_failed(connection: Connection, removal: Removal, now_ms: int) -> None:
    """Try it again later: after 1 s, 2 s, 4 s, and so on to an hour."""
    wait_ms = min(_LONGEST_WAIT_MS, 1000 << min(removal.attempts, 12))
    connection.execute(
        update(removals)
        .where(removals.c.photo_id == removal.photo_id, removals.c.fid == removal.fid)
        .values(retry_ms=now_ms + wait_ms, attempts=removals.c.attempts + 1)
    )
