"""How far this Store has told the Directory what it acknowledged, for the sake of the Caches (docs/cache.md).

A Cache gives out what it has only while it would have heard of a delete. It hears of it from the Directory, and that
from this Store; if this Store cannot reach the Directory, deletes are acknowledged all the same. So while there are
Caches, the Directory is given this Store's word several times a second: everything that was acknowledged before such a
moment has been told, except for these volumes. Without that word, Caches ask the Stores.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from haystack.store.control import ControlBlock
from haystack.store.directories import DirectoryCalls, DirectoryRefused, DirectoryUnreachable
from haystack.store.replication.rules import LEADING
from haystack.store.store_volume import StoreVolume
from haystack.store.volumes import StoreVolumes

NEVER = float("-inf")

MAX_NOTES = 64
"""Tails of one volume that are remembered. Forgetting one in between makes the Store's word older, never wrong."""

MIN_WORD_SECONDS = 0.02
MAX_WORD_SECONDS = 10.0

WORD_PATIENCE_SECONDS = 1.0
"""A word is given up after so long: by then it is too old to count."""

_log = logging.getLogger(__name__)


class Note(NamedTuple):
    """What was acknowledged before ``looked_at`` ends at ``tail`` or before."""

    looked_at: float
    tail: int


@dataclass(slots=True)
class _Behind:
    """A volume of which not everything may have been told; what was acknowledged before ``told_at`` has been."""

    told_at: float
    notes: deque[Note] = field(default_factory=lambda: deque(maxlen=MAX_NOTES))


class Told:
    """Knows up to which moment everything acknowledged has been told. Pure; times are seconds of any steady clock."""

    def __init__(self) -> None:
        self.looked_at = NEVER
        self._behind: dict[int, _Behind] = {}

    def __contains__(self, volume: int) -> bool:
        return volume in self._behind

    def doubt(self, volume: int) -> None:
        """Nothing is known of what was told of a volume."""
        self._behind[volume] = _Behind(NEVER)

    def forget(self, volume: int) -> None:
        """A volume is another Store's business now."""
        self._behind.pop(volume, None)

    def look(
        self, now: float, changed: Iterable[int], tail: Callable[[int], int | None], told: Callable[[int], int]
    ) -> None:
        """Take a look at the volumes that are behind, or may be.

        Parameters
        ----------
        now: a moment before the tails were read.
        changed: volumes whose tail may have changed since the last look.
        tail: returns the end of what may have been acknowledged of a volume; None: it is not known at the moment.
        told: returns up to where a volume has been told.
        """
        for volume in changed:
            if volume not in self._behind:
                self._behind[volume] = _Behind(self.looked_at)
        for volume, behind in list(self._behind.items()):
            end = tail(volume)
            if end is None:
                # Out of service: what was noted is of a file that may be another one afterwards.
                behind.notes.clear()
                continue
            _note(behind.notes, Note(now, end))
            told_to = told(volume)
            while behind.notes and behind.notes[0].tail <= told_to:
                behind.told_at = behind.notes.popleft().looked_at
            if not behind.notes:
                del self._behind[volume]
        self.looked_at = now

    def behind(self) -> list[tuple[int, float | None]]:
        """Return the volumes that are behind, and by how many seconds before the last look; None: it is not known."""
        return [
            (volume, None if one.told_at == NEVER else self.looked_at - one.told_at)
            for volume, one in self._behind.items()
        ]


def _note(notes: deque[Note], note: Note) -> None:
    if notes and notes[-1].tail == note.tail:
        notes[-1] = note  # nothing came since, so it holds for this later moment as well
    else:
        if len(notes) == MAX_NOTES:
            notes.pop()
        notes.append(note)


class Teller:
    """Gives this Store's word to the Directory that takes its confirmations, as long as that wants it.

    Parameters
    ----------
    told_to: returns up to where the Directory knows the needles of a volume.
    look: has :meth:`looked` called before a word is given, which is worth as much as it is young.
    clock: monotonic seconds.
    """

    def __init__(
        self,
        volumes: StoreVolumes,
        calls: DirectoryCalls,
        store_id: str,
        told_to: Callable[[StoreVolume], int],
        *,
        look: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look = look
        self._volumes = volumes
        self._control: ControlBlock = volumes.control
        self._calls = calls
        self._store_id = store_id
        self._told_to = told_to
        self._clock = clock
        self._told = Told()
        self._led: dict[int, StoreVolume] = {}
        self._interval_seconds = 0.0
        self._wanted = asyncio.Event()
        self._token = ""
        self._token_at = 0.0

    @property
    def wanted(self) -> bool:
        """A Directory wants this Store's word."""
        return self._wanted.is_set()

    def answered(self, url: str, document: dict[str, Any]) -> None:
        """A Directory has answered a heartbeat; it says there whether, and how often, it wants this Store's word."""
        if url != self._calls.preferred_url:
            return  # it does not hear of the deletes itself
        seconds = document.get("wordSeconds", 0)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
            self._interval_seconds = 0.0
            self._wanted.clear()
            return
        self._interval_seconds = min(max(float(seconds), MIN_WORD_SECONDS), MAX_WORD_SECONDS)
        if not self._wanted.is_set():
            # Nobody has looked meanwhile.
            self._led.clear()
            self.leads_changed()
            self._wanted.set()

    def leads_changed(self) -> None:
        """Volumes may have become this Store's to lead; called whenever a membership or a state has changed.

        At once, before anybody can know of it: a word that is given afterwards must not pass over such a volume.
        """
        led = {entry.id: entry for entry in self._volumes if entry.duty in LEADING}
        for volume, entry in led.items():
            if self._led.get(volume) is not entry:
                self._told.doubt(volume)
        for volume in self._led.keys() - led.keys():
            self._told.forget(volume)
        self._led = led

    def looked(self, now: float, slots: Iterable[int]) -> None:
        """The tails of these slots have changed; ``now``: a moment before they were read."""
        if not self._wanted.is_set():
            return
        entries = (self._volumes.at(slot) for slot in slots)
        changed = [entry.id for entry in entries if entry is not None and entry.id in self._led]
        self._told.look(now, changed, self._tail, self._told_end)

    async def run(self) -> None:
        """Give the word for ever, as often as it is wanted."""
        while True:
            await self._wanted.wait()
            began = self._clock()
            await self._give()
            await asyncio.sleep(max(0.0, began + self._interval_seconds - self._clock()))

    async def _give(self) -> None:
        self._look()
        told = self._told
        if told.looked_at == NEVER:
            return
        message = {
            "storeId": self._store_id,
            "token": self._token,
            "ageMs": round((told.looked_at - self._token_at) * 1000, 3),
            "behind": [[volume, None if lag is None else round(lag * 1000, 3)] for volume, lag in told.behind()],
        }
        try:
            async with asyncio.timeout(WORD_PATIENCE_SECONDS):
                answer = await self._calls.post(self._calls.preferred_url, "/internal/stores/word", message)
        except (DirectoryUnreachable, DirectoryRefused, TimeoutError) as error:
            # Heartbeats and confirmations complain of the same; without the word, Caches ask.
            _log.debug("the Directory was not given this Store's word: %s", error)
            return
        token = answer.get("token")
        if isinstance(token, str):
            self._token, self._token_at = token, self._clock()

    def _tail(self, volume: int) -> int | None:
        entry = self._led[volume]
        if entry.volume is None:
            return None
        return max(entry.durable_tail, self._control.durable_tail(entry.slot))

    def _told_end(self, volume: int) -> int:
        return self._told_to(self._led[volume])
