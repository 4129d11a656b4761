"""Worker processes of a node: started, watched, started again when they die, stopped.

A worker inherits the write end of a pipe on which it says that it listens (one byte), and whatever else its node gives
it. The kernel sends a worker SIGTERM when its node's main process dies. SIGINT is ignored: Ctrl-C in a terminal reaches
all processes of the node, and it is the main process that stops the workers.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from haystack.errors import HaystackError
from haystack.lifetime import end_tasks

_log = logging.getLogger(__name__)

MAX_FAILED_STARTS = 3
"""Starts of one worker that may fail one after another before the node gives up, as long as it never listened."""

PR_SET_PDEATHSIG = 1
STDERR = 2
"""Where a worker's standard output goes too: ours belongs to the ready message."""

# Loaded before any fork: between fork and exec only what is safe there may happen.
_LIBC = ctypes.CDLL(None, use_errno=True)


class WorkerFailed(HaystackError):
    """The workers of this node cannot be started."""


class RestartTiming(Protocol):
    """How dead workers are started again.

    ``restart_first_seconds``, ``restart_most_seconds``: the pause before, which doubles every time.
    ``worker_stable_seconds``: a worker that ran so long had nothing to do with the failure before.
    """

    @property
    def restart_first_seconds(self) -> float: ...

    @property
    def restart_most_seconds(self) -> float: ...

    @property
    def worker_stable_seconds(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a worker once.

    Parameters
    ----------
    argv: its command line.
    inherited: descriptors that it gets, beside the one on which it says that it listens.
    closed_after: those that nobody else needs once it has started, or could not be started.
    """

    argv: Sequence[str]
    inherited: tuple[int, ...]
    closed_after: tuple[int, ...] = ()


Prepare = Callable[[int, int], Launch]
"""Is given the number of a worker and the descriptor on which it has to say that it listens."""


class WorkerProcesses:
    """All workers of a node.

    Parameters
    ----------
    count: how many.
    prepare: called before each start.
    on_end: called with the number of a worker whose process has ended, also at a stop.
    on_death: called with the number of a worker that has died, and its exit code as of ``subprocess`` (None when it
        could not be started), before it is started again.
    """

    def __init__(
        self,
        count: int,
        prepare: Prepare,
        timing: RestartTiming,
        *,
        on_end: Callable[[int], None] = lambda number: None,
        on_death: Callable[[int, int | None], None] = lambda number, exit_code: None,
    ) -> None:
        self._timing = timing
        self._on_death = on_death
        self._workers = [_Worker(number, prepare, on_end) for number in range(count)]
        self._keepers: list[asyncio.Task[None]] = []

    @property
    def pids(self) -> list[int]:
        """Process ids of those that run."""
        return [worker.pid for worker in self._workers if worker.pid is not None]

    def kill(self, number: int) -> None:
        """Kill a worker that is no good any more; it is started again like one that has died."""
        pid = self._workers[number].pid
        if pid is not None:
            os.kill(pid, signal.SIGKILL)

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
        await end_tasks(self._keepers)
        await asyncio.gather(*(worker.stop(timeout_seconds) for worker in self._workers))

    async def _keep(self, worker: _Worker) -> None:
        failures = 0
        while True:
            started = time.monotonic()
            ending = await worker.run()
            listened = worker.listens.is_set()
            worker.listens.clear()
            self._on_death(worker.number, worker.exit_code)
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

    def __init__(self, number: int, prepare: Prepare, on_end: Callable[[int], None]) -> None:
        self.number = number
        self.listens = asyncio.Event()
        self.ever_listened = False
        self._prepare = prepare
        self._when_ended = on_end
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
        closed_after: tuple[int, ...] = ()
        try:
            launch = self._prepare(self.number, ready_write)
            closed_after = launch.closed_after
            self._process = subprocess.Popen(
                list(launch.argv),
                stdin=subprocess.DEVNULL,
                stdout=STDERR,
                pass_fds=(ready_write, *launch.inherited),
                preexec_fn=lambda: _as_child(parent),
            )
        except BaseException:
            os.close(ready_read)
            self._ended.set()
            raise
        finally:
            for fd in (ready_write, *closed_after):
                os.close(fd)
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
        self._when_ended(self.number)
        self._ended.set()


def restart_pause_seconds(failures: int, timing: RestartTiming) -> float:
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
