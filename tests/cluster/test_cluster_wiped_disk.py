"""A Store loses its disk and comes back empty: the cluster is at full strength again without anyone's help."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from cluster_http import HttpClient
from cluster_load import Load, Rates
from cluster_nodes import ClusterOptions, places, running_cluster
from cluster_record import Recorder
from cluster_verify import directory_document, full_strength, settled, verify_files, verify_photos

PHOTOS = 150


@pytest.mark.timeout(180)
async def test_a_wiped_disk_is_filled_again(tmp_path: Path) -> None:
    options = ClusterOptions(places("dc1/A", "dc1/A", "dc1/A"), replication="001", repair_delay_seconds=1.0)
    with running_cluster(tmp_path / "cluster", options.brisk()) as cluster:
        await full_strength(cluster, within_seconds=60)
        recorder = Recorder()
        load = Load(cluster.directory.address, recorder, Rates(), seed=5)
        for _ in range(PHOTOS):
            await load.upload()
        for _ in range(PHOTOS // 10):
            await load.delete_one()
        await load.stop()
        assert len(recorder.photos) == PHOTOS, recorder.counts

        victim = cluster.stores[1]
        async with HttpClient() as http:
            status = await directory_document(http, cluster)
        gone = next(store["storeId"] for store in status["Stores"] if store["url"] == victim.address)
        victim.kill()
        cluster.wipe(victim)
        started = time.monotonic()
        victim.start()
        await full_strength(cluster, within_seconds=90, gone=gone)
        seconds = time.monotonic() - started
        copied_bytes = sum(path.stat().st_size for path in cluster.data_of(victim).rglob("*.vol"))
        print(f"disk of one Store wiped: full strength after {seconds:.1f} s, {copied_bytes:,} bytes on the new disk")
        await settled(cluster, recorder, within_seconds=30)
        assert await verify_photos(cluster, recorder) >= 2 * PHOTOS
        await verify_files(cluster)
