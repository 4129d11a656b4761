"""The Directory dies again and again in a storm, and loses its disk: no id twice, no photo unknown."""

from __future__ import annotations

from pathlib import Path

from cluster_nodes import ClusterOptions, places, running_cluster
from cluster_record import Fate
from cluster_storm import storm, verify_by_photo_id
from cluster_verify import full_strength, settled

KILLS = 5


async def test_directory_killed_in_a_storm_and_robbed_of_its_disk(tmp_path: Path) -> None:
    with running_cluster(tmp_path / "cluster", ClusterOptions(places("dc1/A", "dc1/A"))) as cluster:
        await full_strength(cluster, within_seconds=30)
        state = await storm(cluster, kills=KILLS, seed=1)
        recorder = state.recorder
        assert not recorder.wrong, recorder.wrong
        assert len(recorder.of_fate(Fate.STORED)) > 50, recorder.counts
        await settled(cluster, recorder, within_seconds=30)
        await verify_by_photo_id(cluster, recorder)

        cluster.directory.kill()
        cluster.wipe(cluster.directory)
        cluster.directory.start()
        await settled(cluster, recorder, within_seconds=30)
        await verify_by_photo_id(cluster, recorder)
        again = await storm(cluster, kills=1, seed=2)
        assert not again.recorder.wrong and not again.given_ids & state.given_ids
