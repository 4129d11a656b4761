"""The thread that writes: batches, errors, conflicts, order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
from memory_storage import MemoryStorage

from directory.errors import DirectoryBusy, StorageConflict
from directory.storage.committer import MAX_ATTEMPTS, MAX_BATCH, Committer
from directory.storage.interface import Draft, Put, Table
from haystack.errors import DiskError, InvalidRequest


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
async def committer(storage: MemoryStorage) -> AsyncIterator[Committer]:
    committer = Committer(storage)
    yield committer
    await committer.close()


def increment(draft: Draft) -> int:
    number: int = (draft.get(Table.META, b"n") or 0) + 1
    draft.put(Table.META, b"n", number)
    return number


async def test_decisions_see_each_other_and_results_come_in_their_order(
    storage: MemoryStorage, committer: Committer
) -> None:
    applied: list[int] = []
    results = await asyncio.gather(*(committer.run(increment, applied.append) for _ in range(300)))
    assert results == applied == list(range(1, 301))
    stored = storage.get(Table.META, b"n")
    assert stored is not None and stored.value == 300
    assert committer.waiting == 0


async def test_what_waits_is_committed_together(storage: MemoryStorage, committer: Committer) -> None:
    commits = 0
    gate = threading.Event()

    def count() -> None:
        nonlocal commits
        commits += 1
        gate.wait()

    storage.before_commit = count
    tasks = [asyncio.create_task(committer.run(increment)) for _ in range(1 + MAX_BATCH)]
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(*tasks)
    assert commits <= 3


async def test_one_that_raises_leaves_nothing_and_disturbs_nobody(storage: MemoryStorage, committer: Committer) -> None:
    def fail(draft: Draft) -> None:
        draft.put(Table.META, b"half", 1)
        draft.put(Table.META, b"n", 1000)
        raise InvalidRequest("no")

    results = await asyncio.gather(
        committer.run(increment), committer.run(fail), committer.run(increment), return_exceptions=True
    )
    assert results[0] == 1 and results[2] == 2
    assert isinstance(results[1], InvalidRequest)
    assert storage.get(Table.META, b"half") is None


async def test_a_conflict_makes_the_decision_run_again(storage: MemoryStorage, committer: Committer) -> None:
    interferences = 3

    def interfere() -> None:
        nonlocal interferences
        if interferences:
            interferences -= 1
            stored = storage.get(Table.META, b"n")
            before, storage.before_commit = storage.before_commit, lambda: None
            change = Put(Table.META, b"n", stored.version if stored else 0, (stored.value if stored else 0) + 100)
            storage.commit([change])
            storage.before_commit = before

    storage.before_commit = interfere
    assert await committer.run(increment) == 301


async def test_conflicts_for_ever_are_given_up(storage: MemoryStorage, committer: Committer) -> None:
    attempts = 0

    def refuse() -> None:
        nonlocal attempts
        attempts += 1
        raise StorageConflict("always")

    storage.before_commit = refuse
    with pytest.raises(StorageConflict):
        await committer.run(increment)
    assert attempts == MAX_ATTEMPTS
    storage.before_commit = lambda: None
    assert await committer.run(increment) == 1


async def test_a_failing_disk_reaches_everybody_who_waits(storage: MemoryStorage, committer: Committer) -> None:
    def fail() -> None:
        raise DiskError("gone")

    storage.before_commit = fail
    applied: list[int] = []
    results = await asyncio.gather(
        *(committer.run(increment, applied.append) for _ in range(5)), return_exceptions=True
    )
    assert all(isinstance(result, DiskError) for result in results)
    assert applied == []


async def test_memory_follows_even_when_nobody_waits_any_more(committer: Committer) -> None:
    applied: list[int] = []
    abandoned = asyncio.create_task(committer.run(increment, applied.append))
    await asyncio.sleep(0)
    abandoned.cancel()
    assert await committer.run(increment, applied.append) == 2
    assert applied == [1, 2]


async def test_an_apply_that_fails_is_the_waiters_matter(committer: Committer) -> None:
    def fail(number: int) -> None:
        raise RuntimeError(str(number))

    with pytest.raises(RuntimeError, match="1"):
        await committer.run(increment, fail)
    assert await committer.run(increment) == 2


async def test_closing_finishes_what_was_accepted_and_refuses_more(storage: MemoryStorage) -> None:
    committer = Committer(storage)
    tasks = [asyncio.create_task(committer.run(increment)) for _ in range(50)]
    await asyncio.sleep(0)
    await committer.close()
    assert await asyncio.gather(*tasks) == list(range(1, 51))
    with pytest.raises(DirectoryBusy):
        await committer.run(increment)


async def test_the_queue_has_an_end(
    storage: MemoryStorage, committer: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("directory.storage.committer.MAX_WAITING", 5)
    gate = threading.Event()
    storage.before_commit = lambda: gate.wait() and None
    tasks = [asyncio.create_task(committer.run(increment)) for _ in range(7)]
    await asyncio.sleep(0)
    gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results[:5] == [1, 2, 3, 4, 5]
    assert all(isinstance(result, DirectoryBusy) for result in results[5:])
