"""A replicated cluster under load while Stores are killed, frozen and restarted; the long version is a campaign."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster_chaos import Fault, chaos
from cluster_load import Rates
from cluster_nodes import ClusterOptions, places, running_cluster

RATES = Rates(uploads=20, reads=150)


@pytest.mark.timeout(180)
async def test_stores_fail_one_after_another_and_nothing_is_lost(tmp_path: Path) -> None:
    options = ClusterOptions(places("dc1/A", "dc1/A", "dc1/A"), replication="001", workers=2)
    with running_cluster(tmp_path / "cluster", options.brisk()) as cluster:
        report = await chaos(cluster, seconds=60, seed=3, rates=RATES, away_seconds=(2.0, 2.5), most_faults=len(Fault))
        report.check()
        assert report.compared > 100 and report.volumes >= 3, report.lines()
