"""One wave of a committer: sent to the copies and made durable here at the same time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from haystack.errors import HaystackError
from haystack.store.replication.copying import Copies, Copying, Unconfirmed
from haystack.store.replication.rules import Kind, May
from haystack.volume.operations import Appended

if TYPE_CHECKING:
    from haystack.store.catalog import ServedVolume

Volumes = Sequence[tuple["ServedVolume", Appended]]
SyncHere = Callable[[Volumes], Sequence[Exception | None]]


def copied(copies: Copies, volumes: Volumes, sync_here: SyncHere) -> Sequence[Exception | None]:
    """Make what was appended durable here and on all copies; returns what went wrong with each volume.

    Parameters
    ----------
    sync_here: makes it durable on this Store.
    """
    if not any(_has_members(served) for served, _ in volumes):
        return sync_here(volumes)
    begun: list[Copying | Exception | None] = [_begin(copies, served, appended) for served, appended in volumes]
    shipping = copies.ship(one for one in begun if isinstance(one, Copying))
    problems = list(sync_here(volumes))
    shipping.finish()
    return [problem or _outcome(copies, one) for problem, one in zip(problems, begun, strict=True)]


def _has_members(served: ServedVolume) -> bool:
    return bool(served.control.cells[served.membership.standing_cell])


def _begin(copies: Copies, served: ServedVolume, appended: Appended) -> Copying | Exception | None:
    try:
        return copies.begin(served, appended.written, served.reign)
    except HaystackError as error:
        return error


def _outcome(copies: Copies, copying: Copying | Exception | None) -> Exception | None:
    if not isinstance(copying, Copying):
        return copying
    try:
        copies.decide(copying)
    except HaystackError as error:
        return error
    if copying.may(Kind.UPLOAD, copies.me) is May.YES:
        copying.commit()
        return None
    copies.report(copying)
    return Unconfirmed(copying)
