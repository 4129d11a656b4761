"""Asking the Directory what is to become of copies that do not answer, and applying what it says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from haystack.errors import HaystackError
from haystack.store.directories import DirectoryCalls
from haystack.store.replication.copying import Report
from haystack.store.replication.membership import parse_membership
from haystack.store.replication.memberships import Memberships, NewerEpoch
from haystack.store.store_volume import StoreVolume
from haystack.store.volumes import StoreVolumes

_log = logging.getLogger(__name__)

ASK_SECONDS = 3.0
"""Who waits for a decision has given up by then."""

Spawn = Callable[[Coroutine[Any, Any, None]], None]


class SuspectDesk:
    """Takes reports of workers and of the supervisor itself.

    Parameters
    ----------
    notify: tells the workers to look at their memberships again.
    spawn: runs something beside the rest.
    """

    def __init__(
        self,
        volumes: StoreVolumes,
        memberships: Memberships,
        calls: DirectoryCalls,
        notify: Callable[[], None],
        spawn: Spawn,
    ) -> None:
        self._volumes = volumes
        self._memberships = memberships
        self._calls = calls
        self._notify = notify
        self._spawn = spawn
        self._asking: set[tuple[int, int, tuple[str, ...]]] = set()

    def report(self, report: Report) -> None:
        """Have the Directory decide, unless it is being asked already or has decided meanwhile."""
        try:
            entry = self._volumes.get(report.volume)
        except HaystackError:
            return
        key = report.volume, report.epoch, report.suspects
        if entry.membership is None or entry.membership.epoch != report.epoch:
            self._notify()
        elif key not in self._asking:
            self._asking.add(key)
            self._spawn(self._ask(entry, report))

    async def _ask(self, entry: StoreVolume, report: Report) -> None:
        _log.warning("volume %d: not all copies answer: %s", report.volume, report.reason)
        document = {
            "storeId": self._memberships.store_id,
            "epoch": report.epoch,
            "suspects": list(report.suspects),
            "reason": report.reason,
        }
        try:
            async with asyncio.timeout(ASK_SECONDS):
                answer = await self._calls.ask(f"/internal/volumes/{report.volume}/suspect", document)
            await self._memberships.push(entry, parse_membership(answer))
        except NewerEpoch:
            _log.info("volume %d: the Directory is behind, or was while it answered", report.volume)
        except (HaystackError, TimeoutError) as error:
            said = str(error) or f"no answer within {ASK_SECONDS:g} s"
            _log.warning("volume %d: the Directory has not decided: %s", report.volume, said)
        finally:
            self._asking.discard((report.volume, report.epoch, report.suspects))
            self._notify()
