"""All kinds of partitions, one after another, of a cluster of five Stores in network namespaces. For root."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "cluster"))

from cluster_load import Rates
from cluster_networks import missing, networks
from cluster_nodes import Cluster, ClusterOptions, places
from cluster_partitions import part_and_heal, partitions

pytestmark = [pytest.mark.skipif(missing() is not None, reason=str(missing())), pytest.mark.timeout(1800)]

STORES = 5


@pytest.mark.parametrize("replication", ["002", "100"])
async def test_all_partitions(tmp_path: Path, replication: str) -> None:
    where = {"002": ["dc1/A"] * 5, "100": ["dc1/A", "dc1/A", "dc1/B", "dc2/C", "dc2/C"]}[replication]
    options = ClusterOptions(places(*where), replication=replication)
    with networks(1 + STORES, subnet=1) as net:
        cluster = Cluster(tmp_path, options, hosts=net.hosts, prefix_of=net.prefix)
        try:
            cluster.start()
            rates = Rates(uploads=20, reads=100)
            report = await part_and_heal(cluster, net, partitions(STORES), rates=rates, seed=2)
            print("\n".join(report.lines()))
        except BaseException:
            print(cluster.says())
            raise
        finally:
            cluster.close()
