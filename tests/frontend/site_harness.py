"""A front end in this process, beside a cluster of one aiohttp server that is Directory, Store and intake."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgpack
from aiohttp import web
from aiohttp.test_utils import TestServer
from argon2 import PasswordHasher

from frontend.intake.store import record_needle
from frontend.records import Record, dump
from frontend.server import serve
from frontend.services.passwords import Passwords
from frontend.tickets import TicketOffice, TicketRefused
from haystack.config import FrontendSettings
from haystack.fid import Fid
from haystack.json_calls import signed_headers
from haystack.signed_urls import UrlSigner

SECRET = b"0123456789abcdef0123456789abcdef"
RENDITIONS = (0, 1, 2, 3, 4, 11, 12, 13, 14)
PASSWORD = "correct horse battery"


def cheap_passwords() -> Passwords:
    return Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@dataclass
class FakeMachine:
    """Directory, Store and intake; keeps needles as (data, mime, signed)."""

    needles: dict[str, tuple[bytes, str, bool]] = field(default_factory=dict)
    next_key: int = 0x1000
    hits: list[tuple[str, int]] = field(default_factory=list)
    refuse_store: bool = False
    refuse_upload: tuple[int, str] | None = None
    uploads: int = 0
    taken: dict[bytes, Record] = field(default_factory=dict)
    address: str = ""
    signer: UrlSigner = field(default_factory=lambda: UrlSigner(SECRET))

    def app(self) -> web.Application:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/dir/assign", self.assign)
        app.router.add_get("/dir/lookup", self.lookup)
        app.router.add_get("/dir/caches", self.caches)
        app.router.add_get("/cluster/nodes", self.nodes)
        app.router.add_post("/internal/hits", self.tell_hits)
        app.router.add_post("/upload", self.upload)
        app.router.add_post("/{volume:[0-9]+}/multi", self.multi)
        app.router.add_route("*", "/{fid:[0-9]+,.*}", self.needle)
        return app

    def _place(self) -> dict[str, Any]:
        return {"url": self.address, "publicUrl": self.address, "services": {"intake": self.address}}

    async def assign(self, _: web.Request) -> web.Response:
        self.next_key += 1
        fid = Fid(1, self.next_key, 0xC00C1E)
        return web.json_response({"fid": str(fid), "count": 32, **self._place()})

    async def lookup(self, _: web.Request) -> web.Response:
        return web.json_response({"locations": [{**self._place(), "primary": True}]})

    async def caches(self, _: web.Request) -> web.Response:
        return web.json_response({"caches": [], "shared": {}})

    async def nodes(self, _: web.Request) -> web.Response:
        return web.json_response({"nodes": [self._place()]})

    async def tell_hits(self, _: web.Request) -> web.Response:
        hits, self.hits = self.hits, []
        return web.json_response({"hits": hits})

    async def upload(self, request: web.Request) -> web.Response:
        self.uploads += 1
        data = await request.read()
        try:
            ticket = TicketOffice(SECRET).check(request.headers["Authorization"].removeprefix("Bearer "), time.time())
        except TicketRefused as error:
            return web.json_response({"error": str(error)}, status=403)
        if self.refuse_upload is not None:
            return web.json_response({"error": self.refuse_upload[1]}, status=self.refuse_upload[0])
        if len(data) != ticket.size_bytes:
            return web.json_response({"error": "wrong size"}, status=400)
        again = ticket.id in self.taken
        record = self.taken.setdefault(ticket.id, made_record(ticket, data))
        for alternate in RENDITIONS:
            fid = Fid.parse(record.fid)
            name = str(Fid(fid.volume, fid.key, fid.cookie, alternate))
            self.needles[name] = (data, "image/jpeg", record.visibility != 0)
        self._keep_record(record)
        answer = f'{{"photo": "{record.photo_id:x}", "record": {dump(record)}}}'
        return web.Response(text=answer, status=200 if again else 201, content_type="application/json")

    def _keep_record(self, record: Record) -> None:
        needle, fid = record_needle(record), Fid.parse(record.fid)
        self.needles[str(Fid(fid.volume, fid.key, fid.cookie, needle.alternate))] = (needle.data, needle.mime, True)

    async def multi(self, request: web.Request) -> web.Response:
        if self.refuse_store:
            return web.json_response({"error": "the disk is full"}, status=507)
        for item in msgpack.unpackb(await request.read()):
            self.needles[item["fid"]] = (item["data"], item["mime"], item["signed"])
        return web.json_response({"needles": []}, status=201)

    async def needle(self, request: web.Request) -> web.Response:
        fid = str(Fid.parse(request.match_info["fid"]))
        found = self.needles.get(fid)
        if found is None or (request.method == "DELETE" and self.refuse_store):
            return web.json_response({"error": "not here"}, status=503 if self.refuse_store else 404)
        if request.method == "DELETE":
            del self.needles[fid]
            return web.json_response({"size": len(found[0])}, status=202)
        until = self.signer.valid_until(Fid.parse(fid), request.query.get("e"), request.query.get("s"))
        if found[2] and until < time.time():
            return web.json_response({"error": "not here"}, status=404)
        return web.Response(body=found[0], content_type=found[1])


def made_record(ticket: Any, data: bytes, **changes: Any) -> Record:
    """The record of a photo of 1600x1200 pixels, as the intake would make it."""
    values: dict[str, Any] = {
        "fid": ticket.fid, "owner_id": ticket.owner_id, "owner_name": ticket.owner_name,
        "owner_shown": ticket.owner_shown, "title": ticket.title, "caption": ticket.caption, "tags": ticket.tags,
        "visibility": ticket.visibility, "created_ms": time.time_ns() // 1_000_000, "taken_ms": 1_700_000_000_000,
        "latitude": 43.5 if ticket.keep_place else None, "longitude": 11.9 if ticket.keep_place else None,
        "camera": "Camera", "name": ticket.name, "mime": "image/jpeg", "width": 1600, "height": 1200,
        "size_bytes": len(data), "animated": False, "renditions": RENDITIONS, "placeholder": "00" * 20,
        "exact_hash": hashlib.sha256(data).hexdigest(), "near_hash": hashlib.sha256(data).hexdigest()[:16],
    }  # fmt: skip
    return Record(**{**values, **changes})


class Person:
    """Somebody with an API token; nobody without one."""

    def __init__(self, session: aiohttp.ClientSession, base: str, name: str, token: str | None) -> None:
        self.session = session
        self.base = base
        self.name = name
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def call(
        self, method: str, path: str, document: Any = None, *, headers: dict[str, str] | None = None, data: Any = None
    ) -> tuple[int, Any]:
        async with self.session.request(
            method, f"{self.base}{path}", json=document, data=data, headers={**self.headers, **(headers or {})},
            allow_redirects=False,
        ) as response:  # fmt: skip
            raw = await response.read()
            assert response.status < 500 or response.status == 503, raw
            if response.status >= 400:
                assert response.content_type == "application/problem+json", raw
            if response.status == 302:
                return 302, response.headers["Location"]
            return response.status, await response.json(content_type=None) if raw else None

    async def ok(self, method: str, path: str, document: Any = None, **extra: Any) -> Any:
        status, answer = await self.call(method, path, document, **extra)
        assert status < 400, answer
        return answer

    async def upload(self, data: bytes = b"a photo", *, key: str | None = None, **fields: str) -> Any:
        form = aiohttp.FormData()
        for name, value in fields.items():
            form.add_field(name, value)
        form.add_field("file", data, filename="beach.jpg", content_type="image/jpeg")
        headers = {} if key is None else {"Idempotency-Key": key}
        return await self.ok("POST", "/photos", data=form, headers=headers)


@dataclass
class Place:
    """A running front end."""

    url: str
    machine: FakeMachine
    session: aiohttp.ClientSession
    settings: FrontendSettings

    @property
    def api(self) -> str:
        return f"{self.url}/api/v1"

    @property
    def nobody(self) -> Person:
        return Person(self.session, self.api, "", None)

    async def person(self, name: str) -> Person:
        """Somebody new, with a token."""
        await self.nobody.ok("POST", "/users", {"username": name, "password": PASSWORD})
        made = await self.nobody.ok("POST", "/tokens", {"name": "t", "login": name, "password": PASSWORD})
        return Person(self.session, self.api, name, made["token"])

    async def internal(self, path: str, body: bytes, secret: bytes | None = SECRET) -> tuple[int, Any]:
        target = aiohttp.client.URL(self.url + path)
        headers = signed_headers(secret, "POST", target, body)
        async with self.session.post(target, data=body, headers=headers) as response:
            return response.status, await response.json()


@asynccontextmanager
async def running(folder: Path, **settings: Any) -> AsyncIterator[Place]:
    """A front end with an SQLite database in a folder, and its machine."""
    machine = FakeMachine()
    server = TestServer(machine.app())
    await server.start_server()
    machine.address = f"{server.host}:{server.port}"
    made = FrontendSettings(
        **{
            "database": f"sqlite:///{folder}/photos.db",
            "port": 0,
            "secret": SECRET,
            "rate_limits": "off",
            "directories": (f"http://{machine.address}",),
            **settings,
        }
    )
    try:
        async with (
            serve(made, cheap_passwords()) as url,
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
        ):
            yield Place(url, machine, session, made)
    finally:
        await server.close()
