"""What the tests of the supervisor share: a Store as a process, a Directory that can be down, and fast timing."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
from aiohttp import web

from haystack.store.settings import Timing

HERE = Path(__file__).parent
DEADLINE_SECONDS = 60.0
"""Far beyond what anything takes: a machine that is busy with other things is no failure."""
CLUSTER_ID = "11111111-2222-3333-4444-555555555555"

FAST: dict[str, float] = {
    "tick_seconds": 0.05,
    "tail_poll_seconds": 0.01,
    "checkpoint_idle_seconds": 0.2,
    "probe_seconds": 0.05,
    "restart_first_seconds": 0.02,
    "restart_most_seconds": 0.2,
    "kill_margin_seconds": 0.3,
    "directory_timeout_seconds": 2.0,
    "retry_first_seconds": 0.02,
    "retry_most_seconds": 0.1,
    "confirmed_save_seconds": 0.05,
}
FAST_TIMING = Timing(**FAST)
_READY = re.compile(r"store: listening on http://127\.0\.0\.1:(\d+), admin http://127\.0\.0\.1:(\d+), data in (.+)\n")


async def until(condition: Callable[[], Any], what: str = "") -> Any:
    """Wait until ``condition`` gives something true, and return it."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, f"did not happen in time: {what or condition}"
        await asyncio.sleep(0.01)
    return value


async def until_async(condition: Callable[[], Awaitable[Any]], what: str = "") -> Any:
    """As :func:`until`, for a condition that has to be asked for."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (value := await condition()):
        assert time.monotonic() < deadline, f"did not happen in time: {what or condition}"
        await asyncio.sleep(0.02)
    return value


def children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def command_line(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class StoreProcess:
    """A Store as a process of its own; use it as an async context manager.

    Parameters
    ----------
    ready: whether entering waits until the Store is ready.
    """

    def __init__(
        self,
        *folders: Path,
        timing: dict[str, float] | None = None,
        mode: str = "",
        ready: bool = True,
        **settings: Any,
    ) -> None:
        self._ready = ready
        defaults = {"port": 0, "workers": 1, "stop_timeout_seconds": 2.0, "reserve_bytes": 0}
        self.settings = defaults | settings | {"data": [str(folder) for folder in folders]}
        self.timing = FAST | (timing or {})
        self.mode = mode
        self.port = self.admin_port = 0
        self._orphans: list[int] = []
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the Store, closed at its end
        self.process: asyncio.subprocess.Process

    async def __aenter__(self) -> StoreProcess:
        try:
            await (self.start() if self._ready else self.spawn())
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        if self.process.returncode is None:
            await self.kill()
        if self.mode == "deaf":
            for pid in filter(is_running, self._orphans):
                kill_process(pid)
        self._log.close()

    async def spawn(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(HERE / "run_supervisor.py"),
            json.dumps(self.settings),
            json.dumps(self.timing),
            stdout=asyncio.subprocess.PIPE,
            stderr=self._log,  # no pipe: workers that live on would keep it open
            env={**os.environ, "STANDIN_MODE": self.mode},
        )

    async def start(self) -> None:
        await self.spawn()
        assert self.process.stdout is not None
        async with asyncio.timeout(DEADLINE_SECONDS):
            line = (await self.process.stdout.readline()).decode()
        match = _READY.fullmatch(line)
        if match is None:
            await self.end()
            raise AssertionError(f"no ready line but {line!r}; it said:\n{self.log}")
        self.port, self.admin_port = int(match[1]), int(match[2])

    async def end(self) -> int:
        """Wait for the process's end; returns its exit code."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await self.process.wait()

    async def stop(self) -> int:
        self.process.terminate()
        return await self.end()

    async def kill(self) -> None:
        self._orphans = self.workers()
        self.process.kill()
        await self.end()

    def workers(self) -> list[int]:
        return children_of(self.process.pid)

    @property
    def log(self) -> str:
        """What the Store has written to standard error so far."""
        size_bytes = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size_bytes, 0).decode()

    # -- calls

    async def admin(self, method: str, path: str, document: object = None, expect: int | None = None) -> Any:
        body = None if document is None else json.dumps(document)
        async with aiohttp.request(method, f"http://127.0.0.1:{self.admin_port}{path}", data=body) as answer:
            text = await answer.text()
            assert expect in (None, answer.status), text
            return json.loads(text)

    async def make_volume(self, volume: int, **more: Any) -> Any:
        return await self.admin("POST", "/admin/volumes", new_volume(volume, **more), expect=201)

    async def put(self, fid: str, data: bytes) -> int:
        async with aiohttp.request("PUT", f"http://127.0.0.1:{self.port}/{fid}", data=data) as answer:
            await answer.read()
            return answer.status

    async def get(self, fid: str) -> bytes | int:
        async with aiohttp.request("GET", f"http://127.0.0.1:{self.port}/{fid}") as answer:
            body = await answer.read()
            return body if answer.status == 200 else answer.status

    async def volume(self, volume: int) -> Any:
        return await self.admin("GET", f"/admin/volumes/{volume}")

    async def until_volume(self, volume: int, **wanted: object) -> Any:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            document = await self.volume(volume)
            if all(document.get(name) == value for name, value in wanted.items()):
                return document
            assert time.monotonic() < deadline, f"{document} is not {wanted}"
            await asyncio.sleep(0.02)


def new_volume(volume: int, **more: Any) -> dict[str, Any]:
    return {
        "volume": volume,
        "uuid": str(uuid4()),
        "replication": "000",
        "createdMs": 1_700_000_000_000,
        "epoch": 1,
        "maxBytes": None,
        "folder": None,
    } | more


def fid(volume: int, key: int) -> str:
    return f"{volume},{key:x}{key * 7919:016x}"


class FakeDirectory:
    """A Directory as a Store sees it. ``go_down`` and ``go_up`` keep the port."""

    def __init__(self) -> None:
        self.registrations: list[dict[str, Any]] = []
        self.heartbeats: list[dict[str, Any]] = []
        self.batches: list[dict[str, Any]] = []
        self.confirmed: dict[tuple[int, int], int] = {}
        self.photos: dict[tuple[str, int], tuple[int, int, str]] = {}
        self.known = False
        self.heartbeat_seconds = 0.05
        self.refuse: dict[int, int] = {}
        self.status: int | None = None
        self.answer_gate = asyncio.Event()
        self.answer_gate.set()
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> FakeDirectory:
        await self.go_up()
        return self

    async def __aexit__(self, *error: object) -> None:
        self.answer_gate.set()
        await self.go_down()

    async def go_up(self) -> None:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/internal/stores/register", self._register)
        app.router.add_post("/internal/stores/heartbeat", self._heartbeat)
        app.router.add_post("/internal/confirm", self._confirm)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def go_down(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def lose_disk(self) -> None:
        self.confirmed.clear()
        self.photos.clear()
        self.known = False

    def listed(self, *fids: str) -> bool:
        known = {f"{volume},{key}{cookie}" for (key, _), (volume, _, cookie) in self.photos.items()}
        return known >= set(fids)

    async def _answer(self, request: web.Request) -> Any:
        document = await request.json()
        await self.answer_gate.wait()
        if self.status is not None:
            raise web.HTTPServiceUnavailable(text="{}")
        return document

    async def _register(self, request: web.Request) -> web.Response:
        self.registrations.append(await self._answer(request))
        self.known = True
        return web.json_response({"clusterId": CLUSTER_ID, "heartbeatSeconds": self.heartbeat_seconds})

    async def _heartbeat(self, request: web.Request) -> web.Response:
        self.heartbeats.append(await self._answer(request))
        return web.json_response({"known": self.known})

    async def _confirm(self, request: web.Request) -> web.Response:
        batch = await self._answer(request)
        self.batches.append(batch)
        if batch["volume"] in self.refuse:
            return web.json_response({"error": "not you"}, status=self.refuse[batch["volume"]])
        key = batch["volume"], batch["generation"]
        has = self.confirmed.get(key, 0)
        if batch["from"] <= has < batch["to"]:
            self._apply(batch)
            has = self.confirmed[key] = batch["to"]
        return web.json_response({"confirmedTo": has})

    def _apply(self, batch: dict[str, Any]) -> None:
        for key, alternate, cookie, size, _checksum, _time, kind, *_end in batch["needles"]:
            if kind == 0:
                self.photos[key, alternate] = batch["volume"], size, cookie
            else:
                self.photos.pop((key, alternate), None)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def kill_process(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
