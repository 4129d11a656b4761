from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from directory_fakes import FakeStore, until
from replica_fakes import ReplicaStore, meet

from directory.server import serve
from directory.settings import DirectorySettings


class Harness:
    """A Directory on a real socket in this event loop, and a session to talk to it."""

    def __init__(self, base: str, session: aiohttp.ClientSession, settings: DirectorySettings) -> None:
        self.base = base
        self.session = session
        self.settings = settings

    async def call(self, path: str, method: str = "GET", **options: Any) -> tuple[int, Any]:
        """Return status and JSON of an answer."""
        options = {"allow_redirects": False, **options}
        async with self.session.request(method, self.base + path, **options) as answer:
            return answer.status, await answer.json()

    async def with_store(self, store: FakeStore, writable: int = 7) -> None:
        """Register a Store and wait until the Directory has had its volumes made."""
        status, answer = await store.register(self.base)
        assert status == 200, answer

        async def grown() -> bool:
            _, document = await self.call("/cluster/status")
            return bool(document["Counts"]["volumesWritable"] >= writable)

        await until(grown, f"{writable} writable volumes")


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Start a Directory, with settings of its own; the data folder is the same each time."""
    async with AsyncExitStack() as stack:

        async def begin(**changes: Any) -> Harness:
            options = {
                "data": tmp_path / "directory",
                "port": 0,
                "heartbeat_seconds": 0.05,
                "dead_after_seconds": 30.0,
                **changes,
            }
            settings = DirectorySettings(**options)
            base = await stack.enter_async_context(serve(settings))
            session = await stack.enter_async_context(aiohttp.ClientSession())
            return Harness(base, session, settings)

        yield begin


@pytest.fixture
async def directory(start: Callable[..., Any]) -> Harness:
    return await start()


@pytest.fixture
async def make_store() -> AsyncIterator[Callable[..., Any]]:
    async with AsyncExitStack() as stack:

        async def make(secret: bytes | None = None) -> FakeStore:
            store = await FakeStore(secret).start()
            stack.push_async_callback(store.stop)
            return store

        yield make


@pytest.fixture
async def make_replicas() -> AsyncIterator[Callable[..., Any]]:
    """Start stand-in Stores that keep copies; each is given as (data center, rack)."""
    async with AsyncExitStack() as stack:

        async def make(*places: tuple[str, str]) -> list[ReplicaStore]:
            stores = []
            for data_center, rack in places:
                store = ReplicaStore()
                store.data_center, store.rack = data_center, rack
                await store.start()
                stack.push_async_callback(store.stop)
                stores.append(store)
            meet(*stores)
            return stores

        yield make


@pytest.fixture
async def store(make_store: Callable[..., Any]) -> FakeStore:
    return await make_store()
