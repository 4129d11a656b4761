"""A Store's word to its Directory, over real volumes and a real socket: when it is given, and what it says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from aiohttp import web
from aiohttp.test_utils import TestServer
from supervisor_harness import FAST_TIMING, until

from haystack.store.control import ControlBlock
from haystack.store.control_cells import VolumeCell
from haystack.store.directories import DirectoryCalls
from haystack.store.folder_opening import open_folders
from haystack.store.replication.rules import Duty
from haystack.store.store_volume import NewVolume, StoreVolume
from haystack.store.told import Teller
from haystack.store.volumes import StoreVolumes
from haystack.volume import NewNeedle


class Words:
    """A Directory that takes words."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.status = 200
        app = web.Application()
        app.router.add_post("/internal/stores/word", self._take)
        self.server = TestServer(app)

    async def _take(self, request: web.Request) -> web.Response:
        self.taken.append(await request.json())
        return web.json_response({"known": True, "token": f"token-{len(self.taken)}"}, status=self.status)

    async def next(self) -> dict[str, Any]:
        """Return a word that was given after this call."""
        count = len(self.taken)
        await until(lambda: len(self.taken) > count + 1, "another word")
        return self.taken[-1]


class Bench:
    """A Teller of two volumes, of which the test says how far they were told."""

    def __init__(self, teller: Teller, volumes: StoreVolumes, told: dict[int, int], url: str, words: Words) -> None:
        self.teller = teller
        self.volumes = volumes
        self.told = told
        self.url = url
        self.words = words

    def put(self, entry: StoreVolume, key: int) -> int:
        """Store a needle as a worker does; return the volume's end."""
        entry.require_open().put_many([NewNeedle(key, 7, (b"photo",), 1)])
        control = self.volumes.control
        tail = entry.require_open().tail()
        control.cells[control.volume_base(0, entry.slot) + VolumeCell.DURABLE_TAIL] = tail
        return tail

    def look(self, *entries: StoreVolume) -> None:
        self.teller.looked(time.monotonic(), [entry.slot for entry in entries])

    def tell_all(self) -> None:
        self.told.update({entry.id: entry.require_open().tail() for entry in self.volumes})

    async def behind(self) -> dict[int, float | None]:
        return dict((await self.words.next())["behind"])


@asynccontextmanager
async def bench(path: Path) -> AsyncIterator[Bench]:
    words = Words()
    await words.server.start_server()
    url = f"http://127.0.0.1:{words.server.port}"
    [folder] = open_folders([path])
    control = ControlBlock.create(1)
    told: dict[int, int] = {}
    async with DirectoryCalls([url, "http://127.0.0.1:1"], None, FAST_TIMING) as calls:
        volumes = StoreVolumes([folder], control, max_volume_bytes=2**30, on_change=lambda: None)
        teller = Teller(volumes, calls, "store-1", lambda entry: told.get(entry.id, 0))
        task = asyncio.create_task(teller.run())
        try:
            for number in (1, 2):
                await volumes.create(NewVolume(number, uuid4(), 0, 1, 1, None, None))
            yield Bench(teller, volumes, told, url, words)
        finally:
            task.cancel()
            await asyncio.wait((task,))
            await volumes.close()
            folder.close()
            control.close()
            await words.server.close()


async def test_the_word_is_given_only_while_it_is_wanted(tmp_path: Path) -> None:
    async with bench(tmp_path) as store:
        store.teller.answered(store.url, {"known": True})
        store.look()
        await asyncio.sleep(0.05)
        store.teller.answered("http://127.0.0.1:1", {"wordSeconds": 0.02})
        await asyncio.sleep(0.05)
        assert not store.words.taken, "the other Directory does not take the confirmations"
        store.teller.answered(store.url, {"wordSeconds": 0.02})
        store.look()
        await store.words.next()
        store.teller.answered(store.url, {"known": True})
        await asyncio.sleep(0.05)
        count = len(store.words.taken)
        await asyncio.sleep(0.1)
        assert len(store.words.taken) == count


async def test_it_names_what_is_not_told(tmp_path: Path) -> None:
    async with bench(tmp_path) as store:
        first, second = store.volumes.get(1), store.volumes.get(2)
        store.put(first, 1)
        store.teller.answered(store.url, {"wordSeconds": 0.02})
        store.look()
        assert await store.behind() == {1: None, 2: None}, "nobody knows what was told of them before"
        store.tell_all()
        store.look()
        assert await store.behind() == {}
        store.put(second, 2)
        store.look(second)
        [(volume, lag)] = (await store.behind()).items()
        assert volume == 2 and lag is not None and 0 < lag < 10_000
        store.tell_all()
        store.look()
        assert await store.behind() == {}


async def test_it_tells_how_long_ago_the_token_came(tmp_path: Path) -> None:
    async with bench(tmp_path) as store:
        store.teller.answered(store.url, {"wordSeconds": 0.02})
        store.look()
        await store.words.next()
        first, second = store.words.taken[:2]
        assert first["token"] == "" and second["token"] == "token-1"
        assert second["ageMs"] < 0, "the look was before the token came"


async def test_what_is_led_anew_is_named_at_once(tmp_path: Path) -> None:
    async with bench(tmp_path) as store:
        store.tell_all()
        entry = store.volumes.get(1)
        store.teller.answered(store.url, {"wordSeconds": 0.02})
        store.look()
        assert await store.behind() == {}
        entry.duty = Duty.REPLICA
        store.teller.leads_changed()
        entry.duty = Duty.PRIMARY
        store.teller.leads_changed()
        assert await store.behind() == {1: None}
        store.look()
        assert await store.behind() == {}


async def test_a_directory_that_refuses_is_told_again(tmp_path: Path) -> None:
    async with bench(tmp_path) as store:
        store.words.status = 503
        store.teller.answered(store.url, {"wordSeconds": 0.02})
        store.look()
        await store.words.next()
        store.words.status = 200
        word = await store.words.next()
        assert word["storeId"] == "store-1"
