"""Passwords: argon2, on threads, a few at a time, with the same work whether there is such an account or not."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from frontend.services.errors import Busy

THREADS = 2
"""Each needs 64 MiB and some 50 ms of a processor for one password."""

MAX_WAITING = 64

Result = TypeVar("Result")


class Passwords:
    """Hashes and checks passwords.

    Parameters
    ----------
    hasher: with its cost; by default RFC 9106's second choice, 64 MiB of memory.
    """

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._threads = ThreadPoolExecutor(THREADS, "passwords")
        self._waiting = 0
        self._nobodys = ""

    async def hash(self, password: str) -> str:
        """The hash to keep, with salt and cost in it. Raises Busy when too many wait already."""
        return await self._run(self._hasher.hash, password)

    async def matches(self, kept: str | None, password: str) -> bool:
        """Whether this is the password of a hash. Takes the same time when there is none.

        Raises Busy when too many wait already.
        """
        if not self._nobodys:
            self._nobodys = await self.hash(secrets.token_hex(16))
        return await self._run(self._verify, kept or self._nobodys, password) and kept is not None

    def outdated(self, kept: str) -> bool:
        """Whether a hash was made with another cost than new ones."""
        return self._hasher.check_needs_rehash(kept)

    def close(self) -> None:
        self._threads.shutdown()

    def _verify(self, kept: str, password: str) -> bool:
        try:
            return self._hasher.verify(kept, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _run(self, act: Callable[..., Result], *args: str) -> Result:
        if self._waiting >= MAX_WAITING:
            raise Busy("too many people log in at the same time; try again in a moment")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, act, *args)
        finally:
            self._waiting -= 1
