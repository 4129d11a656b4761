"""A cluster of one process for failure cases: an aiohttp server that is Directory and Stores, and follows a script."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.test_utils import TestServer

from haystack.fid import Fid, Locator

Script = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


@dataclass
class FakeStore:
    """Keeps needles in a dictionary; ``script`` answers come first, one for each request, and None lets it through."""

    needles: dict[str, tuple[bytes, str, str]] = field(default_factory=dict)
    script: deque[Script] = field(default_factory=deque)
    requests: list[str] = field(default_factory=list)
    server: TestServer | None = None
    address: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        name = request.path.lstrip("/")
        self.requests.append(f"{request.method} {name}")
        if self.script:
            answer = await self.script.popleft()(request)
            if answer is not None:
                return answer
        fid = str(Locator.parse(name).fid if "@" in name else Fid.parse(name))
        if request.method == "POST":
            data = await request.read()
            file_name = request.headers.get("Content-Disposition", "")
            self.needles[fid] = (data, request.content_type, file_name)
            return web.json_response({"name": "", "size": len(data), "eTag": f"{len(data):x}"}, status=201)
        if fid not in self.needles:
            return web.json_response({"error": f"{fid} is not here"}, status=404)
        if request.method == "DELETE":
            return web.json_response({"size": len(self.needles.pop(fid)[0])}, status=202)
        return photo_answer(request, *self.needles[fid])


def photo_answer(request: web.Request, data: bytes, mime: str, disposition: str) -> web.Response:
    headers = {"ETag": f'"{len(data):x}"', "Content-Type": mime, "Last-Modified": "Sat, 21 Nov 2026 14:00:00 GMT"}
    if disposition:
        headers["Content-Disposition"] = disposition
    start = request.http_range.start
    if request.method == "HEAD":
        # aiohttp leaves the length out of a HEAD for an empty body.
        headers["Content-Length"] = str(len(data))
    if start is None:
        return web.Response(body=data, headers=headers)
    headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
    return web.Response(body=data[start:], headers=headers, status=206)


@dataclass
class FakeCluster:
    """A Directory with two Stores. Photo n goes to the volume that ``volumes`` names next."""

    stores: list[FakeStore] = field(default_factory=lambda: [FakeStore(), FakeStore()])
    places: dict[int, list[int]] = field(default_factory=lambda: {1: [0], 2: [1]})
    """Volume → numbers of the Stores that have it."""
    assign_to: deque[int] = field(default_factory=deque)
    directory_script: deque[Script] = field(default_factory=deque)
    requests: list[str] = field(default_factory=list)
    server: TestServer | None = None
    next_key: int = 1
    caches: list[FakeStore] = field(default_factory=list)
    """They answer reads like Stores, and are started by whoever adds them."""
    shared: dict[str, int] = field(default_factory=dict)
    cache_questions: int = 0

    async def start(self) -> None:
        for store in self.stores:
            store.server = await _serve(store.handle)
            store.address = f"{store.server.host}:{store.server.port}"
        self.server = await _serve(self._handle)

    def _list_caches(self) -> web.Response:
        named = [
            {"id": one.address, "url": one.address, "publicUrl": one.address, "weight": 1.0} for one in self.caches
        ]
        return web.json_response({"caches": named, "shared": self.shared})

    async def add_cache(self) -> FakeStore:
        cache = FakeStore()
        cache.server = await _serve(cache.handle)
        cache.address = f"{cache.server.host}:{cache.server.port}"
        self.caches.append(cache)
        return cache

    async def stop(self) -> None:
        for server in (self.server, *(node.server for node in (*self.stores, *self.caches))):
            if server is not None:
                await server.close()

    @property
    def url(self) -> str:
        assert self.server is not None
        return f"http://{self.server.host}:{self.server.port}"

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/dir/caches":
            # Apart from the script: clients ask for it when they think fit.
            self.cache_questions += 1
            return self._list_caches()
        self.requests.append(f"{request.method} {request.path_qs}")
        if self.directory_script:
            answer = await self.directory_script.popleft()(request)
            if answer is not None:
                return answer
        if request.path == "/dir/assign":
            volume = self.assign_to.popleft() if self.assign_to else 1
            photos = int(request.query.get("photos", "1"))
            fids = [str(Fid(volume, self.next_key + number, 0xC0FFEE)) for number in range(photos)]
            self.next_key += photos
            answer = {"fid": fids[0], "count": 1, **self._location(self.places[volume][0])}
            return web.json_response({**answer, "fids": fids} if photos > 1 else answer)
        if request.path == "/dir/lookup":
            volume = int(request.query["volumeId"])
            if volume not in self.places:
                return web.json_response({"volumeId": str(volume), "error": f"no volume {volume}"}, status=404)
            locations = [self._location(number) for number in self.places[volume]]
            return web.json_response({"volumeId": str(volume), "locations": locations})
        if request.path == "/photos/7":
            return web.json_response({"id": "7", "renditions": [{"alternate": 0, "fid": str(Fid(1, 7, 0xC0FFEE))}]})
        return web.json_response({"error": "no such photo"}, status=404)

    def _location(self, number: int) -> dict[str, str]:
        return {"url": self.stores[number].address, "publicUrl": self.stores[number].address}


def refuse(status: int, text: str = "on purpose", headers: dict[str, str] | None = None) -> Script:
    """Answer with an error after reading the body."""

    async def script(request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.json_response({"error": text}, status=status, headers=headers)

    return script


def refuse_at_once(status: int, text: str = "on purpose") -> Script:
    """Answer with an error before the body is read, and close the connection."""

    async def script(request: web.Request) -> web.StreamResponse:
        answer = web.json_response({"error": text}, status=status)
        answer.force_close()
        return answer

    return script


async def hang_up(request: web.Request) -> web.StreamResponse:
    """Break the connection without an answer."""
    await request.read()
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def store_and_hang_up(store: FakeStore) -> Script:
    """Do what is asked, and break the connection before the answer."""

    async def script(request: web.Request) -> web.StreamResponse:
        fid = request.path.lstrip("/")
        if request.method == "POST":
            store.needles[fid] = (await request.read(), request.content_type, "")
        elif request.method == "DELETE":
            store.needles.pop(fid)
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    return script


def break_after(part_bytes: int, data: bytes, *, etag: str | None = None) -> Script:
    """Send the beginning of a photo and break the connection."""

    async def script(request: web.Request) -> web.StreamResponse:
        start = request.http_range.start or 0
        answer = web.StreamResponse(status=206 if start else 200)
        answer.headers["ETag"] = f'"{etag or f"{len(data):x}"}"'
        answer.content_length = len(data) - start
        if start:
            answer.headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        await answer.prepare(request)
        await answer.write(data[start : start + part_bytes])
        assert request.transport is not None
        request.transport.close()
        return answer

    return script


async def _serve(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> TestServer:
    app = web.Application(client_max_size=64 * 2**20)
    app.router.add_route("*", "/{tail:.*}", handler)
    server = TestServer(app)
    await server.start_server()
    await asyncio.sleep(0)
    return server
