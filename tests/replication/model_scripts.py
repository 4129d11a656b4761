"""Runs that chance would take too long to find: what must happen is written down, one thing after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from unittest import mock

import model_store
from model_messages import DIRECTORY, DeleteCopy, PutMembership, Write, member_of
from model_run import Plan, Run, Script

from haystack.store.replication.membership import Membership
from haystack.store.replication.rules import Kind

TWO_STORES = Plan(seed=1, stores=2, replication="001")
THREE_STORES = Plan(seed=1, stores=3, replication="001")
ASLEEP_SECONDS = 5.0
POLL_SECONDS = 0.01
WITHIN_SECONDS = 15.0


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


async def primary_of_long_ago(run: Run) -> None:
    """A primary that hears clients and replicas, but not the Directory, writes when all others have moved on.

    Its only replica follows another primary now, and has the same bytes: nothing but the epoch tells.
    """
    await _moved_on(run)
    assert not await run.upload(run.names[0])
    run.network.heal()


async def orders_of_long_ago(run: Run) -> None:
    """The same, and memberships of before arrive once more, at the old primary and at its old replica."""
    old = _membership(run)
    await _moved_on(run)
    for name in run.names[:2]:
        await run.stores[name].handle(DIRECTORY, PutMembership(old))
    assert not await run.upload(run.names[0])
    run.network.heal()


async def late_delete(run: Run) -> None:
    """An order to delete a copy that did not count arrives when it counts again."""
    await asyncio.sleep(1.0)
    assert await run.upload(run.names[0])
    record = run.directory_disk.record
    await run.stores[run.names[1]].handle(DIRECTORY, DeleteCopy(record.epoch - 1))


async def push_repeated_amid_an_admission(run: Run) -> None:
    """A primary has promised to wait for a learner; then the membership that it knows is pushed once more."""
    first, second = run.names
    await asyncio.sleep(1.0)
    assert await run.upload(first)
    run.kill_store(second, machine=False)
    await led_by(run, first, 1)
    run.start_store(second)
    await until(lambda: bool((known := run.disks[first].members) and known.learners))
    run.network.hold(DIRECTORY)
    await asyncio.sleep(0.2)
    await run.stores[first].handle(DIRECTORY, PutMembership(_membership(run)))
    run.network.cut(first, second)
    waiting = asyncio.create_task(run.write(first, Write(Kind.DELETE, 1), "client"))
    await asyncio.sleep(0.3)
    run.network.heal()
    run.network.release(DIRECTORY)
    await waiting


async def end_lost_and_written_anew(run: Run) -> None:
    """A primary's machine crashes before its own sync, though its replica has the needle; it is back at once.

    What it writes then is another needle at the same offset.
    """
    first, _ = run.names
    await asyncio.sleep(1.0)
    assert await run.upload(first)
    with mock.patch.object(model_store, "SYNC_SECONDS", (5.0, 5.0)):
        waiting = asyncio.create_task(run.upload(first, "client"))
        await asyncio.sleep(0.5)
    log = run.disks[first].log
    assert log is not None and log.durable < log.tail
    log.truncate(log.durable)
    run.kill_store(first, machine=True)
    run.start_store(first)
    await run.upload(first, "client2")
    await waiting


async def _moved_on(run: Run) -> None:
    """Cut the first Store off from the Directory, and let the third one lead the second, without any write."""
    first, second, third = run.names
    await asyncio.sleep(1.0)
    assert await run.upload(first)
    await asyncio.sleep(1.5)
    run.network.cut(first, DIRECTORY)
    await led_by(run, second, 1)
    await led_by(run, second, 2)
    run.kill_store(second, machine=False)
    await led_by(run, third, 1)
    run.start_store(second)
    await led_by(run, third, 2)
    await asyncio.sleep(0.5)


def _membership(run: Run) -> Membership:
    record = run.directory_disk.record
    in_sync = tuple(member_of(store) for store in record.in_sync)
    return Membership(record.uuid, record.epoch, record.primary, record.promised, in_sync)


async def led_by(run: Run, store: str, copies: int) -> None:
    """Wait until the Directory has granted this."""
    await until(lambda: run.directory_disk.record.primary == store and len(run.directory_disk.record.in_sync) == copies)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_SECONDS):
        while not condition():  # noqa: ASYNC110 - of a world that has no events for this
            await asyncio.sleep(POLL_SECONDS)


SCRIPTS: dict[Script, Plan] = {
    deposed_and_back: TWO_STORES,
    primary_of_long_ago: THREE_STORES,
    orders_of_long_ago: THREE_STORES,
    late_delete: TWO_STORES,
    push_repeated_amid_an_admission: TWO_STORES,
    end_lost_and_written_anew: TWO_STORES,
}
"""Each with the plan that it is written for."""
