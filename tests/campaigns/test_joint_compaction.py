"""Compaction in real clusters at length, of volumes with one copy and with two.

``pytest tests/campaigns/test_joint_compaction.py -s`` prints rates, pauses, what readers noticed, and what was killed.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "cluster"))

from cluster_compaction import Kills, compact_under_load, has_compiler, kill_environ, options
from cluster_light import run_light
from cluster_load import Rates
from cluster_nodes import running_cluster
from test_cluster_compaction import QUICK

RATES = Rates(uploads=200, reads=2000, deletes=50, read_timeout_seconds=5)
RANDOM_KILLS = 200
ROLES = ("primary", "replica", "directory")


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("replication", ["000", "001"])
def test_ten_compactions_under_load(tmp_path: Path, replication: str) -> None:
    with running_cluster(tmp_path, options(replication)) as cluster:
        found = run_light(compact_under_load(cluster, RATES, times=10, pause_seconds=4.0))
    print("\n" + "\n".join([f"replication {replication}", *found.lines()]))
    assert not found.failures(), found.failures()[:5]
    assert found.size_bytes <= 1.01 * found.live_bytes


@pytest.mark.timeout(2 * 3600)
async def test_killed_at_random_moments(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    with running_cluster(tmp_path, options("001", **QUICK)) as cluster:
        kills = Kills(cluster, random.Random(pytestconfig.getoption("--seed")))
        for number in range(RANDOM_KILLS):
            await kills.at_random(ROLES[number % len(ROLES)])
        await kills.finish()


@pytest.mark.timeout(2 * 3600)
@pytest.mark.skipif(not has_compiler(), reason="there is no C compiler")
@pytest.mark.parametrize(
    ("role", "loaded"),
    [("primary", True), ("primary", False), ("replica", True), ("replica", False), ("directory", False)],
    ids=lambda value: value if isinstance(value, str) else "loaded" if value else "quiet",
)
async def test_killed_before_every_system_call(
    tmp_path: Path, role: str, loaded: bool, pytestconfig: pytest.Config
) -> None:
    environ = kill_environ(tmp_path)
    with running_cluster(tmp_path / "cluster", options("001", environ=environ, **QUICK)) as cluster:
        kills = Kills(cluster, random.Random(pytestconfig.getoption("--seed")))
        calls = await kills.at_every_call(role, loaded=loaded)
        await kills.finish()
    print("\n".join([f"\n{role}: killed before each of {len(calls)} calls", *calls]))
    expected = ("fdatasync", "pwrite") if role == "directory" else ("rename", "unlink", "fdatasync", "fsync")
    assert all(any(call.startswith(kind) for call in calls) for kind in expected), calls
