"""Names for new photos, asked for in batches: one call to the Directory serves many uploads."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from haystack.client.directory import Assignment
from haystack.client.retry import Transient
from haystack.lifetime import end_tasks

MAX_BATCH_NAMES = 64
"""Names of one volume in one call: more would fill one volume while others stand idle."""

LEFTOVER_SECONDS = 5.0
"""How long a name that nobody took may wait: by then its volume may be full, or its Store gone."""

MAX_SHELVES = 64
"""Kinds of replication that names are kept for."""

Ask = Callable[[int, str | None], Awaitable[Sequence[Assignment]]]


@dataclass(slots=True)
class _Shelf:
    """Names of one replication that wait for a photo."""

    names: deque[tuple[float, Assignment]] = field(default_factory=deque)
    waiting: int = 0
    batch: int = 1
    asking: asyncio.Task[None] | None = None


class NamePool:
    """Hands out names. Whoever uploads much gets them in batches that grow; whoever uploads one photo asks for one.

    Parameters
    ----------
    ask: asks the Directory for so many names with this replication; they are of one volume.
    now: a clock that never goes back, in seconds.
    """

    def __init__(
        self,
        ask: Ask,
        *,
        max_batch: int = MAX_BATCH_NAMES,
        leftover_seconds: float = LEFTOVER_SECONDS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._max_batch = max_batch
        self._leftover_seconds = leftover_seconds
        self._now = now
        self._shelves: dict[str | None, _Shelf] = {}

    async def take(self, replication: str | None) -> Assignment:
        """Return a name that nobody else gets. Raises as ``ask`` does."""
        shelf = self._shelf(replication)
        shelf.waiting += 1
        try:
            while (name := self._leftover(shelf)) is None:
                if shelf.asking is None:
                    shelf.asking = asyncio.create_task(self._fill(shelf, replication))
                    shelf.asking.add_done_callback(_look_at)
                try:
                    # Shielded: one of those who wait may give up, and the others still want their names.
                    await asyncio.shield(shelf.asking)
                except Transient as failure:
                    # An exception of its own for each of them.
                    raise Transient(failure.error, failure.retry_after_seconds) from failure
        finally:
            shelf.waiting -= 1
        return name

    def refuse(self, volume: int) -> None:
        """Throw away the names of a volume that does not take photos."""
        for shelf in self._shelves.values():
            shelf.names = deque(one for one in shelf.names if one[1].fid.volume != volume)
            shelf.batch = 1

    async def close(self) -> None:
        """End what is being asked."""
        await end_tasks(shelf.asking for shelf in self._shelves.values() if shelf.asking is not None)
        self._shelves.clear()

    def _shelf(self, replication: str | None) -> _Shelf:
        if replication not in self._shelves and len(self._shelves) >= MAX_SHELVES:
            idle = next((key for key, one in self._shelves.items() if not one.waiting and one.asking is None), None)
            self._shelves.pop(idle, None)
        return self._shelves.setdefault(replication, _Shelf())

    def _leftover(self, shelf: _Shelf) -> Assignment | None:
        now_seconds = self._now()
        while shelf.names:
            until_seconds, name = shelf.names.popleft()
            if now_seconds < until_seconds:
                return name
            # They were not wanted as fast as they were asked for.
            shelf.batch = 1
        return None

    async def _fill(self, shelf: _Shelf, replication: str | None) -> None:
        try:
            count = min(max(shelf.waiting, shelf.batch), self._max_batch)
            names = await self._ask(count, replication)
            until_seconds = self._now() + self._leftover_seconds
            shelf.names.extend((until_seconds, name) for name in names)
            shelf.batch = min(shelf.batch * 2, self._max_batch)
        finally:
            shelf.asking = None


def _look_at(task: asyncio.Task[None]) -> None:
    # Those who wait for it raise it; when all of them gave up, nobody would have looked.
    if not task.cancelled():
        task.exception()
