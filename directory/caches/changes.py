"""The feed of the Caches: what takes an answer back that a Store has given, numbered, as far back as memory is there.

It is of one process of the Directory (its *incarnation*): one that starts anew cannot know what the last one told whom.
Nothing of it is kept on disk. A Cache that has missed something asks the Stores about what it has.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

MAX_HELD = 100_000
"""Changes that are held; about 200 bytes each."""

MAX_ANSWERED = 10_000
"""Changes in one answer."""

GATHER_SECONDS = 0.01
"""An answer waits so long for further changes after the first: many deletes at once would make an answer of each."""

DELETED, REPLACED, UNSURE, LOCATIONS = "deleted", "replaced", "unsure", "locations"


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the feed.

    Parameters
    ----------
    key: of the photo; None: it is about the whole volume.
    alternate: the rendition; None: it is about all of them.
    kind: DELETED; REPLACED: other bytes under the same name; UNSURE: whatever was read of this volume has to be asked
        for again; LOCATIONS: other Stores have the volume now.
    """

    volume: int
    key: int | None
    alternate: int | None
    kind: str

    def row(self) -> list[object]:
        """As it is sent."""
        return [self.volume, None if self.key is None else f"{self.key:x}", self.alternate, self.kind]


@dataclass(frozen=True, slots=True)
class Excerpt:
    """What one Cache is answered.

    Parameters
    ----------
    sequence: number of the last change that it knows then.
    complete: nothing is missing between what it had and this.
    more: this is not all that there is.
    """

    sequence: int
    changes: tuple[Change, ...]
    complete: bool
    more: bool


class Changes:
    """The feed. Make it inside the event loop."""

    def __init__(self, held: int = MAX_HELD) -> None:
        self.incarnation = secrets.token_hex(8)
        self.sequence = 0
        self._held: deque[Change] = deque(maxlen=held)
        self._news = asyncio.Event()
        self._closed = False

    def publish(self, changes: Iterable[Change]) -> None:
        """Add changes, and wake those who wait for one."""
        before = self.sequence
        for change in changes:
            self._held.append(change)
            self.sequence += 1
        if self.sequence != before:
            self._wake()

    def close(self) -> None:
        """Wake all, and let nobody wait any more."""
        self._closed = True
        self._wake()

    async def wait(self, incarnation: str, after: int, wait_seconds: float) -> None:
        """Return when there is something to answer, or after ``wait_seconds``."""
        if self._closed or incarnation != self.incarnation or after != self.sequence:
            return
        news = self._news
        try:
            async with asyncio.timeout(wait_seconds):
                await news.wait()
        except TimeoutError:
            return  # that nothing has happened is an answer, too
        if not self._closed:
            await asyncio.sleep(GATHER_SECONDS)

    def since(self, incarnation: str, after: int) -> Excerpt:
        """Return what came after number ``after`` of an incarnation."""
        missing = self.sequence - after
        if incarnation != self.incarnation or not 0 <= missing <= len(self._held):
            return Excerpt(self.sequence, (), complete=False, more=False)
        first = len(self._held) - missing
        found = tuple(islice(self._held, first, first + MAX_ANSWERED))
        return Excerpt(after + len(found), found, complete=True, more=len(found) < missing)

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
