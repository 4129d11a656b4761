"""Where volumes are, as the Directory says: believed for a while, and remembered in case that none answers."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import aiohttp

from haystack.bounded import BoundedCache
from haystack.client.health import StoreHealth
from haystack.errors import HaystackError, NeedleNotFound, VolumeNotFound, VolumeUnavailable
from haystack.fid import Fid
from haystack.json_calls import json_call
from haystack.lifetime import end_tasks
from haystack.weighted import weighted_order

BELIEVED_SECONDS = 10.0
DOUBTED_SECONDS = 2.0
"""What Stores do not know is asked for at the Directory once more when its answer is older than this."""

ANSWER_SECONDS = 1.0
"""Time for a Directory; then the next one is asked, or what was known before must do."""

RETRY_SECONDS = 1.0
"""After a Directory did not answer, what was known is used for so long without asking again."""

MAX_VOLUMES = 10_000
MAX_CALLS = 64
"""Questions to Directories at the same time; more fail, as if none had answered."""

SUSPECT_SECONDS = 5.0
"""A Store that failed is tried last for so long."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a volume is.

    Parameters
    ----------
    seed: of the checks of its needles.
    writable: whether it takes new photos.
    addresses: ``host:port`` of its Stores, the one first that knows best what was deleted.
    weights: the share of the reads that each of them is to get.
    asked: when the Directory was asked, by the loop's clock.
    """

    volume: int
    seed: int
    writable: bool
    addresses: tuple[str, ...]
    weights: tuple[float, ...]
    asked: float


class DirectorySilent(HaystackError):
    """No Directory answered, or none usefully."""

    http_status = 503


class Places:
    """Knows where volumes are. Use it as an async context manager.

    Parameters
    ----------
    urls: of the Directories.
    secret: of the cluster; None for unsigned calls.
    now: a clock that never goes back, in seconds. uniform: random numbers in 0 ≤ x < 1.
    """

    def __init__(
        self,
        urls: Sequence[str],
        secret: bytes | None,
        *,
        now: Callable[[], float] = time.monotonic,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._urls = list(urls)
        self._secret = secret
        self._now = now
        self._uniform = uniform
        self._places = BoundedCache[int, Place](MAX_VOLUMES)
        self._asking: dict[int, asyncio.Task[Place]] = {}
        self._believed: dict[int, float] = {}
        self._calls = 0
        self._health = StoreHealth(first_penalty_seconds=SUSPECT_SECONDS, most_penalty_seconds=SUSPECT_SECONDS, now=now)
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Places:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS))
        return self

    async def __aexit__(self, *error: object) -> None:
        await end_tasks(self._asking.values())
        await self._session.close()

    async def locate(self, volume: int) -> Place:
        """Where a volume is. Raises VolumeNotFound, VolumeUnavailable, DirectorySilent.

        What is older than :data:`BELIEVED_SECONDS` is asked for again; meanwhile, and while no Directory answers, what
        is known is used.
        """
        place = self._places.get(volume)
        if place is None:
            return await asyncio.shield(self._ask(volume))
        if self._now() >= self._believed.get(volume, 0.0):
            asking = self._ask(volume)
            if volume not in self._believed:
                return await self._new_or_known(asking, place)
        return place

    async def look_again(self, place: Place) -> Place:
        """Where the volume is by now, when Stores do not have what they should."""
        if self._now() - place.asked < DOUBTED_SECONDS:
            return place
        return await self._new_or_known(self._ask(place.volume), place)

    def forget(self, volume: int) -> None:
        """Other Stores have the volume now: ask before it is used again."""
        self._believed.pop(volume, None)

    def failed(self, address: str) -> None:
        """A Store did not answer: try it last for a while."""
        self._health.failed(address)

    def worked(self, address: str) -> None:
        """A Store answered."""
        self._health.worked(address)

    def in_order(self, place: Place) -> list[str]:
        """The addresses in the order in which to ask whether a photo is still there."""
        return self._health.in_order(place.addresses, lambda address: (address,))

    def for_reading(self, place: Place) -> list[str]:
        """The addresses in the order to try them for one read, drawn by weight."""
        drawn = weighted_order(place.addresses, place.weights, self._uniform)
        return self._health.in_order(drawn, lambda address: (address,))

    async def photo(self, photo: int, alternate: int) -> tuple[int, int, int, int]:
        """The needle of a photo's rendition: volume, key, cookie, alternate. Raises NeedleNotFound, DirectorySilent."""
        document = await self._call(f"/photos/{photo:x}", signed=False)
        try:
            fids = [Fid.parse(one["fid"]) for one in document["renditions"]]
        except (KeyError, TypeError, HaystackError) as error:
            raise DirectorySilent(f"a Directory answers strangely about photo {photo:x}: {error!r}") from error
        for fid in fids:
            if fid.alternate == alternate:
                return fid.volume, fid.key, fid.cookie, fid.alternate
        raise NeedleNotFound(f"photo {photo:x} has no rendition {alternate}")

    async def _new_or_known(self, asking: asyncio.Task[Place], known: Place) -> Place:
        try:
            return await asyncio.shield(asking)
        except (VolumeUnavailable, DirectorySilent):
            return known

    def _ask(self, volume: int) -> asyncio.Task[Place]:
        task = self._asking.get(volume)
        if task is None:
            task = self._asking[volume] = asyncio.create_task(self._locate(volume))
            task.add_done_callback(lambda done: self._asked(volume, done))
        return task

    def _asked(self, volume: int, task: asyncio.Task[Place]) -> None:
        self._asking.pop(volume, None)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, VolumeNotFound):
            self._places.pop(volume, None)
            self._believed.pop(volume, None)
        elif error is not None:
            self._believed[volume] = self._now() + RETRY_SECONDS
            if not isinstance(error, HaystackError):
                _log.error("asking where volume %d is failed", volume, exc_info=error)

    async def _locate(self, volume: int) -> Place:
        asked = self._now()
        document = await self._call(f"/internal/cache/volume?volume={volume}", signed=True)
        try:
            addresses = tuple(str(one["url"]) for one in document["locations"])
            weights = tuple(max(0.0, float(one.get("weight", 1.0))) for one in document["locations"])
            seed = int.from_bytes(UUID(document["uuid"]).bytes[:8], "little")
            place = Place(volume, seed, bool(document["writable"]), addresses, weights, asked)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DirectorySilent(f"a Directory answers strangely about volume {volume}: {error!r}") from error
        if not addresses:
            raise VolumeUnavailable(f"volume {volume} is on no Store at the moment")
        if len(self._believed) > MAX_VOLUMES:
            self._believed.clear()
        self._places.add(volume, place)
        self._believed[volume] = self._now() + BELIEVED_SECONDS
        return place

    async def _call(self, path: str, *, signed: bool) -> dict[str, Any]:
        if self._calls >= MAX_CALLS:
            raise DirectorySilent(f"{self._calls} questions to Directories are open already")
        self._calls += 1
        try:
            return await self._call_any(path, self._secret if signed else None)
        finally:
            self._calls -= 1

    async def _call_any(self, path: str, secret: bytes | None) -> dict[str, Any]:
        problem: HaystackError = DirectorySilent("no Directory is configured")
        for url in list(self._urls):
            try:
                answer = await json_call(self._session, "GET", url + path, secret=secret)
            except HaystackError as error:
                problem = DirectorySilent(f"Directory {url} does not answer: {error}")
                continue
            if url != self._urls[0]:
                self._urls.remove(url)
                self._urls.insert(0, url)
            if answer.status == 200 and isinstance(answer.document, dict):
                return answer.document
            if answer.status == 404:
                raise _not_found(path, answer.reason)
            if answer.status == 503:
                raise VolumeUnavailable(answer.reason)
            problem = DirectorySilent(f"Directory {url} answers {answer.status}: {answer.reason}")
        raise problem


def _not_found(path: str, reason: str) -> HaystackError:
    return NeedleNotFound(reason) if path.startswith("/photos/") else VolumeNotFound(reason)
