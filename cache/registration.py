"""A Cache's heartbeats to the Directories, which hand out its address as long as they hear of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from haystack.errors import HaystackError
from haystack.json_calls import json_call
from haystack.store.hot_photos import Hits

BEAT_SECONDS = 0.5
MIN_BEAT_SECONDS = 0.05
MAX_BEAT_SECONDS = 60.0

ANSWER_SECONDS = 2.0
"""Time for an answer. A Directory that is slower may be frozen; it is told anew, on another connection."""

LEAVE_SECONDS = 1.0

MAX_HITS = 256
"""Photos whose reads one heartbeat tells; others wait for the next one."""

log = logging.getLogger(__name__)


class RegistrationRefused(HaystackError):
    """A Directory answered a heartbeat, and does not take this Cache in."""

    http_status = 409


@dataclass(slots=True)
class _Link:
    """One Directory: whether it knows this Cache, and what is wrong."""

    url: str
    interval_seconds: float = BEAT_SECONDS
    registered: bool = False
    problem: str = ""


class Registration:
    """Reports to every Directory.

    Parameters
    ----------
    urls: of the Directories. secret: of the cluster, None for unsigned calls.
    describe: makes the whole heartbeat, as docs/cache.md has it.
    hits: reads by photo, which the first Directory alone is told: whoever asks all of them counts none twice.
    """

    def __init__(
        self,
        urls: Sequence[str],
        secret: bytes | None,
        describe: Callable[[], Mapping[str, Any]],
        hits: Hits | None = None,
    ) -> None:
        self._hits = hits
        self._links = [_Link(url) for url in urls]
        self._secret = secret
        self._describe = describe

    async def run(self) -> None:
        """Report for ever."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS)) as session:
            await asyncio.gather(*(self._report(session, link) for link in self._links))

    async def leave(self) -> None:
        """Tell all Directories that this Cache stops; those that do not answer at once will notice."""
        cache_id = self._describe()["cacheId"]
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LEAVE_SECONDS)) as session:
            calls = (
                self._call(session, link, "/internal/caches/leave", {"cacheId": cache_id})
                for link in self._links
                if link.registered
            )
            for outcome in await asyncio.gather(*calls, return_exceptions=True):
                if isinstance(outcome, HaystackError):
                    log.info("a Directory was not told of the end: %s", outcome)
                elif isinstance(outcome, BaseException):
                    raise outcome

    def status(self) -> list[dict[str, Any]]:
        """Return each Directory's address, whether it knows this Cache, and what is wrong."""
        return [{"url": link.url, "registered": link.registered, "error": link.problem} for link in self._links]

    async def _report(self, session: aiohttp.ClientSession, link: _Link) -> None:
        while True:
            try:
                told = self._hits.peek(MAX_HITS) if self._hits is not None and link is self._links[0] else []
                document = {**self._describe(), "hits": [[f"{key:x}", count] for key, count in told]}
                answer = await self._call(session, link, "/internal/caches/heartbeat", document)
            except HaystackError as error:
                if not link.problem:
                    log.warning("Directory %s does not take this Cache's heartbeats; trying again: %s", link.url, error)
                link.registered, link.problem = False, str(error)
            else:
                if link.problem or not link.registered:
                    log.info("Directory %s knows this Cache", link.url)
                link.registered, link.problem = True, ""
                if self._hits is not None:
                    self._hits.told(told)
                link.interval_seconds = _interval(answer, link.interval_seconds)
            await asyncio.sleep(link.interval_seconds)

    async def _call(
        self, session: aiohttp.ClientSession, link: _Link, path: str, document: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        answer = await json_call(session, "POST", link.url + path, document, secret=self._secret)
        if answer.status != 200 or not isinstance(answer.document, dict):
            raise RegistrationRefused(f"{answer.status}: {answer.reason}")
        return answer.document


def _interval(answer: Mapping[str, Any], before_seconds: float) -> float:
    seconds = answer.get("heartbeatSeconds")
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        return before_seconds
    return min(max(float(seconds), MIN_BEAT_SECONDS), MAX_BEAT_SECONDS)
