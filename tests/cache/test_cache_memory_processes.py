"""The shared memory with real processes that read while the keeper evicts, deletes, overwrites and reuses."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from photo_memory import content, keep, photo, small_plan

from cache.memory import PhotoMemory
from cache.memory.runs_of import data_views
from cache.policies import make_policy

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
KEYS = 300
CHURN_SECONDS = 2.5


@pytest.fixture
def memory() -> Iterator[PhotoMemory]:
    memory = PhotoMemory(small_plan(6000), make_policy("lru"))
    yield memory
    memory.close()


def start_worker(memory: PhotoMemory, worker: int, mode: str = "read") -> subprocess.Popen[bytes]:
    fds = memory.open_worker(worker).fds
    command = [sys.executable, str(HERE / "memory_worker.py"), *map(str, fds), str(KEYS), str(worker), mode]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{HERE}"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, pass_fds=fds, stdin=pipe, stdout=pipe, env=environment)


def churn(memory: PhotoMemory, seconds: float, seed: int) -> int:
    """Keep, overwrite, delete and evict photos; returns how many were kept."""
    rng = random.Random(seed)
    end = time.monotonic() + seconds
    version = kept = 0
    while time.monotonic() < end:
        version += 1
        key = min(int(rng.paretovariate(0.5)), KEYS)
        size_bytes = rng.choice((100, 3000, 20_000, 150_000))
        filling = memory.begin(photo(key, version, size_bytes, meta=key.to_bytes(8, "little")))
        if filling is not None:
            filling.write(content(key, version, size_bytes))
            kept += filling.finish()
        if version % 7 == 0:
            memory.drop(1, min(int(rng.paretovariate(0.5)), KEYS))
        if version % 20 == 0:
            memory.take_hits()
            memory.reclaim()
    return kept


def test_readers_never_see_a_wrong_byte(memory: PhotoMemory) -> None:
    workers = [start_worker(memory, worker) for worker in range(2)]
    try:
        kept = churn(memory, CHURN_SECONDS, seed=5)
        reports = [json.loads(worker.communicate(b"\n", timeout=30)[0]) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert kept > 300
    for report in reports:
        assert report["wrong"] == []
        assert report["found"] > 1000
        assert report["pinned"] > 20
    assert sum(report["several_runs"] for report in reports) > 0
    for worker in range(2):
        memory.close_worker(worker)
    memory.drop_all()
    while memory.waiting_bytes:
        memory.reclaim()
    assert memory.usage().arena_used_bytes == 0


def test_a_killed_worker_holds_nothing(memory: PhotoMemory) -> None:
    keep_some(memory, 19)
    worker = start_worker(memory, 0, "hold")
    try:
        assert worker.stdout is not None
        assert int(worker.stdout.readline()) == 19
        memory.drop_all()
        wait_for_graces(memory)
        assert memory.usage().pinned_bytes >= 18 * 5000
    finally:
        worker.kill()
        worker.communicate()
    wait_for_graces(memory)
    assert memory.waiting_bytes >= 18 * 5000  # until the keeper knows that it is gone
    memory.close_worker(0)
    wait_for_graces(memory)
    assert memory.waiting_bytes == 0


def test_what_a_frozen_worker_has_pinned_stays_while_others_come_and_go(memory: PhotoMemory) -> None:
    keep_some(memory, 10)
    pinned = {kept.entry: [bytes(view) for view in memory.views(kept)] for kept in memory.entries()}
    worker = start_worker(memory, 0, "hold")
    try:
        assert worker.stdout is not None
        assert int(worker.stdout.readline()) == 10
        os.kill(worker.pid, signal.SIGSTOP)
        runs = {entry: memory.descriptors.fields(entry) for entry in pinned}
        memory.drop_all()
        assert churn(memory, 0.5, seed=1) > 20
        for entry, fields in runs.items():
            assert memory.descriptors.fields(entry)[1:] == fields[1:]
            assert [bytes(view) for view in data_views(memory.arena, fields)] == pinned[entry]
    finally:
        worker.kill()
        worker.communicate()


def keep_some(memory: PhotoMemory, count: int) -> None:
    for key in range(1, count + 1):
        assert keep(memory, photo(key, 1, 5000))


def wait_for_graces(memory: PhotoMemory) -> None:
    for _ in range(3):
        memory.reclaim()
        time.sleep(0.004)  # what is tested is that time alone does not free it
    memory.reclaim()
