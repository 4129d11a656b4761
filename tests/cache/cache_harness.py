"""What the tests of the Cache node share: a Cache as real processes, a Directory that can be told what to say, and
Stores that are slow, broken or frozen at will."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from store_data_harness import MIB, Answer, Client, LocalStore, running
from yarl import URL

from haystack.fid import Fid
from haystack.json_calls import signed_headers

SECONDS = 20.0
HERE = Path(__file__).parent
FAST = {"restart_first_seconds": 0.02, "restart_most_seconds": 0.2, "publish_seconds": 0.05}
_READY = re.compile(r"cache: listening on http://127\.0\.0\.1:(\d+), admin http://127\.0\.0\.1:(\d+), data in .+\n")


def until(condition: Callable[[], Any], what: str = "") -> Any:
    """Wait until ``condition`` gives something true, and return it."""
    deadline = time.monotonic() + SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, f"did not happen in time: {what or condition}"
        time.sleep(0.005)
    return value


@dataclass
class FakeDirectory:
    """A Directory in a thread. What it says can be changed at any time; use it as a context manager.

    ``silent``: takes questions and answers none. ``refusing``: answers 503.
    """

    places: dict[int, tuple[str, list[str]]] = field(default_factory=dict)
    """Volume → uuid, addresses."""
    photos: dict[int, list[str]] = field(default_factory=dict)
    writable: bool = True
    silent: bool = False
    refusing: bool = False
    doubtful: list[int] | None = field(default_factory=list)
    incarnation: str = "one"
    asked: list[str] = field(default_factory=list)
    beats: list[dict[str, Any]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.changes: list[list[Any]] = []
        self._loop = asyncio.new_event_loop()
        self._news = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self.port = 0

    def __enter__(self) -> FakeDirectory:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(SECONDS)
        return self

    def __exit__(self, *error: object) -> None:
        self.silent = False
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def serve(self, store: LocalStore, *others: LocalStore, volume: int = 1, first: Sequence[str] = ()) -> None:
        """Say that these Stores have the volume."""
        uuid = store.volumes[volume].superblock.uuid.hex()
        addresses = [f"127.0.0.1:{port}" for one in (store, *others) for port in one.ports]
        self.places[volume] = (uuid, [*first, *addresses])

    def change(self, volume: int, key: int | None, alternate: int | None = None, kind: str = "deleted") -> None:
        """Put a change into the feed."""

        def put() -> None:
            self.changes.append([volume, None if key is None else f"{key:x}", alternate, kind])
            self._news.set()

        self._loop.call_soon_threadsafe(put)

    async def _start(self) -> None:
        app = web.Application(middlewares=[self._mood])
        app.router.add_get("/internal/cache/volume", self._volume)
        app.router.add_get("/internal/cache/changes", self._changes)
        app.router.add_post("/internal/caches/heartbeat", self._beat)
        app.router.add_post("/internal/caches/leave", self._leave)
        app.router.add_get("/photos/{id}", self._photo)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]

    @web.middleware
    async def _mood(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked.append(request.path_qs)
        while self.silent:  # noqa: ASYNC110 - a test's thread changes it
            await asyncio.sleep(0.02)
        if self.refusing:
            return web.json_response({"error": "not now"}, status=503)
        return await handler(request)

    async def _volume(self, request: web.Request) -> web.Response:
        volume = int(request.query["volume"])
        if volume not in self.places:
            return web.json_response({"error": f"volume id {volume} not found"}, status=404)
        uuid, addresses = self.places[volume]
        return web.json_response(
            {
                "volume": volume,
                "uuid": uuid,
                "writable": self.writable,
                # All reads go to the first as long as it answers.
                "locations": [
                    {"url": one, "publicUrl": one, "weight": 0 if number else 100}
                    for number, one in enumerate(addresses)
                ],
            }
        )

    async def _changes(self, request: web.Request) -> web.Response:
        after = int(request.query.get("after") or 0)
        theirs = request.query.get("incarnation", "")
        if theirs == self.incarnation and after == len(self.changes):
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), float(request.query["wait"]))
        same = theirs == self.incarnation  # a test may have changed it meanwhile
        return web.json_response(
            {
                "incarnation": self.incarnation,
                "sequence": len(self.changes),
                "changes": self.changes[after:] if same else [],
                "complete": same,
                "more": False,
                "doubtful": self.doubtful,
            }
        )

    async def _beat(self, request: web.Request) -> web.Response:
        self.beats.append(await request.json())
        feed = {"incarnation": self.incarnation, "sequence": len(self.changes)}
        return web.json_response({"known": True, "clusterId": "c", "heartbeatSeconds": 0.1, "feed": feed})

    async def _leave(self, request: web.Request) -> web.Response:
        self.left.append((await request.json())["cacheId"])
        return web.json_response({})

    async def _photo(self, request: web.Request) -> web.Response:
        fids = self.photos.get(int(request.match_info["id"], 16))
        if fids is None:
            return web.json_response({"error": "photo is not known"}, status=404)
        return web.json_response({"renditions": [{"fid": fid} for fid in fids]})


class CacheNode:
    """A Cache as an operator would run it, but in a hurry."""

    def __init__(
        self,
        folder: Path,
        directories: Sequence[str],
        *,
        workers: int = 1,
        memory_bytes: int = 256 * 2**20,
        timing: dict[str, float] | None = None,
        secret: bytes | None = None,
        **settings: Any,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self._secret = secret
        self.log_path = folder / "cache.log"
        given = {
            "data": str(folder),
            "port": 0,
            "directories": list(directories),
            "workers": workers,
            "memory_bytes": memory_bytes,
            "stop_timeout_seconds": 2.0,
            "secret": secret and secret.hex(),
            **settings,
        }
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "run_cache.py"), json.dumps(given), json.dumps(FAST | (timing or {}))],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        match = _READY.fullmatch(self.process.stdout.readline())
        if match is None:
            self.stop()
            raise AssertionError(self.log)
        self.port, self.admin_port = int(match[1]), int(match[2])

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def client(self, **options: Any) -> Client:
        return Client(self.port, **options)

    def get(self, path: str, **headers: str) -> Answer:
        with self.client() as client:
            return client.get(path, **headers)

    def admin(self, path: str, document: object = None) -> Any:
        data = None if document is None else json.dumps(document).encode()
        url = URL(f"http://127.0.0.1:{self.admin_port}{path}")
        signed = signed_headers(self._secret, "GET" if data is None else "POST", url, data or b"")
        request = urllib.request.Request(str(url), data, signed)
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return json.loads(answer.read())

    def status(self) -> dict[str, Any]:
        status = self.admin("/admin/cache")
        assert isinstance(status, dict)
        return status

    def counter(self, name: str) -> float:
        value = self.status()["counters"][name]
        assert isinstance(value, int | float)
        return value

    def counted(self, name: str, expected: float) -> None:
        """Workers publish a few times a second."""
        until(lambda: self.counter(name) == expected, f"{name} is {self.counter(name)}, not {expected}")

    def vouched(self) -> None:
        """Wait until the feed is followed."""
        until(lambda: self.status()["vouched"], "the feed is followed")

    def workers(self) -> list[int]:
        pids = self.status()["workerPids"]
        assert isinstance(pids, list)
        return pids

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextlib.contextmanager
def cache_node(folder: Path, directory: FakeDirectory | Sequence[str], **options: Any) -> Iterator[CacheNode]:
    """A Cache for the length of a block; its log must hold no trace of a bug."""
    urls = [directory.url] if isinstance(directory, FakeDirectory) else directory
    node = CacheNode(folder, urls, **options)
    try:
        yield node
    finally:
        node.stop()
    assert "Traceback" not in node.log and "never retrieved" not in node.log, node.log


@dataclass
class Behind:
    """A Cache and what is behind it."""

    directory: FakeDirectory
    store: LocalStore
    node: CacheNode

    def put(self, fid: Fid, body: bytes, *headers: tuple[str, str]) -> None:
        """Upload at the Store."""
        with self.store.client() as client:
            assert client.put(f"/{fid}", body, *headers).status == 201

    def delete(self, fid: Fid) -> None:
        """Delete at the Store; nothing is said in the feed."""
        with self.store.client() as client:
            assert client.delete(f"/{fid}").status == 202


@contextlib.contextmanager
def one_store(folder: Path, *, store_workers: int = 1, secret: bytes | None = None, **options: Any) -> Iterator[Behind]:
    """A Cache in front of one Store."""
    with (
        FakeDirectory() as directory,
        running(folder / "store", workers=store_workers, max_volume_bytes=512 * MIB, secret=secret) as store,
    ):
        directory.serve(store)
        with cache_node(folder / "cache", directory, secret=secret, **options) as node:
            node.vouched()
            yield Behind(directory, store, node)


class OddStore:
    """A server in a thread that does with each connection what it is told to: for Stores that are no good.

    Parameters
    ----------
    behave: called with the connected socket, on a thread of its own.
    """

    def __init__(self, behave: Callable[[socket.socket], None]) -> None:
        self._behave = behave
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept)

    def __enter__(self) -> OddStore:
        self._accepting.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in (self._accepting, *self._threads):
            thread.join()
        for one in self._open:
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self._behave(connection)


def silent(connection: socket.socket) -> None:
    """Read and say nothing."""
    while connection.recv(4096):
        pass


def needle_at(store: LocalStore, path: str) -> tuple[bytes, bytes]:
    """The answer of a Store to a Cache: head and needle."""
    with store.client() as client:
        answer = client.get(path, Accept="application/vnd.haystack.needle")
        assert answer.status == 200
    head = (
        "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.haystack.needle\r\n"
        f"ETag: {answer.headers['etag']}\r\nContent-Length: {len(answer.body)}\r\n\r\n"
    )
    return head.encode(), answer.body


def freeze(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)


def thaw(pid: int) -> None:
    os.kill(pid, signal.SIGCONT)
