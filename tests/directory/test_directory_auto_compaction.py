"""Compaction by itself: who is asked, when, what is begun, and what is said of it. Without Stores or sockets."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

import pytest

from directory.compaction.automatic import ANSWER_SECONDS, FAILED_REST_SECONDS, REST_SECONDS, AutoCompaction
from directory.compaction.compactor import Planned
from directory.decisions.compaction import CompactionRules
from directory.messages import StoreDocument
from haystack.errors import VolumeUnavailable
from haystack.units import MIB

STORE = cast(StoreDocument, object())
SIZE_BYTES = 100 * MIB


class World:
    """Stands in for the Directory's other parts."""

    def __init__(self) -> None:
        self.now_seconds = 0.0
        self.planned: dict[int, Planned] = {}
        self.winnable: dict[int, int] = {}
        self.asked: list[int] = []
        self.started: list[int] = []
        self.running: set[int] = set()
        self.failed: set[int] = set()
        self.taking = False
        self.is_settled = True
        self.cluster = self
        self.records = self.planned

    def garbage(self, volume: int, garbage_bytes: int, *, winnable: int | None = None, **more: Any) -> None:
        fields: dict[str, Any] = {"generation": 0, "needed_bytes": 0, "free_bytes": 0, "size_bytes": SIZE_BYTES} | more
        self.planned[volume] = Planned(volume=volume, store=STORE, gain_bytes=garbage_bytes, **fields)
        self.winnable[volume] = garbage_bytes if winnable is None else winnable

    # of the service and its cluster

    def clock(self) -> float:
        return self.now_seconds

    def settled(self, now_seconds: float) -> bool:
        return self.is_settled

    # of the Compactor

    @property
    def under_way(self) -> int:
        return len(self.running)

    def plan(self, volumes: Collection[int] | None) -> list[Planned]:
        return list(self.planned.values())

    def start(self, planned: Collection[Planned], *, now: bool) -> None:
        assert not now
        self.started += [one.volume for one in planned]
        self.running |= {one.volume for one in planned}

    def is_at(self, volume: int) -> bool:
        return volume in self.running

    def has_failed(self, volume: int) -> bool:
        return volume in self.failed

    # of the client

    async def winnable_bytes(self, store: StoreDocument, volume: int) -> int:
        self.asked.append(volume)
        if self.winnable[volume] < 0:
            raise VolumeUnavailable("busy")
        return self.winnable[volume]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def auto(world: World) -> AutoCompaction:
    part = cast(Any, world)
    return AutoCompaction(part, part, part, part, CompactionRules(0.3))


async def test_one_volume_at_a_time_the_best_first(world: World, auto: AutoCompaction) -> None:
    world.garbage(1, 40 * MIB)
    world.garbage(2, 80 * MIB)
    world.garbage(3, 10 * MIB)
    await auto.look()
    assert sorted(world.asked) == [1, 2] and world.started == [2]
    assert "1 volume is being compacted" in auto.status and "volume 1 (others are compacted first)" in auto.status
    await auto.look()
    assert world.started == [2] and sorted(world.asked) == [1, 2], "an answer holds"
    world.running.clear()
    world.garbage(2, 0, generation=1)
    await auto.look()
    assert world.started == [2, 1]


async def test_the_trash_is_not_compacted_again_and_again(world: World, auto: AutoCompaction) -> None:
    world.garbage(1, 60 * MIB, winnable=0)
    for _ in range(3):
        await auto.look()
    assert world.asked == [1] and not world.started and auto.status == ""
    assert auto.in_words() == "volumes are compacted by themselves as soon as 30% of them can be won"
    world.garbage(1, 70 * MIB, winnable=40 * MIB)
    await auto.look()
    assert world.asked == [1, 1] and world.started == [1]


async def test_each_volume_has_an_outlook(world: World, auto: AutoCompaction) -> None:
    world.garbage(1, 40 * MIB)
    world.garbage(2, 60 * MIB, winnable=MIB)
    world.garbage(3, 0)
    before = {one["volume"]: one["when"] for one in auto.outlooks()}
    assert before[1] == before[2] == "as soon as its Store has said what it would win"
    await auto.look()
    after = {one["volume"]: one for one in auto.outlooks()}
    assert after[1] == {"volume": 1, "copies": 1, "gainBytes": 40 * MIB, "when": "being compacted"}
    assert after[2]["gainBytes"] == MIB and "59.0 MiB are in the trash" in after[2]["when"]
    assert after[3]["when"] == "when 30% can be won, now 0%"


async def test_an_answer_gets_old(world: World, auto: AutoCompaction) -> None:
    world.garbage(1, 60 * MIB, winnable=-1)
    await auto.look()
    world.garbage(1, 60 * MIB)
    await auto.look()
    assert world.asked == [1] and not world.started
    world.now_seconds = ANSWER_SECONDS
    await auto.look()
    assert world.started == [1]


@pytest.mark.parametrize(("failed", "rest_seconds"), [(False, REST_SECONDS), (True, FAILED_REST_SECONDS)])
async def test_a_volume_rests(world: World, auto: AutoCompaction, failed: bool, rest_seconds: float) -> None:
    world.garbage(1, 60 * MIB)
    await auto.look()
    world.running.clear()
    world.failed = {1} if failed else set()
    world.now_seconds = rest_seconds - 1
    await auto.look()
    await auto.look()
    assert world.started == [1] and "lately" in auto.status
    world.now_seconds = rest_seconds
    await auto.look()
    assert world.started == [1, 1]


async def test_nothing_begins_while_a_snapshot_is_taken_or_stores_are_awaited(
    world: World, auto: AutoCompaction
) -> None:
    world.garbage(1, 60 * MIB)
    world.taking = True
    await auto.look()
    world.taking, world.is_settled = False, False
    await auto.look()
    assert not world.asked and not world.started
    world.is_settled = True
    world.garbage(1, 60 * MIB, obstacle="not all its copies are in sync")
    await auto.look()
    assert not world.started and "not all its copies" in auto.status
