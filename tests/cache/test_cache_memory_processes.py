"""The shared memory with real processes that read while the keeper evicts, deletes, overwrites and reuses."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator

import pytest
from memory_load import churn, reading
from photo_memory import keep, photo, small_plan

from cache.memory import PhotoMemory
from cache.memory.runs_of import data_views
from cache.policies import make_policy

CHURN_SECONDS = 2.0


@pytest.fixture
def memory() -> Iterator[PhotoMemory]:
    memory = PhotoMemory(small_plan(6000), make_policy("lru"))
    yield memory
    memory.close()


def test_readers_never_see_a_wrong_byte(memory: PhotoMemory) -> None:
    with reading(memory, 0) as one, reading(memory, 1) as other:
        kept, end = 0, time.monotonic() + CHURN_SECONDS
        while kept < 300 or time.monotonic() < end:  # a loaded machine takes longer
            kept += churn(memory, 0.5, 5 + kept)
        reports = [json.loads(worker.communicate(b"\n", timeout=30)[0]) for worker in (one, other)]
    for report in reports:
        assert report["wrong"] == []
        assert report["found"] > 100
        assert report["pinned"] > 0
    for worker in range(2):
        memory.close_worker(worker)
    memory.drop_all()
    while memory.waiting_bytes:
        memory.reclaim()
    assert memory.usage().arena_used_bytes == 0


def test_a_killed_worker_holds_nothing(memory: PhotoMemory) -> None:
    keep_some(memory, 19)
    with reading(memory, 0, "hold") as worker:
        assert worker.stdout is not None
        assert int(worker.stdout.readline()) == 19
        memory.drop_all()
        wait_for_graces(memory)
        assert memory.usage().pinned_bytes >= 18 * 5000
    wait_for_graces(memory)
    assert memory.waiting_bytes >= 18 * 5000  # until the keeper knows that it is gone
    memory.close_worker(0)
    wait_for_graces(memory)
    assert memory.waiting_bytes == 0


def test_what_a_frozen_worker_has_pinned_stays_while_others_come_and_go(memory: PhotoMemory) -> None:
    keep_some(memory, 10)
    pinned = {kept.entry: [bytes(view) for view in memory.views(kept)] for kept in memory.entries()}
    with reading(memory, 0, "hold") as worker:
        assert worker.stdout is not None
        assert int(worker.stdout.readline()) == 10
        os.kill(worker.pid, signal.SIGSTOP)
        runs = {entry: memory.descriptors.fields(entry) for entry in pinned}
        memory.drop_all()
        assert churn(memory, 0.5, 1) > 20
        for entry, fields in runs.items():
            assert memory.descriptors.fields(entry)[1:] == fields[1:]
            assert [bytes(view) for view in data_views(memory.arena, fields)] == pinned[entry]


def keep_some(memory: PhotoMemory, count: int) -> None:
    for key in range(1, count + 1):
        assert keep(memory, photo(key, 1, 5000))


def wait_for_graces(memory: PhotoMemory) -> None:
    for _ in range(3):
        memory.reclaim()
        time.sleep(0.004)  # what is tested is that time alone does not free it
    memory.reclaim()
