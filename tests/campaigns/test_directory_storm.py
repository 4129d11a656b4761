"""The Directory is killed a hundred times in a storm of assigns and uploads, then robbed of its disk."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "cluster"))

from cluster_nodes import ClusterOptions, places, running_cluster
from cluster_storm import storm, verify_by_photo_id
from cluster_verify import full_strength, settled

KILLS = 100


@pytest.mark.timeout(1800)
async def test_hundred_deaths_of_the_directory(tmp_path: Path) -> None:
    options = ClusterOptions(places("dc1/A", "dc1/A", "dc1/A"), replication="001")
    with running_cluster(tmp_path / "cluster", options) as cluster:
        await full_strength(cluster, within_seconds=60)
        state = await storm(cluster, kills=KILLS, seed=1)
        recorder = state.recorder
        assert not recorder.wrong, recorder.wrong
        await full_strength(cluster, within_seconds=60)
        await settled(cluster, recorder, within_seconds=60)
        await verify_by_photo_id(cluster, recorder)
        told = f"{len(state.given_ids):,} names given, {len(recorder.photos):,} photos stored"
        print(f"\n{state.kills} deaths, {told}: no id was given twice, every photo is known by its id")
        cluster.directory.kill()
        cluster.wipe(cluster.directory)
        started = time.monotonic()
        cluster.directory.start()
        await full_strength(cluster, within_seconds=60)
        await settled(cluster, recorder, within_seconds=60)
        await verify_by_photo_id(cluster, recorder)
        print(f"disk of the Directory lost: every photo known again after {time.monotonic() - started:.1f} s")
