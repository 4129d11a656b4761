"""A cluster of one machine as children, kept running until told to stop.

One Directory, its Stores, a Cache; and for the photo service a front end, and an intake beside each Store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from haystack.lifetime import end_tasks
from tools.children import Child, ChildFailed, Ready, describe_exit

RESTART_DELAY_FIRST_SECONDS = 0.5
RESTART_DELAY_MOST_SECONDS = 30.0
STABLE_AFTER_SECONDS = 60.0
"""A process that ran this long had nothing to do with the failure before."""

STOP_MARGIN_SECONDS = 10.0
"""What a child gets beyond its own time for requests in flight, before it is killed."""

DIRECTORY = "directory"
CACHE = "cache"
FRONTEND = "frontend"
INTAKE = "intake"


class Commands(Protocol):
    """The command lines of the children."""

    def directory(self, before: Ready | None) -> Sequence[str]:
        """Command line of the Directory; ``before`` is where it listened and has to listen again, None at first."""

    def store(self, number: int, before: Ready | None, directory_url: str) -> Sequence[str]:
        """Command line of Store ``number``, counted from 1."""

    def cache(self, before: Ready | None, directory_url: str) -> Sequence[str]:
        """Command line of the Cache."""

    def frontend(self, before: Ready | None, directory_url: str) -> Sequence[str]:
        """Command line of the photo service's front end."""

    def intake(self, number: int, before: Ready | None, store_url: str, frontend_url: str) -> Sequence[str]:
        """Command line of the intake beside Store ``number``."""


@dataclass(frozen=True, slots=True)
class Running:
    """Where everything listens; ``cache`` and ``frontend``: None without one."""

    directory: Ready
    stores: tuple[Ready, ...]
    cache: Ready | None = None
    frontend: Ready | None = None
    intakes: tuple[Ready, ...] = ()

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
    with_frontend: whether there are a front end and intakes.
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
        with_frontend: bool = False,
    ) -> None:
        self._commands = commands
        self._report = report
        self._start_timeout_seconds = start_timeout_seconds
        self._stop_timeout_seconds = stop_timeout_seconds

        def children(names: Sequence[str]) -> list[Child]:
            return [Child(name, on_line, pass_fds=pass_fds, environ=environ) for name in names]

        numbers = range(1, store_count + 1)
        [self._directory] = children([DIRECTORY])
        self._stores = children([f"store{number}" for number in numbers])
        self._caches = children([CACHE] if with_cache else [])
        self._frontends = children([FRONTEND] if with_frontend else [])
        self._intakes = children([f"{INTAKE}{number}" for number in numbers] if with_frontend else [])
        self._keepers: list[asyncio.Task[None]] = []

    async def start(self) -> Running:
        """Start the Directory, then all others at once, the intakes last: they want to know where Stores and front end
        are. On failure all is stopped again; raises ChildFailed."""
        try:
            directory = await self._directory.start(self._argv(self._directory), self._start_timeout_seconds)
            stores, caches, frontends = await self._start_all(self._stores, self._caches, self._frontends)
            [intakes] = await self._start_all(self._intakes)
        except BaseException:
            await self.stop()
            raise
        self._keepers = [asyncio.create_task(self._keep(child)) for child in (self._directory, *self._others)]
        return Running(
            directory,
            tuple(stores),
            caches[0] if caches else None,
            frontends[0] if frontends else None,
            tuple(intakes),
        )

    async def _start_all(self, *groups: list[Child]) -> list[list[Ready]]:
        """Start them at once, and return where they listen when all do. Raises the first failure."""
        results = await asyncio.gather(
            *(child.start(self._argv(child), self._start_timeout_seconds) for group in groups for child in group),
            return_exceptions=True,
        )
        ready = []
        for result in results:
            if isinstance(result, BaseException):
                raise result
            ready.append(result)
        following = iter(ready)
        return [[next(following) for _ in group] for group in groups]

    @property
    def _others(self) -> list[Child]:
        """All but the Directory."""
        return [*self._stores, *self._caches, *self._frontends, *self._intakes]

    async def failed(self) -> None:
        """Return never, unless watching the children itself fails; then raise its error."""
        await asyncio.gather(*self._keepers)

    async def stop(self) -> None:
        """Stop all others, then the Directory, which takes the Stores' last confirmations until then."""
        await end_tasks(self._keepers)
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
        if child in self._frontends:
            return self._commands.frontend(child.ready, directory_url)
        if child in self._intakes:
            number = self._intakes.index(child) + 1
            store, frontend = self._stores[number - 1].ready, self._frontends[0].ready
            assert store is not None and frontend is not None
            return self._commands.intake(number, child.ready, local_url(store.url), local_url(frontend.url))
        return self._commands.store(self._stores.index(child) + 1, child.ready, directory_url)


def restart_delay_seconds(failures: int) -> float:
    """Return how long to wait before a restart, after so many failures in a row."""
    return min(RESTART_DELAY_FIRST_SECONDS * 2.0 ** min(failures, 16), RESTART_DELAY_MOST_SECONDS)


def local_url(url: str) -> str:
    """Return the address under which this machine reaches a server that may listen on all addresses."""
    parts = urlsplit(url)
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(parts.hostname or "")  # noqa: S104 - compared, not bound
    return url if host is None else parts._replace(netloc=f"{host}:{parts.port}").geturl()
