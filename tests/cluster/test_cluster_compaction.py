"""Compaction in real clusters: no request fails meanwhile, and whoever is killed, nothing is lost."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from cluster_compaction import Kills, compact_under_load, has_compiler, kill_environ, options
from cluster_load import Rates
from cluster_nodes import running_cluster

QUICK = {"heartbeat_seconds": 0.2, "dead_after_seconds": 1.5, "repair_delay_seconds": 5.0}

CALLS = {
    "directory": "fdatasync directory.lmdb",
    "primary": "rename {volume}.vol.compact",
    "replica": "rename {volume}.members.new",
}


@pytest.mark.parametrize("replication", ["000", "001"])
async def test_no_request_fails_while_a_volume_is_compacted(tmp_path: Path, replication: str) -> None:
    with running_cluster(tmp_path, options(replication)) as cluster:
        found = await compact_under_load(cluster, Rates(uploads=40, reads=100, deletes=20), times=2, pause_seconds=1.0)
    assert not found.failures(), found.failures()[:5]
    assert found.size_bytes <= 1.01 * found.live_bytes, found.lines()
    assert len(found.pauses) >= 2 * (2 if replication == "001" else 1)


@pytest.mark.timeout(240)
async def test_whoever_is_killed_while_copies_are_compacted_nothing_is_lost(tmp_path: Path) -> None:
    environ = kill_environ(tmp_path) if has_compiler() else {}
    with running_cluster(tmp_path / "cluster", options("001", environ=environ, **QUICK)) as cluster:
        kills = Kills(cluster, random.Random(1))
        for role in ("directory", "primary", "replica"):
            await kills.at_random(role)
            if environ:
                await kills.at_call(role, CALLS[role], 1)
        await kills.finish()
