"""Photo ids: never twice, whatever restarts, reports or neighbours there are."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_storage import MemoryStorage

from directory.assigning.ids import (
    BLOCK_IDS,
    LOSS_MARGIN,
    MAX_ID,
    MAX_JUMP,
    Block,
    IdAllocator,
    IdSequence,
    first_at_or_above,
    reserve_block,
)
from directory.errors import NothingWritable
from directory.storage.committer import Committer
from directory.storage.interface import Draft, Put, Table
from directory.storage.tables import ids_key
from haystack.errors import DiskError

PEERS = st.integers(1, 5).flatmap(lambda count: st.tuples(st.integers(0, count - 1), st.just(count)))


def reserve(storage: MemoryStorage, index: int, count: int, floor: int = 0, block_ids: int = 3) -> Block:
    draft = Draft(storage)
    block = reserve_block(draft, index, count, floor, block_ids)
    storage.commit(draft.changes())
    return block


@given(st.integers(-5, 10**6), PEERS)
def test_the_next_of_a_rest_class(number: int, peers: tuple[int, int]) -> None:
    index, count = peers
    found = first_at_or_above(number, index, count)
    assert found >= max(number, 1) and found % count == index
    assert found - count < max(number, 1)


@given(
    st.integers(1, 4),
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.one_of(st.just("take"), st.just("restart"), st.tuples(st.just("raise"), st.integers(0, 500))),
        ),
        max_size=150,
    ),
)
def test_no_id_twice_among_directories_that_restart_and_hear_of_foreign_keys(count: int, steps: list) -> None:  # type: ignore[type-arg]  # mixed steps
    storage = MemoryStorage()
    sequences = [IdSequence(index, count) for index in range(count)]
    taken: set[int] = set()
    floors = [0] * count
    for who, step in steps:
        index = who % count
        if step == "restart":  # all that was in memory is lost, only the reservation is left
            stored = storage.get(Table.META, ids_key(index, count))
            sequences[index] = IdSequence(index, count, stored.value if stored else 0)
            floors[index] = 0
        elif step == "take":
            taken_id = sequences[index].take()
            if taken_id is None:
                sequences[index].add(reserve(storage, index, count, sequences[index].next_id))
                taken_id = sequences[index].take()
            assert taken_id is not None and taken_id not in taken
            assert taken_id % count == index and taken_id > floors[index] and taken_id > 0
            taken.add(taken_id)
        else:
            sequences[index].raise_above(step[1])
            floors[index] = max(floors[index], step[1])


@given(PEERS, st.lists(st.integers(0, 60), max_size=5))
def test_remaining_counts_what_can_be_taken(peers: tuple[int, int], raises: list[int]) -> None:
    index, count = peers
    storage = MemoryStorage()
    sequence = IdSequence(index, count)
    for _ in range(2):
        sequence.add(reserve(storage, index, count))
    for key in raises:
        sequence.raise_above(key)
        remaining = sequence.remaining
        taken = sequence.take()
        assert (taken is None) == (remaining == 0)
        assert sequence.remaining == max(0, remaining - 1)


def test_blocks_that_overlap_are_a_mistake() -> None:
    sequence = IdSequence(0, 1)
    sequence.add(Block(1, 10))
    with pytest.raises(ValueError, match="below the reserved end"):
        sequence.add(Block(5, 15))


def test_the_numbers_end_with_an_error() -> None:
    storage = MemoryStorage()
    with pytest.raises(NothingWritable, match="used up"):
        reserve(storage, 0, 1, floor=MAX_ID - 1)


async def test_taking_reserves_in_blocks_ahead() -> None:
    storage = MemoryStorage()
    committer = Committer(storage)
    ids = IdAllocator(storage, committer)
    taken = [await ids.take() for _ in range(BLOCK_IDS + 10)]
    assert taken == list(range(1, BLOCK_IDS + 11))
    await ids.close()
    await committer.close()
    stored = storage.get(Table.META, ids_key(0, 1))
    assert stored is not None and stored.value > taken[-1]
    committer = Committer(storage)
    assert await IdAllocator(storage, committer).take() >= stored.value
    await committer.close()


async def test_concurrent_takes_share_one_reservation() -> None:
    storage = MemoryStorage()
    committer = Committer(storage)
    ids = IdAllocator(storage, committer, index=1, count=3)
    taken = await asyncio.gather(*(ids.take() for _ in range(100)))
    assert sorted(taken) == [1 + 3 * n for n in range(100)]
    await ids.close()
    await committer.close()


async def test_another_number_of_directories_begins_above_all_that_was_reserved() -> None:
    storage = MemoryStorage()
    storage.commit([Put(Table.META, ids_key(0, 1), 0, 5000), Put(Table.META, ids_key(1, 2), 0, 20_001)])
    committer = Committer(storage)
    assert await IdAllocator(storage, committer, index=2, count=3).take() == first_at_or_above(20_001, 2, 3)
    await committer.close()


async def test_a_reported_key_moves_the_sequence() -> None:
    storage = MemoryStorage()
    committer = Committer(storage)
    ids = IdAllocator(storage, committer)
    first = await ids.take()
    ids.raise_above_reported(first + 100)  # within the block: one of ours, or a client's
    assert await ids.take() == first + 101
    ids.raise_above([5, first + 200, 7, 2**63])
    assert await ids.take() == first + 201
    ids.raise_above_reported(10**9)  # never reserved: we lost our disk, and others may have higher ones
    assert await ids.take() == 10**9 + LOSS_MARGIN + 1
    before = ids.next_id
    ids.raise_above_reported(before + MAX_JUMP + 1)  # no id of ours gets there
    assert await ids.take() == before
    await ids.close()
    await committer.close()


async def test_with_several_directories_a_foreign_key_is_ordinary() -> None:
    storage = MemoryStorage()
    committer = Committer(storage)
    ids = IdAllocator(storage, committer, index=0, count=2)
    ids.raise_above_reported(1_000_001)
    assert await ids.take() == 1_000_002
    await ids.close()
    await committer.close()


async def test_an_empty_volume_moves_nothing() -> None:
    storage = MemoryStorage()
    committer = Committer(storage)
    ids = IdAllocator(storage, committer)
    ids.raise_above_reported(0)
    assert await ids.take() == 1
    await ids.close()
    await committer.close()


async def test_when_nothing_can_be_reserved_nothing_is_handed_out(caplog: pytest.LogCaptureFixture) -> None:
    storage = MemoryStorage()

    def fail() -> None:
        raise DiskError("gone")

    storage.before_commit = fail
    committer = Committer(storage)
    ids = IdAllocator(storage, committer)
    with pytest.raises(DiskError):
        await ids.take()
    assert ids.take_now() is None
    storage.before_commit = lambda: None
    assert await ids.take() == 1
    await ids.close()
    await committer.close()
    assert "cannot reserve photo ids: gone" in caplog.text
