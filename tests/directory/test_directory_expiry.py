"""Photos that have an end: kept with it, left out from then on, removed from the records at last."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from directory_fakes import FakeStore
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_storage import MemoryStorage

from directory.decisions.confirmations import apply_needles
from directory.messages import DELETED, STORED, Confirmation, Needle, parse_confirmation
from directory.service import MAX_DROPPED_EXPIRIES, Service
from directory.storage import transactions
from directory.storage.interface import Draft, Table
from directory.storage.tables import (
    PhotoRecord,
    Rendition,
    VolumeRecord,
    expiry_key,
    parse_expiry_key,
    photo_key,
    volume_key,
)
from haystack.errors import InvalidRequest

COOKIE = "00000000000000a7"
VOLUME = 3


def needle(key: int, expires: int = 0, *, alternate: int = 0, kind: int = STORED, size: int = 1) -> Needle:
    return Needle(key, alternate, key * 11 + 1, size, 5, 7, kind, expires)


def storage_with_volume() -> MemoryStorage:
    storage = MemoryStorage()
    transactions.prepare(storage)
    draft = Draft(storage)
    record = VolumeRecord(VOLUME, "u", "000", 1, "s1", ("s1",), "writable", 1, None)
    draft.put(Table.VOLUMES, volume_key(VOLUME), record.pack())
    storage.commit(draft.changes())
    return storage


def confirm(storage: MemoryStorage, begin: int, *needles: Needle) -> None:
    draft = Draft(storage)
    transactions.confirm(draft, Confirmation("s1", VOLUME, 0, begin, begin + 100, needles))
    storage.commit(draft.changes())


def photo(storage: MemoryStorage, key: int) -> PhotoRecord | None:
    stored = storage.get(Table.PHOTOS, photo_key(key))
    return PhotoRecord.unpack(stored.value) if stored else None


@asynccontextmanager
async def service_at(storage: MemoryStorage, clock: list[float]) -> AsyncIterator[Service]:
    service = Service(storage, dead_after_seconds=30.0, wall_clock=lambda: clock[0])
    try:
        yield service
    finally:
        await service.close()


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))
def test_keys_of_expiries_are_in_the_order_of_time(expires: int, photo_id: int) -> None:
    assert parse_expiry_key(expiry_key(expires, photo_id)) == (expires, photo_id)
    assert expiry_key(max(expires, 1) - 1, 2**64 - 1) <= expiry_key(max(expires, 1), photo_id)


def test_records_without_an_end_are_as_they_always_were() -> None:
    record = PhotoRecord(3, 4, {0: Rendition(1, 2, 3), 1: Rendition(1, 2, 3, 99)})
    assert record.pack() == [3, 4, {0: [1, 2, 3], 1: [1, 2, 3, 99]}]
    assert PhotoRecord.unpack(record.pack()) == record
    assert record.at(98.9) == record
    assert record.at(99) == PhotoRecord(3, 4, {0: Rendition(1, 2, 3)})
    assert PhotoRecord(3, 4, {1: Rendition(1, 2, 3, 99)}).at(99) is None


@pytest.mark.parametrize("end", [[], [0], [5], [2**32 - 1]])
def test_a_confirmed_needle_may_have_an_end(end: list[int]) -> None:
    assert parse_confirmation(_document(["1f", 0, COOKIE, 1, "5", 7, 0, *end])).needles[0].expires == sum(end)


@pytest.mark.parametrize("end", [[-1], [2**32], [1.5], ["5"], [None], [True], [5, 6]])
def test_an_end_that_is_none_is_refused(end: list[Any]) -> None:
    with pytest.raises(InvalidRequest, match="its end in seconds"):
        parse_confirmation(_document(["1f", 0, COOKIE, 1, "5", 7, 0, *end]))


def _document(row: list[Any]) -> dict[str, Any]:
    store_id = "00000000-0000-4000-8000-000000000000"
    return {"storeId": store_id, "volume": 3, "generation": 0, "from": 0, "to": 9, "needles": [row]}


async def test_expired_renditions_are_left_out_and_removed_at_last() -> None:
    storage, clock = storage_with_volume(), [50.0]
    confirm(storage, 0, needle(1, 100), needle(1, 200, alternate=1), needle(2, 100), needle(3), needle(4, 150))
    async with service_at(storage, clock) as service:
        assert await service.drop_expired() == 0
        assert all(service.photo(key) for key in (1, 2, 3, 4))
        clock[0] = 100.0
        known = service.photo(1)
        assert known is not None and set(known.renditions) == {1}
        assert service.photo(2) is None and photo(storage, 2) is not None
        assert await service.drop_expired() == 2
        kept = photo(storage, 1)
        assert kept is not None and set(kept.renditions) == {1} and photo(storage, 2) is None
        assert photo(storage, 3) and photo(storage, 4) and storage.count(Table.EXPIRIES) == 2
        clock[0] = 1e6
        assert await service.drop_expired() == 2
        assert await service.drop_expired() == 0
    assert storage.count(Table.EXPIRIES) == 0 and storage.count(Table.PHOTOS) == 1


async def test_a_photo_that_was_replaced_stays_for_its_own_time() -> None:
    storage, clock = storage_with_volume(), [100.0]
    confirm(storage, 0, needle(1, 100), needle(2, 100), needle(3, 100))
    confirm(storage, 100, needle(1, 200), needle(2), needle(3, kind=DELETED))
    async with service_at(storage, clock) as service:
        assert await service.drop_expired() == 3
        assert service.photo(1) and service.photo(2) and not service.photo(3)
        assert storage.count(Table.EXPIRIES) == 1


async def test_what_has_expired_waits_for_a_compaction_over_restarts() -> None:
    storage, clock = storage_with_volume(), [100.0]
    confirm(storage, 0, needle(1, 100, size=1000), needle(1, 500, alternate=1, size=7), needle(2, 150, size=20_000))
    async with service_at(storage, clock) as service:
        await service.drop_expired()
        assert service.cluster.expired_bytes == {VOLUME: 1000}
    clock[0] = 200.0
    async with service_at(storage, clock) as service:
        assert service.cluster.expired_bytes == {VOLUME: 1000}
        await service.drop_expired()
        assert service.cluster.expired_bytes == {VOLUME: 21_000}
        await service.forget_expired(VOLUME)
    async with service_at(storage, clock) as service:
        assert service.cluster.expired_bytes == {}
        await service.forget_expired(VOLUME)


async def test_many_expire_at_once_and_are_worked_off_in_parts() -> None:
    storage, clock = storage_with_volume(), [100.0]
    confirm(storage, 0, *(needle(key, 50) for key in range(1, MAX_DROPPED_EXPIRIES + 11)))
    async with service_at(storage, clock) as service:
        assert [await service.drop_expired() for _ in range(3)] == [MAX_DROPPED_EXPIRIES, 10, 0]
    assert storage.count(Table.PHOTOS) == storage.count(Table.EXPIRIES) == 0


NEEDLES = st.lists(
    st.builds(
        needle,
        st.integers(0, 3),
        st.sampled_from([0, 100, 101, 102, 103]),
        alternate=st.integers(0, 1),
        kind=st.sampled_from([STORED, STORED, DELETED]),
        size=st.integers(1, 9),
    ),
    max_size=20,
)


@given(NEEDLES, st.lists(st.integers(99, 104), max_size=4).map(sorted))
@settings(max_examples=60, deadline=None)
def test_removing_expired_renditions_changes_no_answer(needles: list[Needle], moments: list[int]) -> None:
    needles = [one if one.kind == STORED else needle(one.key, kind=DELETED, alternate=one.alternate) for one in needles]
    storage = storage_with_volume()
    confirm(storage, 0, *needles)
    everything = apply_needles(VOLUME, needles, lambda _: None).photos
    for now in (*moments, 104):
        draft = Draft(storage)
        due = [key for key, _ in storage.scan(Table.EXPIRIES, limit=100) if parse_expiry_key(key)[0] <= now]
        transactions.drop_expired(draft, due, now)
        storage.commit(draft.changes())
        for key, record in everything.items():
            assert photo(storage, key) == (record.at(now) if record else None)
    assert storage.count(Table.EXPIRIES) == 0


async def test_an_expired_photo_is_not_named(directory: Any, store: FakeStore) -> None:
    await directory.with_store(store)
    now = int(time.time())
    ends = {"1f": now - 1, "20": now + 3600, "21": 0}
    needles = [[key, 0, COOKIE, 1, "5", 7, 0, *([end] if end else [])] for key, end in ends.items()]
    assert (await store.confirm(directory.base, 3, 0, 5000, needles))[0] == 200
    status, answer = await directory.call("/photos/1f")
    assert status == 404 and "has expired" in answer["error"]
    assert (await directory.call("/photos/20"))[1]["renditions"][0]["expires"] == now + 3600
    assert "expires" not in (await directory.call("/photos/21"))[1]["renditions"][0]


async def test_assign_hands_a_ttl_back(directory: Any, store: FakeStore) -> None:
    await directory.with_store(store)
    for query in ("ttl=3m", "ttl=3m&count=2", "ttl=3m&photos=2"):
        status, answer = await directory.call(f"/dir/assign?{query}")
        assert (status, answer["ttl"]) == (200, "3m")
    assert "ttl" not in (await directory.call("/dir/assign?ttl="))[1]
    for wrong in ("soon", "200y"):
        status, answer = await directory.call(f"/dir/assign?ttl={wrong}")
        assert status == 400 and "ttl" in answer["error"]
