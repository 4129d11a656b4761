"""Compacts volumes by itself, as :mod:`directory.decisions.compaction` chooses.

What it remembers is in memory alone: what Stores said that is to be won, and when a volume was compacted last. A
Directory that was restarted asks again.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from directory.cluster.store_client import StoreClient
from directory.compaction.compactor import Compactor, Planned
from directory.decisions.compaction import Candidate, Choice, CompactionRules, choose, in_words, outlook
from directory.service import Service
from directory.snapshots.snapshots import Snapshots
from haystack.errors import HaystackError

LOOK_SECONDS = 10.0
ASKED_AT_A_LOOK = 2
"""Volumes whose Stores are asked at one look: they walk their index for the answer."""

ANSWER_SECONDS = 3600.0
"""How long an answer holds; what is in the trash becomes garbage with time."""

CHANGED_SHARE = 0.05
"""An answer does not hold when so much of the volume has become garbage since."""

REST_SECONDS = 6 * 3600.0
"""How long a volume is left alone after it was compacted, however little that won: snapshots may hold its garbage."""

FAILED_REST_SECONDS = 600.0
"""The same after a compaction that failed."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Answer:
    generation: int
    garbage_bytes: int
    winnable_bytes: int
    asked_seconds: float


class AutoCompaction:
    """Looks for volumes to compact. Make it inside the event loop."""

    def __init__(
        self,
        service: Service,
        client: StoreClient,
        snapshots: Snapshots,
        compactor: Compactor,
        rules: CompactionRules,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._service = service
        self._client = client
        self._snapshots = snapshots
        self._compactor = compactor
        self._rules = rules
        self._look_seconds = look_seconds
        self._answers: dict[int, _Answer] = {}
        self._began_seconds: dict[int, float] = {}
        self.status = ""
        """In words, for the operator; empty when there is nothing to say."""

    async def run(self) -> None:
        """Look for ever."""
        while self._rules.garbage_share:
            await asyncio.sleep(self._look_seconds)
            try:
                await self.look()
            except HaystackError as error:
                log.info("nothing is compacted by itself now: %s", error)
            except Exception:  # the next look may go better, and without one nothing is ever compacted
                log.exception("it could not be found out what is to be compacted")

    def in_words(self) -> str:
        """What it does, for who looks at a plan."""
        if not self._rules.garbage_share:
            return "no volume is compacted by itself: compact_garbage_share is 0"
        text = f"volumes are compacted by themselves as soon as {self._rules.garbage_share:.0%} of them can be won"
        return f"{text}; {self.status}" if self.status else text

    def outlooks(self) -> list[dict[str, Any]]:
        """What would be won of each volume, and when it will be compacted by itself, or why not."""
        return [self._outlook(one) for one in self._compactor.plan([*self._service.cluster.records])]

    def _outlook(self, one: Planned) -> dict[str, Any]:
        candidate, compactor = self._candidate(one), self._compactor
        when = outlook(candidate, self._rules, at_work=compactor.is_at(one.volume), under_way=compactor.under_way)
        gain_bytes = one.gain_bytes if candidate.winnable_bytes is None else candidate.winnable_bytes
        return {"volume": one.volume, "copies": one.copies, "gainBytes": gain_bytes, "when": when}

    async def look(self) -> Choice:
        """Begin what is to begin, and ask what is to be asked; returns what was chosen last."""
        if self._snapshots.taking or not self._service.cluster.settled(self._service.clock()):
            return Choice()
        planned = {one.volume: one for one in self._compactor.plan(None)}
        choice = self._choose(planned)
        for volume in choice.ask[:ASKED_AT_A_LOOK]:
            await self._ask(planned[volume])
        if choice.ask:
            choice = self._choose(planned)
        for volume in choice.start:
            self._began_seconds[volume] = self._service.clock()
            self._answers.pop(volume, None)
            log.info("volume %d is compacted, since enough of it is garbage", volume)
        self._compactor.start([planned[volume] for volume in choice.start], now=False)
        garbage_bytes = sum(planned[volume].gain_bytes for volume, _ in choice.waiting)
        self.status = in_words(choice, self._compactor.under_way, garbage_bytes)
        return choice

    def _choose(self, planned: dict[int, Planned]) -> Choice:
        candidates = [self._candidate(one) for one in planned.values() if not self._compactor.is_at(one.volume)]
        return choose(candidates, self._compactor.under_way, self._rules)

    def _candidate(self, one: Planned) -> Candidate:
        answer, now_seconds = self._answers.get(one.volume), self._service.clock()
        holds = (
            answer is not None
            and answer.generation == one.generation
            and one.gain_bytes - answer.garbage_bytes < CHANGED_SHARE * one.size_bytes
            and now_seconds - answer.asked_seconds < ANSWER_SECONDS
        )
        began_seconds = self._began_seconds.get(one.volume, float("-inf"))
        rest_seconds = FAILED_REST_SECONDS if self._compactor.has_failed(one.volume) else REST_SECONDS
        return Candidate(
            one.volume,
            one.size_bytes,
            one.gain_bytes,
            answer.winnable_bytes if answer is not None and holds else None,
            one.obstacle,
            max(0.0, began_seconds + rest_seconds - now_seconds),
        )

    async def _ask(self, one: Planned) -> None:
        if one.store is None:
            return
        try:
            winnable_bytes = await self._client.winnable_bytes(one.store, one.volume)
        except HaystackError as error:
            log.info("volume %d: nobody says what compacting it would win: %s", one.volume, error)
            winnable_bytes = 0
        self._answers[one.volume] = _Answer(one.generation, one.gain_bytes, winnable_bytes, self._service.clock())
