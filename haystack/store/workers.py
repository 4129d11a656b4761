"""The worker processes of a Store: started, watched, started again when they die, stopped.

A worker inherits the control block, a memfd with its settings, the write end of a pipe on which it says that it
listens (one byte), and the locks of the data folders, so that these stay locked until the last process that may write
has ended. The kernel sends a worker SIGTERM when the supervisor dies. SIGINT is ignored: Ctrl-C in a terminal reaches
all processes of the Store, and it is the supervisor that stops the workers.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from haystack.errors import HaystackError
from haystack.store.control import ControlBlock, Counter, Header
from haystack.store.settings import Timing, WorkerSettings

_log = logging.getLogger(__name__)

MAX_FAILED_STARTS = 3
"""Starts of one worker that may fail one after another before the Store gives up, as long as it never listened."""

PR_SET_PDEATHSIG = 1
STDERR = 2
"""Where a worker's standard output goes too: ours belongs to the ready message."""

_GAUGES = (Counter.CONNECTIONS_OPEN, Counter.CACHED_ENTRIES, Counter.UPLOAD_MEMORY_BYTES, Counter.PID)

# Loaded before any fork: between fork and exec only what is safe there may happen.
_LIBC = ctypes.CDLL(None, use_errno=True)


class WorkerFailed(HaystackError):
    """The workers of this Store cannot be started."""


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


class Workers:
    """All workers of a Store.

    Parameters
    ----------
    settings: of each worker.
    control: is inherited by them.
    lock_fds: further descriptors to inherit.
    on_death: called with the number of a worker that has died, and its exit code as of ``subprocess`` (None when it
        could not be started), before it is started again.
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
        self._control = control
        self._timing = timing
        self._on_death = on_death
        self._workers = [_Worker(one, control, command, tuple(lock_fds), open_link) for one in settings]
        self._keepers: list[asyncio.Task[None]] = []

    @property
    def pids(self) -> list[int]:
        """Process ids of those that run."""
        return [worker.pid for worker in self._workers if worker.pid is not None]

    def start(self) -> None:
        """Start all workers and keep them running."""
        self._keepers = [asyncio.create_task(self._keep(worker)) for worker in self._workers]

    async def listening(self) -> None:
        """Return when all workers listen. Raises WorkerFailed when they cannot be started."""
        waiting = [asyncio.create_task(worker.listens.wait()) for worker in self._workers]
        try:
            pending = set(waiting)
            while pending:
                done, _ = await asyncio.wait((*pending, *self._keepers), return_when=asyncio.FIRST_COMPLETED)
                pending -= done
                for keeper in self._keepers:
                    if keeper in done:
                        keeper.result()
        finally:
            for task in waiting:
                task.cancel()

    async def failed(self) -> None:
        """Return never, unless keeping the workers itself fails; then raise its error."""
        await asyncio.gather(*self._keepers)

    async def stop(self, timeout_seconds: float) -> None:
        """Ask all workers to finish, and kill those that take longer."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(worker.stop(timeout_seconds) for worker in self._workers))

    async def _keep(self, worker: _Worker) -> None:
        failures = 0
        while True:
            started = time.monotonic()
            ending = await worker.run()
            listened = worker.listens.is_set()
            worker.listens.clear()
            self._on_death(worker.number, worker.exit_code)
            self._control.cells[Header.RESTARTS] += 1
            if time.monotonic() - started > self._timing.worker_stable_seconds:
                failures = 0
            failures += 1
            if not listened and not worker.ever_listened and failures >= MAX_FAILED_STARTS:
                raise WorkerFailed(
                    f"worker {worker.number} did not start {failures} times, at last {ending}; its messages are above"
                )
            pause = restart_pause_seconds(failures, self._timing)
            _log.error("worker %d %s; starting it again in %g s", worker.number, ending, pause)
            await asyncio.sleep(pause)


class _Worker:
    """One worker process."""

    def __init__(
        self,
        settings: WorkerSettings,
        control: ControlBlock,
        command: Command,
        lock_fds: tuple[int, ...],
        open_link: OpenLink | None,
    ) -> None:
        self.number = settings.worker
        self.listens = asyncio.Event()
        self.ever_listened = False
        self._settings = settings
        self._control = control
        self._command = command
        self._lock_fds = lock_fds
        self._open_link = open_link
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process is not None and not self._ended.is_set() else None

    @property
    def exit_code(self) -> int | None:
        """How it ended the last time, as of ``subprocess``."""
        return self._process.returncode if self._process is not None else None

    async def run(self) -> str:
        """Start the process and wait for its end; returns how it ended."""
        try:
            self._spawn()
        except OSError as error:
            return f"cannot be started: {error}"
        await self._ended.wait()
        assert self._process is not None
        return _describe(self._process.returncode)

    async def stop(self, timeout_seconds: float) -> None:
        """Send SIGTERM, wait, and kill the process when it takes too long."""
        if self.pid is None:
            return
        os.kill(self.pid, signal.SIGTERM)
        try:
            await asyncio.wait_for(self._ended.wait(), timeout_seconds)
        except TimeoutError:
            _log.warning("worker %d did not finish within %g s and is killed", self.number, timeout_seconds)
            os.kill(self.pid, signal.SIGKILL)
            await self._ended.wait()

    def _spawn(self) -> None:
        self._ended.clear()
        parent = os.getpid()
        ready_read, ready_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        settings_fd = self._settings.share()
        link_fd = self._open_link(self.number) if self._open_link is not None else -1
        fds = WorkerFds(self._control.fd, settings_fd, ready_write, link_fd)
        try:
            self._process = subprocess.Popen(
                list(self._command(self._settings, fds)),
                stdin=subprocess.DEVNULL,
                stdout=STDERR,
                pass_fds=(fds.control, fds.settings, fds.ready, *([link_fd] if link_fd >= 0 else []), *self._lock_fds),
                preexec_fn=lambda: _as_child(parent),
            )
        except BaseException:
            os.close(ready_read)
            self._ended.set()
            raise
        finally:
            os.close(ready_write)
            os.close(settings_fd)
            if link_fd >= 0:
                os.close(link_fd)
        loop = asyncio.get_running_loop()
        loop.add_reader(ready_read, self._on_ready, loop, ready_read)
        pidfd = os.pidfd_open(self._process.pid)
        loop.add_reader(pidfd, self._on_end, loop, self._process, pidfd)

    def _on_ready(self, loop: asyncio.AbstractEventLoop, fd: int) -> None:
        if os.read(fd, 1):
            self.listens.set()
            self.ever_listened = True
        loop.remove_reader(fd)
        os.close(fd)

    def _on_end(self, loop: asyncio.AbstractEventLoop, process: subprocess.Popen[bytes], pidfd: int) -> None:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        process.wait()
        base = self._control.worker_base(self.number)
        for gauge in _GAUGES:
            self._control.cells[base + gauge] = 0
        self._ended.set()


def restart_pause_seconds(failures: int, timing: Timing) -> float:
    """How long to wait before a restart, after so many failures in a row (at least one)."""
    return float(min(timing.restart_first_seconds * 2.0 ** min(failures - 1, 16), timing.restart_most_seconds))


def _describe(exit_code: int) -> str:
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    try:
        return f"was killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"was killed by signal {-exit_code}"


def _as_child(parent: int) -> None:
    """Between fork and exec of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM) != 0 or os.getppid() != parent:
        os._exit(1)
