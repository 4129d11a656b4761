"""Five Stores in two data centers and three racks: killed, frozen and restarted one after another under load.

``pytest tests/campaigns/test_chaos.py -s --minutes 10`` prints each fault with what clients saw of it, and the sums.
50 uploads and 1,000 reads a second go on all the time; every answer is compared. See docs/testing.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "cluster"))

from cluster_chaos import chaos
from cluster_load import Rates
from cluster_nodes import ClusterOptions, Place, places, running_cluster

CLUSTERS = {
    "011": places("dc1/A", "dc1/A", "dc1/B", "dc1/B", "dc2/C"),
    "100": places("dc1/A", "dc1/A", "dc1/B", "dc2/C", "dc2/C"),
}


@pytest.mark.timeout(0)
@pytest.mark.parametrize(("replication", "where"), CLUSTERS.items(), ids=CLUSTERS)
async def test_chaos(tmp_path: Path, pytestconfig: pytest.Config, replication: str, where: list[Place]) -> None:
    minutes: float = pytestconfig.getoption("--minutes")
    seed: int = pytestconfig.getoption("--seed")
    rates = Rates(uploads=pytestconfig.getoption("--uploads"), reads=pytestconfig.getoption("--reads"))
    options = ClusterOptions(where, replication=replication, workers=1)
    print(f"\nreplication {replication}, {minutes:g} minutes, seed {seed}", flush=True)
    with running_cluster(tmp_path / "cluster", options) as cluster:
        report = await chaos(cluster, seconds=minutes * 60, seed=seed, rates=rates)
        print("\n".join(report.lines()), flush=True)
        report.check()
