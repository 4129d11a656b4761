"""The worker processes of a Store: what they inherit, and what the control block says of them.

A worker inherits the control block, a memfd with its settings, and the locks of the data folders, so that these stay
locked until the last process that may write has ended. The rest is in :mod:`haystack.workers`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from haystack.store.control import ControlBlock
from haystack.store.control_cells import Counter, Header
from haystack.store.settings import Timing, WorkerSettings
from haystack.workers import Launch, WorkerProcesses

_GAUGES = (Counter.CONNECTIONS_OPEN, Counter.CACHED_ENTRIES, Counter.UPLOAD_MEMORY_BYTES, Counter.PID)


@dataclass(frozen=True, slots=True)
class WorkerFds:
    """Descriptors that a worker is told of on its command line."""

    control: int
    settings: int
    ready: int
    link: int = -1


Command = Callable[[WorkerSettings, WorkerFds], Sequence[str]]
"""Makes the command line of a worker."""

OpenLink = Callable[[int], int]
"""Is given the number of a worker; returns a descriptor, which is closed when the worker has it."""


def worker_command(settings: WorkerSettings, fds: WorkerFds) -> list[str]:
    """The command line of a worker: what an operator wants to see in ``ps``, and the inherited descriptors."""
    # -P: a folder named "haystack" where the Store happens to be started must not be taken for ours.
    argv = [sys.executable, "-P", "-m", "haystack.store.worker"]
    for folder in settings.folders:
        argv += ["--data", os.fspath(folder)]
    argv += ["--port", str(settings.port), "--worker", str(settings.worker)]
    argv += ["--control-fd", str(fds.control), "--settings-fd", str(fds.settings), "--ready-fd", str(fds.ready)]
    if fds.link >= 0:
        argv += ["--link-fd", str(fds.link)]
    return argv


class Workers(WorkerProcesses):
    """All workers of a Store.

    Parameters
    ----------
    settings: of each worker.
    control: is inherited by them.
    lock_fds: further descriptors to inherit.
    on_death: see :class:`~haystack.workers.WorkerProcesses`.
    open_link: gives a worker that is to be started its end of a connection to us, see haystack.store.replication.link.
    """

    def __init__(
        self,
        settings: Sequence[WorkerSettings],
        control: ControlBlock,
        timing: Timing,
        *,
        lock_fds: Sequence[int] = (),
        on_death: Callable[[int, int | None], None] = lambda number, exit_code: None,
        command: Command = worker_command,
        open_link: OpenLink | None = None,
    ) -> None:
        self._settings = settings
        self._control = control
        self._lock_fds = tuple(lock_fds)
        self._death = on_death
        self._command = command
        self._open_link = open_link
        super().__init__(len(settings), self._prepare, timing, on_end=self._forget, on_death=self._died)

    def _prepare(self, number: int, ready_fd: int) -> Launch:
        settings_fd = self._settings[number].share()
        link_fd = self._open_link(number) if self._open_link is not None else -1
        fds = WorkerFds(self._control.fd, settings_fd, ready_fd, link_fd)
        own = (settings_fd, link_fd) if link_fd >= 0 else (settings_fd,)
        inherited = (fds.control, self._control.bell_fd, *own, *self._lock_fds)
        return Launch(self._command(self._settings[number], fds), inherited, own)

    def _died(self, number: int, exit_code: int | None) -> None:
        self._death(number, exit_code)
        self._control.cells[Header.RESTARTS] += 1

    def _forget(self, number: int) -> None:
        base = self._control.worker_base(number)
        for gauge in _GAUGES:
            self._control.cells[base + gauge] = 0
