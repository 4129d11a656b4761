"""Child processes of ``haystack up``: start, wait for the ready line, read the log, stop, and never leave an orphan.

Each child leads a session of its own, so that Ctrl-C in the terminal reaches ``up`` alone, which then stops its
children in the right order. The kernel sends a child SIGTERM when ``up`` dies, however it dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from haystack.errors import HaystackError

MAX_LINE_BYTES = 8192
"""A longer line of a child is cut into pieces: a child must not make us hold its output without end."""

LAST_LINES = 20
"""Lines of a child that are kept for the message when it fails."""

READ_BYTES = 65536
MAX_FINAL_READS = 64
GROUP_POLL_SECONDS = 0.05
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

# Loaded before any fork: between fork and exec only what is safe there may happen.
_LIBC = ctypes.CDLL(None, use_errno=True)

_READY = re.compile(r"\w+: listening on (?P<url>http\S+?)(?:, admin (?P<admin>http\S+?))?, data in (?P<data>.+)")


class ChildFailed(HaystackError):
    """A process of the cluster did not start, or ended when it should not."""


@dataclass(frozen=True, slots=True)
class Ready:
    """What a child said when it was ready."""

    url: str
    admin_url: str | None
    data: str


def parse_ready(line: str) -> Ready | None:
    """Return where a role listens when ``line`` is its ready line, else None."""
    match = _READY.fullmatch(line)
    return Ready(match["url"], match["admin"], match["data"]) if match else None


class Child:
    """One role process, which may be started again after it ended.

    Parameters
    ----------
    name: for messages, as in ``store1``.
    on_line: gets each line that the process writes to standard output or error, except ready lines.
    pass_fds: descriptors that the process inherits.
    environ: its environment.
    """

    def __init__(
        self, name: str, on_line: Callable[[str, str], None], *, pass_fds: Sequence[int], environ: Mapping[str, str]
    ) -> None:
        self.name = name
        self.ready: Ready | None = None
        self._on_line = on_line
        self._pass_fds = tuple(pass_fds)
        self._environ = dict(environ)
        self._process: subprocess.Popen[bytes] | None = None
        self._group: int | None = None
        self._ended: asyncio.Future[int] | None = None
        self._became_ready: asyncio.Future[Ready] | None = None
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._partial = b""

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process and self._ended and not self._ended.done() else None

    async def start(self, argv: Sequence[str], timeout_seconds: float) -> Ready:
        """Start the process and wait until it is ready.

        Raises
        ------
        ChildFailed: it could not be started, ended, or is not ready in time (and was killed).
        """
        loop = asyncio.get_running_loop()
        self._last_lines.clear()
        self._spawn(loop, argv)
        self._ended, self._became_ready = loop.create_future(), loop.create_future()
        await asyncio.wait(
            (self._ended, self._became_ready), timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED
        )
        # A process that said ready and ended at once has ended.
        if self._ended.done():
            raise ChildFailed(f"{self.name} did not start: {describe_exit(self._ended.result())}{self._said()}")
        if not self._became_ready.done():
            await self.kill()
            raise ChildFailed(f"{self.name} was not ready within {timeout_seconds:g} s and was killed{self._said()}")
        self.ready = self._became_ready.result()
        return self.ready

    async def wait(self) -> int:
        """Return the exit code (negative: the signal) once the process has ended."""
        if self._ended is None:
            raise RuntimeError(f"{self.name} was never started")
        return await asyncio.shield(self._ended)

    async def stop(self, timeout_seconds: float) -> bool:
        """Ask the process to stop; kill it and its own children when it takes too long. Returns whether it obeyed."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGTERM)
        return await self.group_gone(timeout_seconds)

    async def group_gone(self, timeout_seconds: float) -> bool:
        """Wait until the process and its own children have ended; kill them after the timeout.

        The group outlives its leader while a worker still finishes its requests. Returns False when it had to kill.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._until_gone()
        except TimeoutError:
            await self.kill()
            return False
        return True

    def kill_now(self) -> None:
        """Send SIGKILL to the process and its own children."""
        if self._group is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._group, signal.SIGKILL)

    async def kill(self) -> None:
        """Kill the process and its own children, and wait until all have ended."""
        self.kill_now()
        await self._until_gone()

    async def _until_gone(self) -> None:
        while self._group is not None and self._group_exists(self._group):  # noqa: ASYNC110 - no event tells of a group
            await asyncio.sleep(GROUP_POLL_SECONDS)
        # The group's number may be given to somebody else from now on.
        self._group = None
        self._drain()
        self._close_pipe()

    def _spawn(self, loop: asyncio.AbstractEventLoop, argv: Sequence[str]) -> None:
        parent = os.getpid()
        self._close_pipe()
        # Orphaned grandchildren come to us and not to process 1, which in many containers waits for nobody.
        _LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1)
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=self._pass_fds,
                env=self._environ,
                preexec_fn=lambda: _die_with(parent),
            )
        except OSError as error:
            raise ChildFailed(f"{self.name} cannot be started: {argv[0]}: {error.strerror}") from error
        assert process.stdout is not None
        self._process, self._group = process, process.pid
        os.set_blocking(process.stdout.fileno(), False)
        loop.add_reader(process.stdout.fileno(), self._read)
        # A pidfd and not the end of the pipe: the pipe stays open as long as any grandchild lives.
        pidfd = os.pidfd_open(process.pid)
        loop.add_reader(pidfd, self._reap, loop, process, pidfd)

    def _read(self) -> bool:
        """Take what is in the pipe; returns whether there was something."""
        assert self._process is not None and self._process.stdout is not None
        if self._process.stdout.closed:
            return False
        try:
            data = os.read(self._process.stdout.fileno(), READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._close_pipe()
            return False
        *lines, partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._line(line)
        cut = len(partial) - len(partial) % MAX_LINE_BYTES
        if cut:
            self._line(partial[:cut])
        self._partial = partial[cut:]
        return True

    def _line(self, raw: bytes) -> None:
        for begin in range(0, len(raw) or 1, MAX_LINE_BYTES):
            self._piece(raw[begin : begin + MAX_LINE_BYTES])

    def _piece(self, raw: bytes) -> None:
        line = raw.decode(errors="replace").rstrip("\r")
        ready = parse_ready(line)
        if ready and self._became_ready is not None and not self._became_ready.done():
            self._became_ready.set_result(ready)
            return
        self._last_lines.append(line)
        self._on_line(self.name, line)

    def _close_pipe(self) -> None:
        if self._process is None or self._process.stdout is None or self._process.stdout.closed:
            return
        if self._partial:
            self._line(self._partial)
            self._partial = b""
        asyncio.get_running_loop().remove_reader(self._process.stdout.fileno())
        self._process.stdout.close()

    def _reap(self, loop: asyncio.AbstractEventLoop, process: subprocess.Popen[bytes], pidfd: int) -> None:
        assert self._ended is not None
        loop.remove_reader(pidfd)
        os.close(pidfd)
        exit_code = process.wait()
        self._drain()
        self._ended.set_result(exit_code)

    def _drain(self) -> None:
        # What it said last is still in the pipe, and is the reason that the operator needs. Bounded, for a worker
        # that lives on may go on writing.
        for _ in range(MAX_FINAL_READS):
            if self._process is None or not self._read():
                break

    def _group_exists(self, group: int) -> bool:
        if self.pid is None:
            # Its orphans are ours now (see _spawn). Whoever ended must be waited for, or it exists for ever.
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-group, os.WNOHANG) != (0, 0):
                    pass
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        return True

    def _said(self) -> str:
        lines = [line.strip() for line in self._last_lines if line.strip()]
        if not lines:
            return "; it said nothing"
        # An error of ours is one line; for anything else the lines before it are needed too.
        ours = lines[-1].startswith("haystack: ")
        return "; it said: " + (lines[-1].removeprefix("haystack: ") if ours else " / ".join(lines[-3:]))


def describe_exit(exit_code: int) -> str:
    """Say in words how a process ended."""
    if exit_code >= 0:
        return f"it ended with exit code {exit_code}"
    try:
        return f"it was killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"it was killed by signal {-exit_code}"


def _die_with(parent: int) -> None:
    if _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM) != 0 or os.getppid() != parent:
        os._exit(1)
