"""What the worker processes of Stores and Caches have in common, from their first line on.

The other end, where workers are started and watched, is :mod:`haystack.workers`.
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from haystack.http.limits import HttpLimits

LOG_FORMAT = "%(levelname)s %(name)s: %(message)s"


class Cells(Protocol):
    """Counters of a worker that others can read."""

    def add(self, cell: int, amount: int = 1) -> None: ...

    def set(self, cell: int, value: int) -> None: ...

    def responded(self, status: int) -> None: ...


@dataclass(frozen=True, slots=True)
class ConnectionCells:
    """Which cells count connections.

    Parameters
    ----------
    refusals: by kind, see ``haystack.http.handler.Observer.refused``; kinds that are not there are not counted.
    """

    now: int
    total: int
    refusals: Mapping[str, int]


class CountingObserver:
    """The :class:`~haystack.http.handler.Observer` of a worker: counts what the HTTP server itself notices."""

    def __init__(self, cells: Cells, names: ConnectionCells) -> None:
        self._cells = cells
        self._names = names
        self._open = 0

    def connection_opened(self) -> None:
        self._open += 1
        self._cells.add(self._names.total)
        self._cells.set(self._names.now, self._open)

    def connection_closed(self) -> None:
        self._open -= 1
        self._cells.set(self._names.now, self._open)

    def responded(self, status: int) -> None:
        self._cells.responded(status)

    def refused(self, kind: str) -> None:
        cell = self._names.refusals.get(kind)
        if cell is not None:
            self._cells.add(cell)


class LimitSettings(Protocol):
    """The settings of a node that bound its clients."""

    @property
    def max_header_bytes(self) -> int: ...

    @property
    def max_connections(self) -> int: ...

    @property
    def header_timeout_seconds(self) -> float: ...

    @property
    def idle_timeout_seconds(self) -> float: ...

    @property
    def stall_timeout_seconds(self) -> float: ...


def http_limits(settings: LimitSettings) -> HttpLimits:
    """The HTTP server's limits, as the settings have them."""
    return HttpLimits(
        max_header_bytes=settings.max_header_bytes,
        max_connections=settings.max_connections,
        header_timeout_seconds=settings.header_timeout_seconds,
        idle_timeout_seconds=settings.idle_timeout_seconds,
        stall_timeout_seconds=settings.stall_timeout_seconds,
    )


def log_as_worker() -> None:
    """Log to standard error; the main process' lines have the time."""
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)


def ready_on(fd: int) -> Callable[[], None]:
    """A function that tells the main process, on the descriptor inherited for that, that the worker listens."""

    def ready() -> None:
        os.write(fd, b"1")
        os.close(fd)

    return ready


def keep_what_exists() -> None:
    """Let collections of garbage pass by what exists now: it lives as long as the process."""
    gc.collect()
    gc.freeze()
