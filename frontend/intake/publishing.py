"""Telling the front end of stored photos, until it has heard."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence

import aiohttp

from frontend.intake.outbox import Note, Outbox
from haystack.json_calls import NoAnswer, json_call

_log = logging.getLogger(__name__)

AT_ONCE = 20
IDLE_SECONDS = 5.0
CALL_TIMEOUT = aiohttp.ClientTimeout(total=10)
PATH = "/internal/photos"


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
        on_disk: Callable[..., Awaitable[list[Note]]],
        now_ms: Callable[[], int],
    ) -> None:
        self._session = session
        self._frontends = tuple(frontends)
        self._secret = secret
        self._outbox = outbox
        self._on_disk = on_disk
        self._now_ms = now_ms
        self._wake = asyncio.Event()

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
        try:
            async with asyncio.timeout(IDLE_SECONDS):
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
            except NoAnswer as error:
                problem = f"{url}: {error}"
                continue
            if answer.status in (200, 201):
                await self._on_disk(self._outbox.published, note.ticket)
                return
            problem = f"{url}: {answer.status}: {answer.reason}"
        _log.warning("a stored photo is not published yet: %s", problem)
        await self._on_disk(self._outbox.failed, note, self._now_ms())
