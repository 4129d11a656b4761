"""Deletes that not all copies have yet: they wait, away from the committers, for the Directory to decide.

Uploads are not waited for: their client takes a new fid at once, which is faster than any decision.
"""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from haystack.errors import HaystackError, NeedleNotFound, VolumeUnavailable
from haystack.store.replication.copying import Copies, Unconfirmed
from haystack.store.replication.link import WorkerLink
from haystack.store.replication.rules import Kind, May
from haystack.volume.operations import Outcome

if TYPE_CHECKING:
    from haystack.store.catalog import ServedVolume

_log = logging.getLogger(__name__)

DECISION_SECONDS = 3.0
"""How long a delete waits for the Directory."""

LOOK_SECONDS = 0.5
"""How often it looks by itself."""

POLL_SECONDS = 0.02
"""How often it is looked whether all copies have what is here."""

MAX_WAITING = 1024
"""Deletes of a worker that may wait at the same time; others are refused at once."""

DECIDING_THREADS = 4


class Decider:
    """Brings deletes to their end, on the event loop of a worker."""

    def __init__(self, copies: Copies, link: WorkerLink) -> None:
        self._copies = copies
        self._link = link
        self._threads = ThreadPoolExecutor(DECIDING_THREADS, "decide")
        self._waiting = 0

    async def decide(self, unconfirmed: Unconfirmed) -> Outcome:
        """What becomes of a delete: what it would be if it counts, or why it does not. The volume must be pinned."""
        outcome = unconfirmed.outcome
        if outcome is None or self._waiting >= MAX_WAITING:
            return unconfirmed
        self._waiting += 1
        try:
            return await self._wait(unconfirmed, outcome)
        except HaystackError as error:
            return error
        except Exception as error:  # a bug must answer who waits, and be seen
            _log.exception("a delete in volume %d could not be decided", unconfirmed.copying.served.number)
            return VolumeUnavailable(f"{unconfirmed}; unexpected {type(error).__name__}")
        finally:
            self._waiting -= 1

    async def _wait(self, unconfirmed: Unconfirmed, outcome: Outcome) -> Outcome:
        loop = asyncio.get_running_loop()
        # No timeout that cancels: a cancellation that meets the end of a wait may be lost in it.
        deadline = loop.time() + DECISION_SECONDS
        copying = unconfirmed.copying
        while True:
            await loop.run_in_executor(self._threads, partial(self._copies.decide, copying))
            may = copying.may(Kind.DELETE, self._copies.me)
            if may is May.YES:
                await loop.run_in_executor(self._threads, copying.commit)
                return outcome
            if may is May.NEVER:
                return unconfirmed
            left_seconds = deadline - loop.time()
            if left_seconds <= 0:
                return VolumeUnavailable(f"{unconfirmed}; the Directory has not decided within {DECISION_SECONDS:g} s")
            self._copies.report(copying)
            await self._link.notice(min(left_seconds, LOOK_SECONDS))
            if loop.time() < deadline and copying.served.membership.version == copying.now.version:
                await loop.run_in_executor(self._threads, partial(self._copies.retry, copying))

    @staticmethod
    async def known_everywhere(served: ServedVolume, absent: NeedleNotFound) -> HaystackError:
        """What to say of a delete that found nothing: ``absent``, once all that is here is on all copies.

        The photo may be gone by an earlier delete that is not on all copies, and that this one then repeats: if another
        copy led from now on, the photo would be there again. The volume must be pinned.
        """
        if not served.control.cells[served.membership.standing_cell]:
            return absent
        try:
            tail = served.volume.tail()
        except HaystackError as error:
            return error
        deadline = time.monotonic() + DECISION_SECONDS
        while served.membership.committed < tail:
            if time.monotonic() >= deadline:
                return VolumeUnavailable(
                    f"volume {served.number}: not all copies have its last deletes; try again soon"
                )
            await asyncio.sleep(POLL_SECONDS)
        return absent

    def close(self) -> None:
        """Stop the threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)
