"""The supervisor sleeps until a worker rings, and misses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from supervisor_harness import until

from haystack.store.control import ControlBlock
from haystack.store.control_cells import Header
from haystack.store.watch import Watch


@pytest.fixture
def control() -> Iterator[ControlBlock]:
    block = ControlBlock.create(1)
    yield block
    block.close()


class Seen:
    """What was in a cell at each look."""

    def __init__(self, control: ControlBlock, watch: Watch) -> None:
        self.values: list[int] = []
        watch.add(lambda: self.values.append(control.cells[control.worker_base(0)]))


@asynccontextmanager
async def watching(watch: Watch) -> AsyncIterator[None]:
    task = asyncio.create_task(watch.run())
    await asyncio.sleep(0)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def rings(control: ControlBlock) -> int:
    """How often it was rung since the last call."""
    try:
        return os.eventfd_read(control.bell_fd)
    except BlockingIOError:
        return 0


def test_a_worker_rings_once_and_only_for_somebody_who_listens(control: ControlBlock) -> None:
    worker = ControlBlock.attach(os.dup(control.fd))
    assert worker.bell_fd == control.bell_fd
    worker.ring()
    assert not rings(control)
    control.listen()
    worker.ring()
    worker.ring()
    assert rings(control) == 1
    control.listen()
    worker.ring()
    assert rings(control) == 1
    worker.close()
    control.listen()
    control.ring()
    assert rings(control) == 1, "the bell is everybody's until its maker closes it"


async def test_nobody_looks_while_nothing_is_new(control: ControlBlock) -> None:
    watch = Watch(control, 0.001, lambda: 60.0)
    seen = Seen(control, watch)
    async with watching(watch):
        for _ in range(100):
            await asyncio.sleep(0.001)
        assert seen.values == [0]
        assert control.cells[Header.LISTENING]


async def test_each_change_is_seen_however_it_falls_between_looks(control: ControlBlock) -> None:
    watch = Watch(control, 0.0, lambda: 60.0)
    seen = Seen(control, watch)
    last = 20_000

    def work() -> None:
        for value in range(1, last + 1):
            control.cells[control.worker_base(0)] = value
            control.ring()

    async with watching(watch):
        thread = threading.Thread(target=work)
        thread.start()
        await until(lambda: seen.values[-1] == last, "the last change is seen")
        thread.join()


async def test_changes_in_quick_succession_are_looked_at_together(control: ControlBlock) -> None:
    watch = Watch(control, 60.0, lambda: 60.0)
    seen = Seen(control, watch)
    async with watching(watch):
        for value in range(1, 100):
            control.cells[control.worker_base(0)] = value
            control.ring()
            await asyncio.sleep(0.001)
        assert seen.values == [0]
        watch.look()
        assert seen.values == [0, 99]


async def test_a_worker_that_was_killed_while_it_rang_is_heard_all_the_same(control: ControlBlock) -> None:
    watch = Watch(control, 0.001, lambda: 0.05)
    seen = Seen(control, watch)
    async with watching(watch):
        control.cells[control.worker_base(0)] = 1
        control.cells[Header.LISTENING] = 0  # all that it got round to
        await until(lambda: seen.values[-1] == 1, "it is seen at the next look")
