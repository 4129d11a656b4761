"""A Store that is only an admin API and a document, and a Directory in a process of its own."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
from aiohttp import web

from haystack.security import AUTH_HEADER, Verifier, sign
from haystack.units import GIB

SECRET = b"0123456789abcdef0123456789abcdef"

START = """
import sys, json, logging
from pathlib import Path
from directory.server import run
from directory.settings import DirectorySettings

logging.basicConfig(level=logging.WARNING)
options = json.loads(sys.argv[1])
options["data"] = Path(options["data"])
if options.get("secret"):
    options["secret"] = options["secret"].encode()
run(DirectorySettings(**options))
"""


class FakeStore:
    """Answers ``POST /admin/volumes`` and sends registrations, heartbeats and confirmations when it is told to."""

    def __init__(self, secret: bytes | None = None) -> None:
        self.store_id = str(uuid4())
        self.cluster_id: str | None = None
        self.url = "127.0.0.1:1"
        self.public_url: str | None = None
        self.data_center = "dc1"
        self.rack = "r1"
        self.started_ms = 1
        self.folders = [
            {
                "id": f"folder-{self.store_id}",
                "path": "/data",
                "totalBytes": 200 * GIB,
                "freeBytes": 100 * GIB,
                "state": "ok",
                "error": None,
            }
        ]
        self.volumes: dict[int, dict[str, Any]] = {}
        self.made: list[dict[str, Any]] = []
        self.refuse: tuple[int, str] | None = None
        self.delay: asyncio.Event | None = None
        self.asked = asyncio.Event()
        self.sequence = 0
        self.secret = secret
        self._verifier = Verifier(secret) if secret else None
        self._runner: web.AppRunner | None = None

    async def start(self) -> FakeStore:
        app = web.Application()
        self.routes(app)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    def routes(self, app: web.Application) -> None:
        app.router.add_post("/admin/volumes", self._make_volume)

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()

    async def _make_volume(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self._verifier:
            self._verifier.verify(request.headers.get(AUTH_HEADER), "POST", request.raw_path, body)
        asked = json.loads(body)
        self.made.append(asked)
        self.asked.set()
        if self.delay:
            await self.delay.wait()
        if self.refuse:
            return web.json_response({"error": self.refuse[1]}, status=self.refuse[0])
        document = self.volume(asked["volume"], uuid=asked["uuid"], folder=asked["folder"])
        document["maxBytes"] = asked["maxBytes"] or 32 * GIB
        self.volumes[asked["volume"]] = document
        return web.json_response(document, status=201)

    def volume(self, volume: int, **changes: Any) -> dict[str, Any]:
        """Return a volume document; it belongs to the Store when it is put into ``volumes``."""
        return {
            "volume": volume,
            "uuid": str(uuid4()),
            "generation": 0,
            "epoch": 1,
            "folder": self.folders[0]["id"],
            "state": "writable",
            "reason": "",
            "sizeBytes": 4096,
            "maxBytes": 32 * GIB,
            "liveCount": 0,
            "liveBytes": 0,
            "deletedCount": 0,
            "deletedBytes": 0,
            "maxKey": "0",
            "reads": 0,
            "bytesRead": 0,
            "writes": 0,
            "replication": "000",
            "lastAppendMs": 0,
            **changes,
        }

    def document(self) -> dict[str, Any]:
        return {
            "storeId": self.store_id,
            "clusterId": self.cluster_id,
            "url": self.url,
            "publicUrl": self.public_url or self.url,
            "adminUrl": self.url,
            "dataCenter": self.data_center,
            "rack": self.rack,
            "version": "0.1.0",
            "startedMs": self.started_ms,
            "workers": 2,
            "folders": self.folders,
            "volumes": list(self.volumes.values()),
        }

    async def post(self, base: str, path: str, document: Any) -> tuple[int, Any]:
        """Send a signed call to the Directory."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        headers = {"Content-Type": "application/json"}
        if self.secret:
            headers[AUTH_HEADER] = sign(self.secret, "POST", path, body, now=time.time())
        async with aiohttp.ClientSession() as session, session.post(base + path, data=body, headers=headers) as answer:
            return answer.status, await answer.json()

    async def register(self, base: str) -> tuple[int, Any]:
        self.sequence = 0
        return await self.post(base, "/internal/stores/register", self.document())

    async def heartbeat(self, base: str, *volumes: dict[str, Any], **changes: Any) -> tuple[int, Any]:
        self.sequence += 1
        document = {
            "storeId": self.store_id,
            "sequence": self.sequence,
            "folders": self.folders,
            "volumes": list(volumes),
            "removed": [],
            **changes,
        }
        return await self.post(base, "/internal/stores/heartbeat", document)

    async def confirm(
        self, base: str, volume: int, begin: int, end: int, needles: list[Any], changes: dict[str, Any] | None = None
    ) -> Any:
        document = {
            "storeId": self.store_id,
            "volume": volume,
            "generation": 0,
            "from": begin,
            "to": end,
            "needles": needles,
            **(changes or {}),
        }
        return await self.post(base, "/internal/confirm", document)


class DirectoryProcess:
    """``directory.server.run`` in another process."""

    def __init__(self, data: Path, **options: Any) -> None:
        options = {"data": str(data), "port": 0, "heartbeat_seconds": 0.2, "dead_after_seconds": 60.0, **options}
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, json.dumps(options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.first_line = self.process.stdout.readline().rstrip("\n")
        self.base = self.first_line.removeprefix("directory: listening on ").partition(",")[0]

    def end(self, number: signal.Signals) -> str:
        """Send a signal, wait for the end, return what was written to stderr."""
        self.process.send_signal(number)
        return self.finish()

    def finish(self) -> str:
        """Wait for the end, return what was written to stderr."""
        _, errors = self.process.communicate(timeout=30)
        return errors


@contextmanager
def directory_process(data: Path, **options: Any) -> Iterator[DirectoryProcess]:
    running = DirectoryProcess(data, **options)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.end(signal.SIGKILL)


async def until(condition: Any, what: str, seconds: float = 10.0) -> Any:
    """Await an async condition that somebody else makes true, and return what it returned."""
    deadline = time.monotonic() + seconds
    while True:
        result = await condition()
        if result:
            return result
        assert time.monotonic() < deadline, f"never came true: {what}"
        await asyncio.sleep(0.01)
