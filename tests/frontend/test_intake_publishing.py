"""Telling front ends of photos: the next one when one does not answer, later when none does, and just in time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from intake_harness import SECRET

from frontend.intake.outbox import INTENDED, PUBLISHED, STORED, Note, Outbox
from frontend.intake.publishing import PATH, Publisher


class Front:
    """A front end with a queue of statuses to answer; 201 when that is empty."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.bodies: list[Any] = []
        self.body = b"{}"
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.json())
        return web.Response(status=self.statuses.pop(0) if self.statuses else 201, body=self.body)


@pytest.fixture
async def fronts() -> AsyncIterator[list[Front]]:
    made, runners = [Front(), Front()], []
    for front in made:
        app = web.Application()
        app.router.add_post(PATH, front.answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        front.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        runners.append(runner)
    yield made
    for runner in runners:
        await runner.cleanup()


class Bench:
    def __init__(self, folder: Path, session: aiohttp.ClientSession, urls: list[str]) -> None:
        self.outbox = Outbox(folder / "outbox.sqlite")
        self.now_ms = 1_000_000
        self.publisher = Publisher(session, urls, SECRET, self.outbox, self.on_disk, lambda: self.now_ms)

    async def on_disk(self, act: Callable[..., Any], *args: object) -> Any:
        return act(*args)

    def put(self, ticket: bytes, number: int) -> None:
        self.outbox.intend(Note(ticket, 2_000, INTENDED, json.dumps({"number": number})))
        self.outbox.stored(ticket)

    def state(self, ticket: bytes) -> int:
        note = self.outbox.find(ticket)
        assert note is not None
        return note.state

    async def run_until(self, condition: Callable[[], bool]) -> None:
        task: Awaitable[None] = asyncio.ensure_future(self.publisher.run())
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - the outbox has no event
                await asyncio.sleep(0.002)
        assert isinstance(task, asyncio.Task)
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


async def test_the_next_front_end_is_asked(tmp_path: Path, session: aiohttp.ClientSession, fronts: list[Front]) -> None:
    bench = Bench(tmp_path, session, ["http://127.0.0.1:1", fronts[0].url, fronts[1].url])
    fronts[0].statuses = [500]
    bench.put(b"a", 1)
    await bench.run_until(lambda: bench.state(b"a") == PUBLISHED)
    assert [len(front.bodies) for front in fronts] == [1, 1]
    assert fronts[1].bodies == [{"number": 1}]
    bench.outbox.close()


async def test_one_that_is_refused_does_not_hold_up_the_others(
    tmp_path: Path, session: aiohttp.ClientSession, fronts: list[Front]
) -> None:
    bench = Bench(tmp_path, session, [fronts[0].url])
    fronts[0].statuses = [400]
    bench.put(b"a", 1)
    bench.put(b"b", 2)
    await bench.run_until(lambda: bench.state(b"b") == PUBLISHED)
    note = bench.outbox.find(b"a")
    assert note is not None and (note.state, note.attempts) == (STORED, 1)
    assert bench.outbox.next_ms() == bench.now_ms + 250
    bench.now_ms += 250
    await bench.run_until(lambda: bench.state(b"a") == PUBLISHED)
    assert (bench.publisher.published, bench.publisher.failures) == (2, 1)
    bench.outbox.close()


async def test_an_answer_without_end_is_no_answer(
    tmp_path: Path, session: aiohttp.ClientSession, fronts: list[Front]
) -> None:
    bench = Bench(tmp_path, session, [fronts[0].url])
    fronts[0].body = bytes(17 * 2**20)
    bench.put(b"a", 1)
    await bench.run_until(lambda: bench.publisher.failures == 1)
    fronts[0].body = b"{}"
    bench.now_ms += 250
    await bench.run_until(lambda: bench.state(b"a") == PUBLISHED)
    bench.outbox.close()


async def test_it_sleeps_until_the_next_attempt_is_due_or_something_comes(
    tmp_path: Path, session: aiohttp.ClientSession, fronts: list[Front], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, session, [fronts[0].url])
    slept: list[float] = []
    usual = asyncio.timeout

    def timeout(seconds: float | None) -> asyncio.Timeout:
        slept.append(seconds or 0.0)
        return usual(seconds)

    fronts[0].statuses = [503]
    bench.put(b"a", 1)
    with monkeypatch.context() as patch:
        patch.setattr("frontend.intake.publishing.asyncio.timeout", timeout)
        task = asyncio.create_task(bench.publisher.run())
        async with usual(10):
            while 0.25 not in slept:  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.002)
        bench.put(b"b", 2)
        bench.publisher.wake()
        async with usual(10):
            while bench.state(b"b") != PUBLISHED:  # noqa: ASYNC110 - the same
                await asyncio.sleep(0.002)
        task.cancel()
        await asyncio.wait([task])
    bench.outbox.close()
