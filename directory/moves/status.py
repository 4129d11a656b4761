"""Moves as documents, and in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from directory.decisions.move_orders import MoveKind, MoveOrder
from directory.moves.intake import size_of
from directory.moves.mover import Mover
from directory.moves.record import MoveRecord
from directory.repair.healer import Healer
from directory.service import Service
from haystack.units import format_duration, format_size

MAX_LISTED = 10_000
"""Moves of one answer."""


def moves_document(service: Service, healer: Healer, mover: Mover) -> dict[str, Any]:
    """Return the document of ``/cluster/moves``: those under way in the order of their numbers, then ended ones."""
    active = sorted(mover.active.values(), key=lambda one: one.number)
    records = [*active, *reversed(mover.ended)][:MAX_LISTED]
    waits = mover.waits()
    return {
        "limits": {
            "atOnce": healer.rules.moves,
            "perStore": healer.rules.moves_per_store,
            "bytesPerSecond": healer.rates.moves,
            "lingerSeconds": healer.rules.move_linger_seconds,
        },
        "moves": [move_document(service, healer, mover, record, waits) for record in records],
    }


def move_document(
    service: Service, healer: Healer, mover: Mover, record: MoveRecord, waits: Mapping[int, str]
) -> dict[str, Any]:
    """Return one move. ``waits``: see :meth:`~directory.moves.mover.Mover.waits`."""
    until_ms = record.ended_ms or int(service.wall_clock() * 1000)
    seconds = max(0, until_ms - record.began_ms) / 1000 if record.began_ms else 0.0
    copied_bytes = mover.copied_bytes(record)
    return {
        "id": record.number,
        "kind": record.kind.value,
        "volume": record.volume,
        "source": record.source or None,
        "target": record.target or None,
        "sourceUrl": address_of(service, record.source) or None,
        "targetUrl": address_of(service, record.target) or None,
        "reason": record.reason,
        "by": record.by,
        "after": record.after or None,
        "state": stage(service, healer, record),
        "createdMs": record.created_ms,
        "startedMs": record.began_ms or None,
        "finishedMs": record.ended_ms or None,
        "seconds": round(seconds, 3),
        "copiedBytes": copied_bytes,
        "totalBytes": max(record.total_bytes, copied_bytes),
        "bytesPerSecond": round(copied_bytes / seconds) if seconds else 0,
        "error": mover.problem(record, waits),
    }


def stage(service: Service, healer: Healer, record: MoveRecord) -> str:
    """Return how far a move is, in one word."""
    if record.state.over:
        return record.state.value
    if record.state.undoing:
        return "cancelling"
    in_sync = service.cluster.records[record.volume].in_sync
    if record.target and record.target not in in_sync:
        running = healer.running.get(record.volume)
        return "copying" if running is not None and running.step.move == record.number else "waiting"
    if record.source in in_sync and not record.began_ms:
        return "waiting"
    return "switching" if record.source in in_sync or not record.source else "removing"


def order_in_words(service: Service, healer: Healer, order: MoveOrder) -> list[str]:
    """Return the steps that an order comes to."""
    record = service.cluster.records[order.volume]
    size_bytes, rate = size_of(service, record), healer.rates.moves
    source, target = address_of(service, order.source), address_of(service, order.target)
    if order.kind is MoveKind.DROP:
        return [
            f"the copy of volume {order.volume} at {source} ({format_size(size_bytes)}) counts no more, then it goes"
        ]
    begin = f"volume {order.volume} ({format_size(size_bytes)}) is copied to {target}"
    seconds = format_duration(max(1.0, size_bytes / rate))
    steps = [
        f"{begin} from {address_of(service, record.primary)}, at most {format_size(rate)} a second: about {seconds}; "
        "uploads, deletes and reads go on",
        "both are compared by hash; from then on uploads wait for the copy, too, and it is read from",
    ]
    if order.kind is MoveKind.COPY:
        return [*steps, f"it is kept above the {record.promised} promised, until it is dropped"]
    linger = format_duration(healer.rules.move_linger_seconds)
    return [*steps, f"the copy at {source} counts no more, and is deleted {linger} later"]


def address_of(service: Service, store_id: str) -> str:
    """Return the address of a Store, or its id when it is not known."""
    store = service.cluster.stores.get(store_id)
    return store.document.url if store is not None else store_id
