"""Volumes are moved: the Directory, the source or the target is killed at every step of it; and all under load."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "cluster"))

from cluster_moves import MOMENTS, filled, kill_at_each, move_options, move_under_load, pausing_cluster, under_load
from cluster_nodes import running_cluster

MOVES = 20


@pytest.mark.timeout(900)
@pytest.mark.parametrize("replication", ["000", "001"])
@pytest.mark.parametrize("victim", ["directory", "source", "target"])
async def test_somebody_dies_at_every_step_of_a_move(tmp_path: Path, victim: str, replication: str) -> None:
    with pausing_cluster(tmp_path / "cluster", move_options(replication)) as cluster:
        moved = await filled(cluster)
        await kill_at_each(moved, victim, MOMENTS)
        where = f"{len(MOMENTS)} steps of moves, replication {replication}"
        print(f"\n{victim} killed at {where}: the right copies each time")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("replication", ["000", "001"])
async def test_volumes_move_under_load(tmp_path: Path, replication: str) -> None:
    with running_cluster(tmp_path / "cluster", under_load(move_options(replication))) as cluster:
        recorder = await move_under_load(cluster, moves=MOVES)
        print(f"\n{MOVES} moves of volumes {replication} under load: {dict(recorder.counts)}")
