"""A real cluster for the transfer commands: a Directory and a Store as processes, on free ports."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from haystack.security import new_secret
from tools import cli
from tools.children import Ready, parse_ready

START_SECONDS = 60


class Role:
    """One role in a process group of its own."""

    def __init__(self, *arguments: str, environ: dict[str, str]) -> None:
        self._arguments = arguments
        self._environ = environ
        self.ready = self._start("0")

    def kill(self) -> None:
        """Kill the process and its workers, all at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()

    def start_again(self, *arguments: str) -> None:
        """Start it where it was; with other arguments, if some are given."""
        self._arguments = arguments or self._arguments
        self._start(self.ready.url.rpartition(":")[2])

    def freeze(self) -> None:
        """Stop the process and its workers in the middle of whatever they do; their sockets stay open."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        os.killpg(self._process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """Stop it in good order."""
        self._process.terminate()
        try:
            self._process.wait(30)
        finally:
            self.kill()

    def _start(self, port: str) -> Ready:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tools.cli", *self._arguments, "--port", port],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._environ,
            start_new_session=True,
        )
        lines: list[str] = []
        ready: list[Ready] = []
        settled = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(self._process, lines, ready, settled))
        self._reader.start()
        if not settled.wait(START_SECONDS) or not ready:
            self.kill()
            raise RuntimeError("".join(lines) or "no output")
        return ready[0]

    @staticmethod
    def _read(process: subprocess.Popen[str], lines: list[str], ready: list[Ready], settled: threading.Event) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                lines.append(line)
                found = parse_ready(line.rstrip("\n"))
                if found:
                    ready.append(found)
                    settled.set()
        settled.set()


@dataclass(frozen=True, slots=True)
class Done:
    """What a command printed."""

    stdout: bytes
    stderr: bytes


class _Captured(io.TextIOWrapper):
    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)

    def taken(self) -> bytes:
        buffer = self.buffer
        assert isinstance(buffer, io.BytesIO)
        return buffer.getvalue()


class RealCluster:
    """One Directory and one Store, and the command that talks to them."""

    def __init__(self, folder: Path) -> None:
        secret = folder / "secret"
        secret.write_text(new_secret())
        secret.chmod(0o600)
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("HAYSTACK_")}
        self.environ.update(HAYSTACK_SECRET_FILE=str(secret), PYTHONUNBUFFERED="1")
        self.directory = Role("directory", "--data", str(folder / "directory"), environ=self.environ)
        self.environ["HAYSTACK_DIRECTORY"] = self.directory.ready.url
        self.store = Role(
            "store", "--data", str(folder / "store"), "--workers", "2", "--admin-port", "0", environ=self.environ
        )

    def stop(self) -> None:
        try:
            self.store.stop()
        finally:
            self.directory.stop()

    def argv(self, *arguments: str | Path) -> Sequence[str]:
        return [sys.executable, "-m", "tools.cli", *map(str, arguments)]

    def run(self, *arguments: str | Path, cwd: Path | None = None, stdin: bytes = b"", code: int = 0) -> Done:
        """Run a command of ``haystack`` in this process, which is faster, and check its exit code."""
        stdout, stderr = _Captured(), _Captured()
        with (
            mock.patch.dict(os.environ, self.environ, clear=True),
            mock.patch.multiple(sys, stdout=stdout, stderr=stderr, stdin=io.TextIOWrapper(io.BytesIO(stdin))),
            contextlib.chdir(cwd or Path.cwd()),
        ):
            exit_code = cli.run([*map(str, arguments)])
        done = Done(stdout.taken(), stderr.taken())
        assert exit_code == code, (exit_code, done)
        return done

    def json(self, *arguments: str | Path, code: int = 0) -> Any:
        """Run a command with --json and return its document."""
        return json.loads(self.run(*arguments, "--json", code=code).stdout)
