"""Registration and heartbeats: what a Store tells each of its Directories about itself."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from haystack.errors import HaystackError
from haystack.store.directories import DirectoryCalls, DirectoryRefused, DirectoryUnreachable, retry_pause_seconds
from haystack.store.documents import Document, Documents, changed_documents
from haystack.store.folder import DataFolder
from haystack.store.heat import HeatReporter, StoreHeat
from haystack.store.settings import Timing

_log = logging.getLogger(__name__)

MIN_HEARTBEAT_SECONDS = 0.02
MAX_HEARTBEAT_SECONDS = 60.0

PATIENT_HEARTBEATS = 4
MIN_PATIENCE_SECONDS = 2.0
"""A heartbeat is given up after so many intervals, at least so many seconds: what a partition swallowed is sent again
ever more seldom, so that one which began before may hang for long after everything is well again."""


class Heartbeats:
    """Keeps all Directories informed.

    Parameters
    ----------
    heat: brought up to date with each heartbeat.
    on_registered: called after every registration: that Directory may know less than it did.
    on_answer: called with a Directory's address and its answer to a heartbeat.
    dice: random numbers in 0 ≤ x < 1.
    clock: seconds, never going back.
    """

    def __init__(
        self,
        calls: DirectoryCalls,
        documents: Documents,
        folders: Sequence[DataFolder],
        timing: Timing,
        heat: StoreHeat,
        *,
        on_registered: Callable[[], None] = lambda: None,
        on_answer: Callable[[str, Document], None] = lambda url, answer: None,
        dice: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._calls = calls
        self._documents = documents
        self._folders = folders
        self._timing = timing
        self._on_registered = on_registered
        self._on_answer = on_answer
        self._dice = dice
        self._clock = clock
        self._heat = heat
        self._links = [_Link(url, heat.reporter()) for url in calls.urls]

    def wake(self) -> None:
        """Something important changed: do not wait for the next heartbeat."""
        for link in self._links:
            link.wake.set()

    def status(self) -> list[Document]:
        """Each Directory's address, whether it knows us, and what is wrong."""
        return [{"url": link.url, "registered": link.registered, "error": link.problem} for link in self._links]

    async def run(self) -> None:
        """Report for ever."""
        await asyncio.gather(*(self._report(link) for link in self._links))

    async def _report(self, link: _Link) -> None:
        while True:
            try:
                if not link.registered:
                    await self._register(link)
                else:
                    await self._beat(link)
            except (DirectoryUnreachable, DirectoryRefused) as error:
                self._failed(link, error)
                await asyncio.sleep(retry_pause_seconds(link.failures, self._dice(), self._timing))
                continue
            if link.problem:
                _log.info("Directory %s answers again", link.url)
            link.failures, link.problem = 0, ""
            if link.registered:
                await link.pause()

    def _failed(self, link: _Link, error: HaystackError) -> None:
        link.failures += 1
        if not link.problem:
            _log.warning("%s; trying again", error)
        link.problem = str(error)

    async def _register(self, link: _Link) -> None:
        document = self._documents.store()
        answer = await self._calls.post(link.url, "/internal/stores/register", document)
        cluster_id, link.interval_seconds = _read_registration(link.url, answer)
        await self._join(cluster_id)
        link.reported = {one["volume"]: one for one in document["volumes"]}
        link.sequence = 0
        link.heat.forget()
        link.registered = True
        _log.info("registered with Directory %s of cluster %s", link.url, cluster_id)
        self._on_registered()

    async def _beat(self, link: _Link) -> None:
        link.wake.clear()
        now = self._documents.known_volumes()
        changed, removed = changed_documents(link.reported, now)
        self._heat.tick(self._clock())
        report = link.heat.next(self._clock())
        link.sequence += 1
        message = {
            "storeId": self._documents.facts.store_id,
            "sequence": link.sequence,
            "folders": self._documents.folders(),
            "volumes": changed,
            "removed": removed,
            "heat": report.document(),
        }
        patience_seconds = beat_patience_seconds(
            link.interval_seconds, link.failures, self._timing.directory_timeout_seconds
        )
        try:
            async with asyncio.timeout(patience_seconds):
                answer = await self._calls.post(link.url, "/internal/stores/heartbeat", message)
        except TimeoutError as error:
            raise DirectoryUnreachable(
                f"Directory {link.url} does not answer a heartbeat within {patience_seconds:g} s"
            ) from error
        self._on_answer(link.url, answer)
        if answer.get("known") is True:
            link.reported = now
            link.heat.gone(removed)
            link.heat.told(report, self._clock())
        else:
            link.registered = False

    async def _join(self, cluster_id: str) -> None:
        for folder in self._folders:
            if folder.failed:
                continue
            try:
                await folder.run(folder.join_cluster, cluster_id)
            except HaystackError as error:
                _log.warning("the cluster's id is not noted in %s: %s", folder.path, error)


class _Link:
    """What is known of one Directory."""

    def __init__(self, url: str, heat: HeatReporter) -> None:
        self.url = url
        self.heat = heat
        self.registered = False
        self.interval_seconds = 1.0
        self.sequence = 0
        self.failures = 0
        self.problem = ""
        self.reported: dict[int, Document] = {}
        self.wake = asyncio.Event()

    async def pause(self) -> None:
        """Wait for the next heartbeat's time, or for something important."""
        try:
            async with asyncio.timeout(self.interval_seconds):
                await self.wake.wait()
        except TimeoutError:
            pass  # nothing important happened, which is the usual case


def beat_patience_seconds(interval_seconds: float, failures: int, most_seconds: float) -> float:
    """How long to wait for the answer to a heartbeat; longer each time, for a Directory that is only slow.

    Parameters
    ----------
    interval_seconds: between heartbeats.
    failures: in a row.
    most_seconds: for any call to a Directory.
    """
    first_seconds = max(MIN_PATIENCE_SECONDS, PATIENT_HEARTBEATS * interval_seconds)
    return min(first_seconds * 2.0 ** min(failures, 16), most_seconds)


def _read_registration(url: str, answer: dict[str, Any]) -> tuple[str, float]:
    try:
        seconds = float(answer["heartbeatSeconds"])
        return str(UUID(answer["clusterId"])), min(max(seconds, MIN_HEARTBEAT_SECONDS), MAX_HEARTBEAT_SECONDS)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DirectoryUnreachable(f"Directory {url} answers a registration strangely: {error!r}") from error
