"""Several Stores as processes, and a Directory that grants memberships as a test wants it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
from aiohttp import web
from supervisor_harness import DEADLINE_SECONDS, FakeDirectory, StoreProcess, kill_process, new_volume
from yarl import URL

from haystack.json_calls import signed_headers
from haystack.store.replication.membership import Member, Membership

SECRET = "0123456789abcdef0123456789abcdef"


class GrantingDirectory(FakeDirectory):
    """Takes suspects out of the in-sync set, when ``decides`` is set.

    A machine that is busy with other things makes a copy slow for a moment; that shall cost a repetition, and no copy.
    """

    def __init__(self) -> None:
        super().__init__()
        self.memberships: dict[int, Membership] = {}
        self.reports: list[dict[str, Any]] = []
        self.decides = False

    async def go_up(self) -> None:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/internal/stores/register", self._register)
        app.router.add_post("/internal/stores/heartbeat", self._heartbeat)
        app.router.add_post("/internal/confirm", self._confirm)
        app.router.add_post("/internal/volumes/{volume}/suspect", self._suspect)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _suspect(self, request: web.Request) -> web.Response:
        report = await request.json()
        volume = int(request.match_info["volume"])
        self.reports.append(report | {"volume": volume})
        now = self.memberships[volume]
        if self.decides and report["epoch"] == now.epoch and report["suspects"]:
            left = tuple(member for member in now.in_sync if member.store_id not in report["suspects"])
            now = self.memberships[volume] = Membership(now.uuid, now.epoch + 1, now.primary, now.copies, left)
        return web.json_response(now.document() | {"volume": volume})


class Cluster:
    """Stores with one volume that all of them have; the first leads it."""

    def __init__(self, stores: Sequence[StoreProcess], members: Sequence[Member], directory: GrantingDirectory) -> None:
        self.stores = stores
        self.members = tuple(members)
        self.directory = directory
        self.uuid = str(uuid4())

    async def make(self, volume: int = 1, count: int | None = None, replication: str = "001") -> Membership:
        """A volume on the first ``count`` Stores (all by default)."""
        members = tuple(self.members[:count])
        membership = Membership(self.uuid, 1, members[0].store_id, len(members), members)
        self.directory.memberships[volume] = membership
        for store in self.stores[: len(members)]:
            more = {"uuid": self.uuid, "replication": replication, "membership": membership.document()}
            await self.admin(store, "POST", "/admin/volumes", new_volume(volume, **more), expect=201)
        return membership

    async def push(self, membership: Membership, *stores: StoreProcess, volume: int = 1, expect: int = 200) -> Any:
        """Grant a membership to Stores (all by default); returns the last answer."""
        self.directory.memberships[volume] = membership
        answer = None
        for store in stores or self.stores:
            path = f"/admin/volumes/{volume}/membership"
            answer = await self.admin(store, "PUT", path, membership.document(), expect=expect)
        return answer

    async def admin(self, store: StoreProcess, method: str, path: str, document: Any = None, expect: int = 200) -> Any:
        url = f"http://127.0.0.1:{store.admin_port}{path}"
        body = b"" if document is None else json.dumps(document).encode()
        headers = signed_headers(SECRET.encode(), method, URL(url), body)
        async with aiohttp.request(method, url, data=body, headers=headers) as answer:
            text = await answer.text()
            assert answer.status == expect, text
            return json.loads(text)

    async def document(self, store: StoreProcess, volume: int = 1) -> Any:
        return await self.admin(store, "GET", f"/admin/volumes/{volume}")

    async def until(self, store: StoreProcess, volume: int = 1, **wanted: Any) -> Any:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            document = await self.document(store, volume)
            if all(document.get(name) == value for name, value in wanted.items()):
                return document
            assert time.monotonic() < deadline, f"{document} is not {wanted}"
            await asyncio.sleep(0.02)

    def file(self, store: StoreProcess, volume: int = 1) -> bytes:
        return (Path(store.settings["data"][0]) / f"{volume}.vol").read_bytes()

    def require_equal(self, *stores: StoreProcess, volume: int = 1) -> None:
        first, *others = [self.file(store, volume) for store in stores or self.stores]
        assert all(other == first for other in others)


async def request(
    store: StoreProcess, method: str, path: str, data: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    """A client's request; returns the status and what was answered (JSON, else bytes)."""
    url = f"http://127.0.0.1:{store.port}{path}"
    async with aiohttp.request(method, url, data=data, headers=headers) as answer:
        body = await answer.read()
        return answer.status, json.loads(body) if answer.content_type == "application/json" else body


def fid(key: int, volume: int = 1, alternate: int = 0) -> str:
    suffix = f"_{alternate}" if alternate else ""
    return f"/{volume},{key:x}{key * 7919:016x}{suffix}"


class frozen:
    """The workers of a Store stand still for the length of a block; its supervisor too, unless told otherwise."""

    def __init__(self, store: StoreProcess, *, supervisor: bool = True) -> None:
        self._pids = store.workers() + ([store.process.pid] if supervisor else [])

    def __enter__(self) -> None:
        self._signal(signal.SIGSTOP)

    def __exit__(self, *error: object) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._pids:
            os.kill(pid, number)


@asynccontextmanager
async def cluster(folder: Path, count: int = 2, **settings: Any) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        directory = GrantingDirectory()
        await stack.enter_async_context(directory)
        stores, members = [], []
        for number in range(count):
            usual: dict[str, Any] = {"admin_port": 0, "secret": SECRET, "directories": [directory.url], "workers": 1}
            store = StoreProcess(folder / f"store{number}", **usual | settings)
            await stack.enter_async_context(store)
            stores.append(store)
            identity = json.loads((folder / f"store{number}" / "folder.json").read_bytes())
            members.append(Member(identity["store_id"], f"127.0.0.1:{store.port}", f"127.0.0.1:{store.admin_port}"))
        one = Cluster(stores, members, directory)
        yield one
    for store in one.stores:
        assert "Traceback" not in store_log(store), store_log(store)


def store_log(store: StoreProcess) -> str:
    return "" if store._log.closed else store.log


__all__ = ["Cluster", "cluster", "fid", "frozen", "kill_process", "request"]
