"""Calls of a Store to its Directories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp

from haystack.errors import HaystackError
from haystack.json_calls import AnswerTooLarge, NoAnswer, json_call
from haystack.store.settings import Timing

REFUSALS = range(400, 500)
UNSIGNED = 401
BUSY = (408, 429)


class DirectoryUnreachable(HaystackError):
    """A Directory does not answer, or not in a useful way; the call is repeated later."""

    http_status = 503


class DirectoryRefused(HaystackError):
    """A Directory answered, and does not accept what was said."""

    http_status = 409


class DirectoryCalls:
    """Signed calls to the Directories. Make it inside the event loop; use it as an async context manager.

    Parameters
    ----------
    urls: addresses of the Directories; they share their state, so any of them may take a confirmation.
    secret: of the cluster, None for unsigned calls.
    """

    def __init__(self, urls: Sequence[str], secret: bytes | None, timing: Timing) -> None:
        self.urls = tuple(urls)
        self._secret = secret
        self._preferred = 0
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timing.directory_timeout_seconds))

    async def __aenter__(self) -> DirectoryCalls:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._session.close()

    @property
    def preferred_url(self) -> str:
        """Address of the Directory that took the last confirmation, at first of the first one."""
        return self.urls[self._preferred]

    async def post(self, url: str, path: str, document: Mapping[str, Any]) -> dict[str, Any]:
        """Make one call to one Directory; returns its answer. Raises DirectoryUnreachable, DirectoryRefused."""
        try:
            answer = await json_call(self._session, "POST", url + path, document, secret=self._secret)
        except (NoAnswer, AnswerTooLarge) as error:
            raise DirectoryUnreachable(f"Directory {url} cannot be reached: {error}") from error
        status = answer.status
        if status == UNSIGNED:
            # Clocks and secrets are put right by people, without a restart of this Store in the case of clocks.
            raise DirectoryUnreachable(f"Directory {url} refuses our signature: {answer.reason}")
        if status in REFUSALS and status not in BUSY:
            raise DirectoryRefused(f"Directory {url} refuses {path} with {status}: {answer.reason}")
        if status != 200 or not isinstance(answer.document, dict):
            raise DirectoryUnreachable(f"Directory {url} answers {path} with {status}: {answer.reason}")
        return answer.document

    async def ask(self, path: str, document: Mapping[str, Any]) -> dict[str, Any]:
        """Make one call to the first Directory that answers. Raises DirectoryUnreachable, DirectoryRefused."""
        problem = DirectoryUnreachable("no Directory is configured")
        for distance in range(len(self.urls)):
            index = (self._preferred + distance) % len(self.urls)
            try:
                return await self.post(self.urls[index], path, document)
            except DirectoryUnreachable as error:
                problem = error
        raise problem

    async def confirm(self, document: Mapping[str, Any]) -> int:
        """Tell the first Directory that answers of needles; returns up to where it knows the volume now.

        Raises DirectoryUnreachable when none answers, DirectoryRefused.
        """
        problem = DirectoryUnreachable("no Directory is configured")
        for distance in range(len(self.urls)):
            index = (self._preferred + distance) % len(self.urls)
            try:
                answer = await self.post(self.urls[index], "/internal/confirm", document)
            except DirectoryUnreachable as error:
                problem = error
                continue
            self._preferred = index
            confirmed_to = answer.get("confirmedTo")
            if not isinstance(confirmed_to, int) or confirmed_to < 0:
                raise DirectoryUnreachable(f"Directory {self.urls[index]} answers without a valid confirmedTo")
            return confirmed_to
        raise problem


def retry_pause_seconds(failures: int, dice: float, timing: Timing) -> float:
    """How long to wait before a call is repeated.

    Parameters
    ----------
    failures: in a row, at least one.
    dice: a random number in 0 ≤ x < 1: thousands of Stores must not all come back at the same moment.
    """
    longest = min(timing.retry_first_seconds * 2.0 ** min(failures - 1, 16), timing.retry_most_seconds)
    return float(longest * (0.5 + dice / 2))
