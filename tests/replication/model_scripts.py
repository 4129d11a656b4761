"""Runs that chance would take too long to find: what must happen is written down, one thing after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from unittest import mock

import model_store
from model_messages import DIRECTORY, Write
from model_run import Plan, Run

from haystack.store.replication.rules import Kind

TWO_STORES = Plan(seed=1, stores=2, replication="001")
ASLEEP_SECONDS = 5.0
POLL_SECONDS = 0.01
WITHIN_SECONDS = 8.0


async def deposed_and_back(run: Run) -> None:
    """A primary appends, is deposed, cut and admitted again, and leads once more, all while one of its writes waits.

    The thread that waits sees nothing of it. Where its needle was there is another one now.
    """
    first, second = run.names
    await asyncio.sleep(1.0)
    assert await run.upload(first)
    with mock.patch.object(model_store, "LAZY_SECONDS", (ASLEEP_SECONDS,)):
        run.network.cut(first, second)
        run.network.cut(first, DIRECTORY)
        waiting = asyncio.create_task(run.write(first, Write(Kind.DELETE, 1), "client"))
        await led_by(run, second, 1)
        run.network.heal()
        await led_by(run, second, 2)
        run.kill_store(second, machine=False)
        await led_by(run, first, 1)
        await until(lambda: run.stores[first].standing.epoch == run.directory_disk.record.epoch)
    # Not asleep: this one is acknowledged at once, at the place where the waiting one was cut.
    assert await run.write(first, Write(Kind.DELETE, 1), "client2")
    await waiting
    run.start_store(second)
    await asyncio.sleep(3 * ASLEEP_SECONDS)


async def led_by(run: Run, store: str, copies: int) -> None:
    """Wait until the Directory has granted this."""
    await until(lambda: run.directory_disk.record.primary == store and len(run.directory_disk.record.in_sync) == copies)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_SECONDS):
        while not condition():  # noqa: ASYNC110 - of a world that has no events for this
            await asyncio.sleep(POLL_SECONDS)
