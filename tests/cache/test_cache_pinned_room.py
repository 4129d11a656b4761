"""What slow readers hold on to is not counted as room that comes back soon."""

from __future__ import annotations

from photo_memory import ManualClock, keep, photo, small_plan

from cache.memory import MemoryReader, PhotoMemory
from cache.policies import make_policy

PHOTO_BYTES = 50_000
PINNED = 10


def test_photos_find_room_although_as_much_is_pinned_as_is_kept_free() -> None:
    clock = ManualClock()
    memory = PhotoMemory(small_plan(4096), make_policy("lru"), clock)
    try:
        reader = MemoryReader(*memory.open_worker(0).fds)
        records = []
        for key in range(1, PINNED + 1):
            new = photo(key, 1, PHOTO_BYTES)
            assert keep(memory, new)
            record = reader.find(new.volume, key, new.cookie)
            assert record is not None
            record.pin()
            records.append(record)
            memory.drop(new.volume, key)
        reader.rest()
        clock.settle(memory)
        assert memory.waiting_bytes > PINNED * PHOTO_BYTES
        found_room = 0
        for key in range(100, 300):
            found_room += keep(memory, photo(key, 1, PHOTO_BYTES))
            clock.settle(memory)
        assert found_room > 80, "the reserve of so small a memory is less than one photo: every other one has to wait"
        for record in records:
            record.unpin()
        clock.settle(memory)
        assert memory.waiting_bytes < PINNED * PHOTO_BYTES
    finally:
        memory.close()
