"""Small shared memories with photos whose bytes tell whose they are."""

from __future__ import annotations

from collections.abc import Iterable

from cache.memory import MemoryPlan, NewPhoto, PhotoMemory
from cache.memory.layout import GRANULE_BYTES, PINS_START, table_cells
from cache.policies.lru import SegmentedLru

COOKIE_FACTOR = 0x9E3779B97F4A7C15


def small_plan(arena_granules: int, max_entries: int = 2048, max_photo_bytes: int = 2**20) -> MemoryPlan:
    """A plan with so many granules for photos after the first block of entries was opened."""
    entry_bytes = 128 + 4 + 2
    return MemoryPlan(
        limit_bytes=2**30,
        workers=1,
        processes_bytes=0,
        table_bytes=table_cells(max_entries) * 8 + PINS_START,
        entry_bytes=entry_bytes,
        max_entries=max_entries,
        arena_granules=arena_granules,
        max_photo_bytes=max_photo_bytes,
        hot_records=16,
    )


def cookie_of(key: int) -> int:
    return key * COOKIE_FACTOR % 2**64


def content(key: int, version: int, size_bytes: int) -> bytes:
    """Bytes that no other photo and version has anywhere."""
    word = (key << 32 | version).to_bytes(8, "little")
    return (word * (size_bytes // 8 + 1))[:size_bytes]


def photo(
    key: int,
    version: int,
    size_bytes: int,
    *,
    volume: int = 1,
    alternate: int = 0,
    head: bytes = b"head",
    meta: bytes = b"m",
) -> NewPhoto:
    return NewPhoto(
        volume=volume,
        key=key,
        cookie=cookie_of(key),
        alternate=alternate,
        checksum=version,
        time_ms=1_700_000_000_000 + version,
        expires=0,
        stored_ms=1_700_000_100_000,
        verified_ns=5,
        head=head,
        meta=meta,
        data_bytes=size_bytes,
        flags=3,
    )


def keep(memory: PhotoMemory, new: NewPhoto) -> bool:
    """Put a photo in; False when there was no room or it was not kept."""
    filling = memory.begin(new)
    if filling is None:
        return False
    filling.write(content(new.key, new.checksum, new.data_bytes))
    return filling.finish()


class ListeningPolicy(SegmentedLru):
    """Keeps what it is told of hits, and heeds none."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[int] = []

    def hits(self, entries: Iterable[int]) -> None:
        self.heard.extend(entries)


class ManualClock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def settle(self, memory: PhotoMemory) -> None:
        """Let graces pass and reclaim, until nothing is left but what is in use."""
        for _ in range(3):
            self.now += 0.01
            memory.reclaim()


def used_bytes(memory: PhotoMemory) -> int:
    return memory.usage().arena_used_bytes // GRANULE_BYTES * GRANULE_BYTES
