"""Follows the feed of the Directory, so that a Cache hears of deletes within moments."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode

import aiohttp

from cache import clock, feed_state
from cache.feed_state import Answer, Change, FeedAnswerInvalid, Vouching, parse_answer
from haystack.errors import HaystackError
from haystack.json_calls import json_call

WAIT_SECONDS = 0.15
"""How long a Directory may wait for news. An answer counts for half a second from when it was asked for, and the next
one is asked for when it came: twice this, and twice the way there and back, must stay well below half a second."""

ANSWER_SECONDS = 0.75
"""Time for an answer. What comes later than that proves nothing any more, and another Directory may know more."""

FIRST_ANSWER_SECONDS = 5.0
"""The same while nothing is vouched for anyway, and the answer may be long."""

PAUSE_SECONDS = 0.1
"""Between a failure and the next question."""

LONGEST_PAUSE_SECONDS = 1.0

log = logging.getLogger(__name__)


class FeedRefused(HaystackError):
    """A Directory answered, and does not give its feed."""

    http_status = 502


class Feed:
    """Asks a Directory for changes, again and again; the next one when it does not answer.

    Each Directory numbers its own feed. Another one therefore means that everything is asked for again.

    Parameters
    ----------
    urls: of the Directories, at least one.
    secret: of the cluster; None for unsigned calls.
    vouching: is told of every answer.
    on_changes: carries changes out. It is called before ``vouching`` moves, so whoever looks at that first never gives
        out what a change has taken back.
    clock: seconds; the one that ``vouching`` is asked with.
    """

    def __init__(
        self,
        urls: Sequence[str],
        secret: bytes | None,
        vouching: Vouching,
        on_changes: Callable[[Sequence[Change]], None],
        *,
        clock: Callable[[], float] = clock.now,
    ) -> None:
        self._urls = tuple(urls)
        self._secret = secret
        self._vouching = vouching
        self._on_changes = on_changes
        self._clock = clock
        self._current = 0
        self._failures = 0
        self._problem = "no Directory has answered yet"

    async def run(self) -> None:
        """Follow the feed for ever."""
        async with aiohttp.ClientSession() as session:
            while True:
                began = self._clock()
                try:
                    answer = await self._ask(session)
                except HaystackError as error:
                    self._failed(str(error))
                    await asyncio.sleep(min(PAUSE_SECONDS * self._failures, LONGEST_PAUSE_SECONDS))
                else:
                    self._take(answer, began)

    def status(self) -> dict[str, Any]:
        """Return for people whom it follows, and how far it may vouch."""
        return {
            "url": self._urls[self._current],
            **feed_state.status(self._vouching, self._clock()),
            "problem": self._problem,
        }

    async def _ask(self, session: aiohttp.ClientSession) -> Answer:
        vouching = self._vouching
        known = vouching.incarnation != ""
        query = {"incarnation": vouching.incarnation, "after": vouching.sequence, "wait": WAIT_SECONDS}
        url = f"{self._urls[self._current]}/internal/cache/changes?{urlencode(query)}"
        seconds = ANSWER_SECONDS if known and not self._failures else FIRST_ANSWER_SECONDS
        if len(self._urls) > 1:
            seconds = min(seconds, 1.0)
        timeout = aiohttp.ClientTimeout(total=seconds)
        answer = await json_call(session, "GET", url, secret=self._secret, timeout=timeout)
        if answer.status != 200:
            raise FeedRefused(f"{answer.status}: {answer.reason}")
        return parse_answer(answer.document)

    def _take(self, answer: Answer, began: float) -> None:
        vouching = self._vouching
        if answer.incarnation == vouching.incarnation and answer.sequence < vouching.sequence:
            self._failed("the feed goes backwards")
            return
        if self._problem:
            log.info("the feed of Directory %s is followed", self._urls[self._current])
        self._failures, self._problem = 0, ""
        if answer.changes:
            self._on_changes(answer.changes)
        vouching.took(answer, began, self._clock())

    def _failed(self, problem: str) -> None:
        url = self._urls[self._current]
        if not self._failures:
            log.warning(
                "the feed of Directory %s is not followed, what is here is asked for at Stores: %s", url, problem
            )
        self._failures += 1
        self._problem = f"Directory {url}: {problem}"
        self._current = (self._current + 1) % len(self._urls)


__all__ = ["Change", "Feed", "FeedAnswerInvalid", "FeedRefused", "Vouching"]
