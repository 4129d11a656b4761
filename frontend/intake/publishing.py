"""Telling the front end of stored photos, until it has heard."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

import aiohttp

from frontend.intake.outbox import Note, Outbox
from haystack.json_calls import AnswerTooLarge, NoAnswer, json_call

Result = TypeVar("Result")

_log = logging.getLogger(__name__)

AT_ONCE = 20
IDLE_SECONDS = 60.0
"""How often old notes are removed, when nothing else is to be done."""
CALL_TIMEOUT = aiohttp.ClientTimeout(total=10)
PATH = "/internal/photos"


class OnDisk(Protocol):
    """Runs a call of the outbox on its thread."""

    def __call__(self, act: Callable[..., Result], *args: object) -> Awaitable[Result]: ...


class Publisher:
    """Sends records to the front end: each photo until one of the front ends has it.

    Parameters
    ----------
    frontends: URLs, without a path.
    on_disk: runs a call of the outbox on its thread.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        frontends: Sequence[str],
        secret: bytes,
        outbox: Outbox,
        on_disk: OnDisk,
        now_ms: Callable[[], int],
    ) -> None:
        self._session = session
        self._frontends = tuple(frontends)
        self._secret = secret
        self._outbox = outbox
        self._on_disk = on_disk
        self._now_ms = now_ms
        self._wake = asyncio.Event()
        self.published = self.failures = 0

    def wake(self) -> None:
        """There is something to publish."""
        self._wake.set()

    async def run(self) -> None:
        """Publish what is due, for ever."""
        while True:
            self._wake.clear()
            due = await self._on_disk(self._outbox.due, self._now_ms(), AT_ONCE)
            for note in due:
                await self._publish(note)
            if len(due) < AT_ONCE:
                await self._on_disk(self._outbox.forget_expired, self._now_ms() / 1000)
                await self._sleep()

    async def _sleep(self) -> None:
        """Until the next attempt is due, or something new is there."""
        next_ms = await self._on_disk(self._outbox.next_ms)
        seconds = IDLE_SECONDS if next_ms is None else (next_ms - self._now_ms()) / 1000
        try:
            async with asyncio.timeout(min(IDLE_SECONDS, max(0.0, seconds))):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _publish(self, note: Note) -> None:
        problem = "no front end is configured"
        for url in self._frontends:
            try:
                answer = await json_call(
                    self._session,
                    "POST",
                    url + PATH,
                    json.loads(note.record),
                    secret=self._secret,
                    timeout=CALL_TIMEOUT,
                )
            except (NoAnswer, AnswerTooLarge) as error:
                problem = f"{url}: {error}"
                continue
            if answer.status in (200, 201):
                await self._on_disk(self._outbox.published, note.ticket)
                self.published += 1
                return
            problem = f"{url}: {answer.status}: {answer.reason}"
        self.failures += 1
        _log.warning("a stored photo is not published yet: %s", problem)
        await self._on_disk(self._outbox.failed, note, self._now_ms())
