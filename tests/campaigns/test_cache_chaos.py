"""Three Stores, a Directory and a Cache: killed and frozen one after another under load.

``pytest tests/campaigns/test_cache_chaos.py -s --minutes 10`` prints each fault with what was seen of it, and the sums.
See docs/testing.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "cluster"))

from cluster_cache_chaos import CacheChaos
from cluster_nodes import ClusterOptions, places, running_cluster

READS_A_SECOND = 150.0


@pytest.mark.timeout(0)
async def test_cache_chaos(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    minutes: float = pytestconfig.getoption("--minutes")
    seed: int = pytestconfig.getoption("--seed")
    options = ClusterOptions(places("dc1/A", "dc1/B", "dc1/C"), replication="010", workers=1, caches=1)
    print(f"\n{minutes:g} minutes, seed {seed}", flush=True)
    with running_cluster(tmp_path / "cluster", options) as cluster:
        report = await CacheChaos(cluster, seed, READS_A_SECOND).run(minutes * 60)
        print("\n".join(report.lines()), flush=True)
        report.check()
