"""What the intake has promised, on disk: tickets that were taken, and photos whose record is not known yet.

An upload is noted here before its needles are written (*intended*), after that (*stored*), and stays until the front
end has its record (*published*) and its ticket has expired. So a crash at any moment leaves either nothing, or a note
from which it goes on.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from haystack.errors import DiskError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS notes (
    ticket BLOB PRIMARY KEY,
    expires INTEGER NOT NULL,
    state INTEGER NOT NULL,
    record TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    retry_ms INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS notes_by_retry ON notes (state, retry_ms);
"""
INTENDED, STORED, PUBLISHED = 0, 1, 2
_LONGEST_WAIT_MS = 5 * 60 * 1000

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Note:
    """One upload that was promised.

    Parameters
    ----------
    ticket: id of its ticket.
    expires: of the ticket, seconds since 1970.
    state: ``INTENDED``, ``STORED`` or ``PUBLISHED``.
    record: what the front end is told, as JSON.
    attempts: how often that was tried in vain.
    """

    ticket: bytes
    expires: int
    state: int
    record: str
    attempts: int = 0


class Outbox:
    """The notes of one intake. Calls block for a sync of the disk: use them from one thread of their own.

    Parameters
    ----------
    path: of the SQLite file; made when it is not there.

    Raises
    ------
    DiskError: by every call, when the disk does not take or give it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = self._guarded("open it", lambda: _open(path))

    def close(self) -> None:
        self._connection.close()

    def find(self, ticket: bytes) -> Note | None:
        """What is known of a ticket."""

        def act() -> Note | None:
            row = self._connection.execute(
                "SELECT ticket, expires, state, record, attempts FROM notes WHERE ticket = ?", (ticket,)
            ).fetchone()
            return None if row is None else Note(*row)

        return self._guarded("read it", act)

    def intend(self, note: Note) -> None:
        """Note what is about to be stored, in place of what an earlier attempt with this ticket intended."""
        self._write(
            "INSERT INTO notes (ticket, expires, state, record) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (ticket) DO UPDATE SET record = excluded.record WHERE state = 0",
            (note.ticket, note.expires, INTENDED, note.record),
        )

    def stored(self, ticket: bytes) -> None:
        """Its needles are durable.

        Raises
        ------
        DiskError: also when nothing was intended: then the photo must not be acknowledged.
        """
        changed = self._write("UPDATE notes SET state = ? WHERE ticket = ? AND state = ?", (STORED, ticket, INTENDED))
        if changed != 1:
            raise DiskError(f"{self.path}: the note of an upload that was just stored is gone")

    def published(self, ticket: bytes) -> None:
        """The front end has its record."""
        self._write("UPDATE notes SET state = ? WHERE ticket = ?", (PUBLISHED, ticket))

    def failed(self, note: Note, now_ms: int) -> None:
        """Telling the front end failed: again after 0.25 s, 0.5 s, 1 s, and so on to 5 min."""
        wait_ms = min(_LONGEST_WAIT_MS, 250 << min(note.attempts, 12))
        self._write(
            "UPDATE notes SET attempts = attempts + 1, retry_ms = ? WHERE ticket = ?", (now_ms + wait_ms, note.ticket)
        )

    def forget(self, ticket: bytes) -> None:
        """An intended upload that was never stored: as if its ticket had not been used."""
        self._write("DELETE FROM notes WHERE ticket = ? AND state = ?", (ticket, INTENDED))

    def forget_expired(self, now_seconds: float) -> None:
        """Published ones whose ticket nobody can use any more."""
        self._write("DELETE FROM notes WHERE state = ? AND expires <= ?", (PUBLISHED, int(now_seconds)))

    def intended(self) -> list[Note]:
        """Those of which only the store can say whether they were written: what a crash has left."""
        return self._notes("state = ?", (INTENDED,))

    def due(self, now_ms: int, limit: int) -> list[Note]:
        """Stored ones that the front end is to be told of now, in the order of their next attempt."""
        return self._notes("state = ? AND retry_ms <= ? ORDER BY retry_ms LIMIT ?", (STORED, now_ms, limit))

    def next_ms(self) -> int | None:
        """When the next attempt to tell the front end of one is due, ms since 1970; None when all are published."""

        def act() -> int | None:
            row = self._connection.execute("SELECT min(retry_ms) FROM notes WHERE state = ?", (STORED,)).fetchone()
            return None if row[0] is None else int(row[0])

        return self._guarded("read it", act)

    def check(self) -> None:
        """Raises DiskError when nothing can be noted."""
        self._write("UPDATE notes SET attempts = 0 WHERE ticket = ?", (b"",))

    def unpublished(self) -> int:
        """How many photos are stored that the front end does not know yet."""

        def act() -> int:
            return int(self._connection.execute("SELECT count(*) FROM notes WHERE state = ?", (STORED,)).fetchone()[0])

        return self._guarded("read it", act)

    def _notes(self, condition: str, values: tuple[object, ...]) -> list[Note]:
        statement = f"SELECT ticket, expires, state, record, attempts FROM notes WHERE {condition}"  # noqa: S608  # ours

        def act() -> list[Note]:
            return [Note(*row) for row in self._connection.execute(statement, values)]

        return self._guarded("read it", act)

    def _write(self, statement: str, values: tuple[object, ...]) -> int:
        """Run a statement; returns how many notes it has changed."""
        return self._guarded("write it", lambda: self._connection.execute(statement, values).rowcount)

    def _guarded(self, what: str, act: Callable[[], Result]) -> Result:
        try:
            return act()
        except (sqlite3.Error, OSError) as error:
            raise DiskError(f"{self.path}: cannot {what}: {error}") from error


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    # No transactions but of single statements; opened on one thread, used on another.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.executescript(_SCHEMA)
    return connection
