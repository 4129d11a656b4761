"""Compaction at length: ten times under a steady load, and killed at any moment.

``pytest tests/campaigns/test_compaction.py -s`` prints what was done and the longest pause.
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "store"))

from compaction_load import Load, compact, order
from supervisor_harness import FakeDirectory, StoreProcess, fid, until

from haystack.volume import Volume
from haystack.volume.layout import SUPERBLOCK_BYTES

UPLOADS, DELETES, READS = 200.0, 50.0, 2000.0
KILLS = 200


def _files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.startswith("1.")} - {"1.dirty"}


@pytest.mark.timeout(1800)
async def test_a_volume_is_compacted_ten_times_under_load(tmp_path: Path) -> None:
    async with FakeDirectory() as directory, StoreProcess(tmp_path, workers=2, directories=[directory.url]) as store:
        await store.make_volume(1)
        load = Load(store, 1)
        await load.fill(2000)
        running = asyncio.create_task(load.run(putters=8, deleters=4, readers=16, rates=(UPLOADS, DELETES, READS)))
        pauses = []
        for generation in range(1, 11):
            await asyncio.sleep(5)
            done = await compact(store, 1)
            assert (done["state"], done.get("generation")) == ("done", generation), done
            pauses.append(done["pauseSeconds"] * 1000)
        load.stopped = True
        await running
        print(f"\n{load.counts}; longest pause {max(pauses):.1f} ms of {[round(pause, 1) for pause in pauses]}")
        assert not load.failures, load.failures[:5]
        done = await compact(store, 1)
        await load.require_all()
        document = await store.until_volume(1, generation=11, liveCount=len(load.live))
        assert document["sizeBytes"] == SUPERBLOCK_BYTES + document["liveBytes"]
        live = {fid(1, key) for key in load.live}
        await until(lambda: {f"1,{key}{cookie}" for (key, _), (_, _, cookie) in directory.photos.items()} == live)
        assert max(pauses) < 50, pauses


@pytest.mark.timeout(3600)
async def test_a_store_is_killed_at_any_moment_of_a_compaction(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    rng = random.Random(pytestconfig.getoption("--seed"))
    load: Load | None = None
    generations = set()
    for kill in range(KILLS):
        async with StoreProcess(tmp_path, workers=2) as store:
            if load is None:
                await store.make_volume(1)
                load = Load(store, 1)
                await load.fill(300)
            load.store, load.stopped = store, False
            generation = (await store.volume(1))["generation"]
            generations.add(generation)
            index = f"1.{generation}.idx" if generation else "1.idx"
            assert _files(tmp_path) == {"1.vol", index, f"{index}-lock"}
            if kill % 10 == 0:
                await load.require_all()
            running = asyncio.create_task(load.run(deleters=1, putters=2, readers=1))
            rate = rng.choice([0, 500_000, 2_000_000, 10_000_000])
            await store.admin("POST", "/admin/volumes/1/compact", order(bytesPerSecond=rate), expect=202)
            await asyncio.sleep(rng.random() * rng.choice([0.02, 0.1, 0.6]))
            load.stopped = True
            await running
            assert not load.failures, load.failures[:3]
            await store.kill()
    assert load is not None
    with Volume.open(tmp_path / "1.vol") as volume:
        assert volume.state().live_count == len(load.live)
        assert _files(tmp_path) == {"1.vol", volume.index.path.name, f"{volume.index.path.name}-lock"}
    assert len(generations) > KILLS // 20, "hardly any compaction came to its end"
