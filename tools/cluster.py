"""A cluster of one machine: one Directory, its Stores and a Cache as children, kept running until told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from tools.children import Child, ChildFailed, Ready, describe_exit

RESTART_DELAY_FIRST_SECONDS = 0.5
RESTART_DELAY_MOST_SECONDS = 30.0
STABLE_AFTER_SECONDS = 60.0
"""A process that ran this long had nothing to do with the failure before."""

STOP_MARGIN_SECONDS = 10.0
"""What a child gets beyond its own time for requests in flight, before it is killed."""

DIRECTORY = "directory"
CACHE = "cache"


class Commands(Protocol):
    """The command lines of the children."""

    def directory(self, before: Ready | None) -> Sequence[str]:
        """Command line of the Directory; ``before`` is where it listened and has to listen again, None at first."""

    def store(self, number: int, before: Ready | None, directory_url: str) -> Sequence[str]:
        """Command line of Store ``number``, counted from 1."""

    def cache(self, before: Ready | None, directory_url: str) -> Sequence[str]:
        """Command line of the Cache."""


@dataclass(frozen=True, slots=True)
class Running:
    """Where everything listens; ``cache``: None without one."""

    directory: Ready
    stores: tuple[Ready, ...]
    cache: Ready | None = None

    @property
    def directory_url(self) -> str:
        """The Directory's address as this machine reaches it."""
        return local_url(self.directory.url)


class Cluster:
    """Starts, watches and stops the children.

    Parameters
    ----------
    commands: command lines of the children.
    store_count: how many Stores.
    with_cache: whether there is a Cache.
    report: gets messages for the operator.
    on_line: gets child's name and each line that it logs.
    start_timeout_seconds: for one process to become ready.
    stop_timeout_seconds: for one process to stop before it is killed.
    """

    def __init__(
        self,
        commands: Commands,
        store_count: int,
        *,
        report: Callable[[str], None],
        on_line: Callable[[str, str], None],
        start_timeout_seconds: float,
        stop_timeout_seconds: float,
        environ: Mapping[str, str],
        pass_fds: Sequence[int] = (),
        with_cache: bool = False,
    ) -> None:
        self._commands = commands
        self._report = report
        self._start_timeout_seconds = start_timeout_seconds
        self._stop_timeout_seconds = stop_timeout_seconds
        self._directory = Child(DIRECTORY, on_line, pass_fds=pass_fds, environ=environ)
        self._stores = [
            Child(f"store{number}", on_line, pass_fds=pass_fds, environ=environ) for number in range(1, store_count + 1)
        ]
        caches = [CACHE] if with_cache else []
        self._caches = [Child(name, on_line, pass_fds=pass_fds, environ=environ) for name in caches]
        self._keepers: list[asyncio.Task[None]] = []

    async def start(self) -> Running:
        """Start the Directory, then all others at once. On failure all is stopped again; raises ChildFailed."""
        try:
            directory = await self._directory.start(self._argv(self._directory), self._start_timeout_seconds)
            results = await asyncio.gather(
                *(child.start(self._argv(child), self._start_timeout_seconds) for child in self._others),
                return_exceptions=True,
            )
            ready = []
            for result in results:
                if isinstance(result, BaseException):
                    raise result
                ready.append(result)
        except BaseException:
            await self.stop()
            raise
        self._keepers = [asyncio.create_task(self._keep(child)) for child in (self._directory, *self._others)]
        stores, caches = ready[: len(self._stores)], ready[len(self._stores) :]
        return Running(directory, tuple(stores), caches[0] if caches else None)

    @property
    def _others(self) -> list[Child]:
        """All but the Directory."""
        return [*self._stores, *self._caches]

    async def failed(self) -> None:
        """Return never, unless watching the children itself fails; then raise its error."""
        await asyncio.gather(*self._keepers)

    async def stop(self) -> None:
        """Stop all others, then the Directory, which takes the Stores' last confirmations until then."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(self._stop(child) for child in self._others))
        await self._stop(self._directory)

    def kill_now(self) -> None:
        """Kill all children at once."""
        for child in (*self._others, self._directory):
            child.kill_now()

    async def _stop(self, child: Child) -> None:
        if not await child.stop(self._stop_timeout_seconds):
            self._report(f"{child.name} did not stop within {self._stop_timeout_seconds:g} s and was killed")

    async def _keep(self, child: Child) -> None:
        failures = 0
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            what = describe_exit(await child.wait())
            if loop.time() - started > STABLE_AFTER_SECONDS:
                failures = 0
            while True:
                delay_seconds = restart_delay_seconds(failures)
                failures += 1
                self._report(f"{child.name} is down: {what}; starting it again in {delay_seconds:g} s")
                # Its workers still finish their requests and hold its folder and port.
                await child.group_gone(self._stop_timeout_seconds)
                await asyncio.sleep(delay_seconds)
                try:
                    ready = await child.start(self._argv(child), self._start_timeout_seconds)
                except ChildFailed as error:
                    what = str(error)
                    continue
                self._report(f"{child.name} is up again: {ready.url}")
                break

    def _argv(self, child: Child) -> Sequence[str]:
        if child is self._directory:
            return self._commands.directory(child.ready)
        assert self._directory.ready is not None
        directory_url = local_url(self._directory.ready.url)
        if child in self._caches:
            return self._commands.cache(child.ready, directory_url)
        return self._commands.store(self._stores.index(child) + 1, child.ready, directory_url)


def restart_delay_seconds(failures: int) -> float:
    """Return how long to wait before a restart, after so many failures in a row."""
    return min(RESTART_DELAY_FIRST_SECONDS * 2.0 ** min(failures, 16), RESTART_DELAY_MOST_SECONDS)


def local_url(url: str) -> str:
    """Return the address under which this machine reaches a server that may listen on all addresses."""
    parts = urlsplit(url)
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(parts.hostname or "")  # noqa: S104 - compared, not bound
    return url if host is None else parts._replace(netloc=f"{host}:{parts.port}").geturl()
