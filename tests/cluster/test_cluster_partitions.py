"""Partitions between the processes of a cluster in network namespaces; all kinds of them are a campaign."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster_load import Rates
from cluster_networks import missing, networks
from cluster_nodes import Cluster, ClusterOptions, places
from cluster_partitions import part_and_heal, partitions

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

STORES = 3


@pytest.mark.timeout(180)
async def test_a_parted_cluster_has_one_primary_a_volume_and_heals(tmp_path: Path) -> None:
    options = ClusterOptions(places("dc1/A", "dc1/A", "dc1/A"), replication="001")
    with networks(1 + STORES) as net:
        cluster = Cluster(tmp_path, options.brisk(), hosts=net.hosts, prefix_of=net.prefix)
        try:
            cluster.start()
            kinds = partitions(STORES)[:2]
            await part_and_heal(cluster, net, kinds, rates=Rates(uploads=20, reads=100), seed=1, parted_seconds=2.5)
        except BaseException:
            print(cluster.says())
            raise
        finally:
            cluster.close()
