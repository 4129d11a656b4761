"""The transactions of moves: functions of a :class:`~directory.storage.interface.Draft`.

The committer runs them, perhaps twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from directory.moves.record import MoveRecord, MoveState
from directory.storage.interface import Draft, Storage, Table, scan_all
from directory.storage.tables import META_NEXT_MOVE, move_key


def load(storage: Storage) -> list[MoveRecord]:
    """Return all that are kept, in the order of their numbers."""
    rows = scan_all(storage, Table.MOVES)
    return [MoveRecord.unpack(int.from_bytes(key, "big"), stored.value) for key, stored in rows]


def take(draft: Draft, records: Sequence[MoveRecord]) -> list[MoveRecord]:
    """Write down new moves; returns them with their numbers.

    Parameters
    ----------
    records: numbered from 1 on, ``after`` as well.
    """
    first = draft.get(Table.META, META_NEXT_MOVE) or 1
    draft.put(Table.META, META_NEXT_MOVE, first + len(records))
    taken = [
        replace(one, number=first - 1 + one.number, after=first - 1 + one.after if one.after else 0) for one in records
    ]
    for record in taken:
        draft.put(Table.MOVES, move_key(record.number), record.pack())
    return taken


def note(draft: Draft, number: int, changes: Mapping[str, object]) -> None:
    """Change some fields of a move that is not over."""
    value = draft.get(Table.MOVES, move_key(number))
    if value is not None and not MoveState(value["state"]).over:
        draft.put(Table.MOVES, move_key(number), {**value, **changes})


def end(draft: Draft, record: MoveRecord, forgotten: Iterable[int]) -> None:
    """Write down how a move ended, and forget others that ended long ago."""
    draft.put(Table.MOVES, move_key(record.number), record.pack())
    for number in forgotten:
        draft.delete(Table.MOVES, move_key(number))
