"""Starting programs for a measurement: pinned to cores, watched while they start, gone at the end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TypeVar

from benchmarks.common import CannotMeasure

START_SECONDS = 120.0
STOP_SECONDS = 30.0
GROUP_SECONDS = 5.0
POLL_SECONDS = 0.005
LAST_LINES = 30

_Found = TypeVar("_Found")


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def pinned(argv: Sequence[str], cores: Sequence[int]) -> list[str]:
    """The command line that runs ``argv`` on these cores alone."""
    return ["taskset", "-c", ",".join(map(str, cores)), *argv]


class Program:
    """A server process, in a process group of its own.

    Parameters
    ----------
    name: for messages.
    argv: command line.
    cores: processor cores that it and its children may use.
    folder: working directory.
    environ: beside our own environment.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        cores: Sequence[int],
        folder: Path,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._changed = threading.Condition()
        self._lines: list[str] = []
        self._ended = False
        self.started = time.perf_counter()
        self._process = subprocess.Popen(
            pinned(argv, cores),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            start_new_session=True,
            text=True,
            errors="replace",
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environ or {})},
        )
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id; taskset has become the program itself."""
        return self._process.pid

    def wait_for_line(self, find: Callable[[str], _Found | None]) -> _Found:
        """What ``find`` makes of the first line of output that it does not answer with None. Raises CannotMeasure."""
        deadline = time.monotonic() + START_SECONDS
        seen = 0
        with self._changed:
            while True:
                for line in self._lines[seen:]:
                    found = find(line)
                    if found is not None:
                        return found
                seen = len(self._lines)
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    raise CannotMeasure(self._complaint("ended" if self._ended else "is not ready"))
                self._changed.wait(left)

    def wait_for_port(self, port: int) -> None:
        """Wait until somebody listens on the port. Raises CannotMeasure when the program ends before."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise CannotMeasure(self._complaint("does not listen"))
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Stop the program and everything that it started."""
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        self._wait_for_group()

    def _wait_for_group(self) -> None:
        """Killed processes free their memory and ports a moment later; the next run must not share with them."""
        deadline = time.monotonic() + GROUP_SECONDS
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < deadline:
                os.killpg(self.pid, 0)
                time.sleep(POLL_SECONDS)

    def _read(self, output: IO[str]) -> None:
        with output:
            for line in output:
                self._last_lines.append(line.rstrip())
                with self._changed:
                    if len(self._lines) < LAST_LINES:
                        self._lines.append(line.rstrip())
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _complaint(self, what: str) -> str:
        said = "\n".join(self._last_lines)
        return f"{self.name} {what}{'; it said:' if said else ''}\n{said}".rstrip()


@contextlib.contextmanager
def running(program: Program) -> Iterator[Program]:
    """Stop the program at the end of the block."""
    try:
        yield program
    finally:
        program.stop()
