"""The steps of an upload, with a Store that fails as it is told: what the client hears, what is published."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from intake_harness import OFFICE, ticket
from pictures import file_of, soft

from frontend.images.pool import ImagePool
from frontend.images.preparing import Prepared, prepare
from frontend.images.settings import ImageSettings
from frontend.intake import taking
from frontend.intake.errors import UploadInUse
from frontend.intake.outbox import STORED, Outbox
from frontend.intake.store import MaybeStored, Needle, NotStored, StoreWriter
from frontend.intake.taking import Taker
from haystack.fid import Fid

PHOTO = file_of(soft(64, 48))
PREPARED = prepare(PHOTO, ImageSettings())


class FakePool:
    """Gives the same renditions for everything, when it is let to."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()

    async def prepare(self, source: Path) -> Prepared:
        await self.gate.wait()
        return PREPARED


class FakeStore:
    """Takes needles, or says that it has not, or says nothing."""

    def __init__(self) -> None:
        self.has_them: set[Fid] = set()
        self.writes = 0
        self.refuse: type[NotStored | MaybeStored] | None = None
        self.keep = True
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()
        self.answer.set()

    async def write(self, fid: Fid, needles: Sequence[Needle]) -> None:
        self.writes += 1
        if self.keep:
            self.has_them.add(fid)
        if self.refuse is not None:
            raise self.refuse("as told")

    async def has(self, fid: Fid) -> bool:
        self.asked.set()
        there = fid in self.has_them
        await self.answer.wait()
        return there


class Bench:
    """A Taker with what it needs."""

    def __init__(self, folder: Path) -> None:
        self.pool, self.store = FakePool(), FakeStore()
        self.outbox = Outbox(folder / "outbox.sqlite")
        self.file = folder / "upload"
        self.file.write_bytes(PHOTO)
        self.told = asyncio.Event()
        self.taker = Taker(
            OFFICE,
            self.outbox,
            cast(ImagePool, self.pool),
            cast(StoreWriter, self.store),
            stored=self.told.set,
            now_ms=lambda: time.time_ns() // 1_000_000,
        )


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(taking, "ASKED_AGAIN_SECONDS", 0.01)
    made = Bench(tmp_path)
    settling = asyncio.create_task(made.taker.settle())
    yield made
    settling.cancel()
    await asyncio.wait([settling])
    await made.taker.close()
    made.outbox.close()


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


async def test_a_photo_that_nobody_confirmed_is_found_and_published(bench: Bench) -> None:
    one = ticket(len(PHOTO))
    bench.store.refuse = MaybeStored
    with pytest.raises(MaybeStored):
        await bench.taker.take(one, bench.file)
    async with asyncio.timeout(10):
        await bench.told.wait()
    bench.store.refuse = None
    taken = await bench.taker.take(one, bench.file)
    assert taken.again and bench.store.writes == 1
    assert len(bench.outbox.due(2**60, 9)) == 1


async def test_a_photo_that_was_not_stored_may_come_again(bench: Bench) -> None:
    one = ticket(len(PHOTO))
    bench.store.refuse, bench.store.keep = MaybeStored, False
    with pytest.raises(MaybeStored):
        await bench.taker.take(one, bench.file)
    await until(lambda: not bench.outbox.intended() and not bench.taker._busy)
    bench.store.refuse, bench.store.keep = None, True
    assert not (await bench.taker.take(one, bench.file)).again


async def test_a_photo_that_is_refused_leaves_no_note(bench: Bench) -> None:
    one = ticket(len(PHOTO))
    bench.store.refuse = NotStored
    with pytest.raises(NotStored):
        await bench.taker.take(one, bench.file)
    assert bench.outbox.find(one.id) is None
    assert await bench.taker.before(one) is None


async def test_a_retry_while_it_is_settled_is_told_to_wait(bench: Bench) -> None:
    """A note that is forgotten just when a second write succeeds would lose an acknowledged photo."""
    one = ticket(len(PHOTO))
    bench.store.refuse, bench.store.keep = MaybeStored, False
    bench.store.answer.clear()
    with pytest.raises(MaybeStored):
        await bench.taker.take(one, bench.file)
    async with asyncio.timeout(10):
        await bench.store.asked.wait()
    bench.store.refuse, bench.store.keep = None, True
    with pytest.raises(UploadInUse):
        await bench.taker.take(one, bench.file)
    bench.store.answer.set()
    await until(lambda: not bench.outbox.intended() and not bench.taker._busy)
    assert not (await bench.taker.take(one, bench.file)).again
    note = bench.outbox.find(one.id)
    assert note is not None and note.state == STORED


async def test_one_ticket_is_worked_on_once_at_a_time(bench: Bench) -> None:
    one = ticket(len(PHOTO))
    bench.pool.gate.clear()
    first = asyncio.create_task(bench.taker.take(one, bench.file))
    await asyncio.sleep(0)
    with pytest.raises(UploadInUse):
        await bench.taker.take(one, bench.file)
    bench.pool.gate.set()
    assert not (await first).again
    assert bench.store.writes == 1
