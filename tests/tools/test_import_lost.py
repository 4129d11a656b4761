"""A volume that its Store has lost comes back as a file."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from transfer_cluster import RealCluster

from haystack.client import SyncHaystackClient
from haystack.errors import HaystackError
from haystack.volume import Volume

WAIT_SECONDS = 60.0


def _until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_volume_that_its_store_has_lost_may_be_imported_again(tmp_path: Path) -> None:
    file = tmp_path / "4000.vol"
    with Volume.create(file, 4000) as made:
        for key in range(1, 20):
            made.put(key, 7, b"photo" * 100 * key)
    cluster = RealCluster(tmp_path)
    try:
        with SyncHaystackClient(cluster.directory.ready.url) as client:

            def is_there() -> bool:
                try:
                    return client.read(f"4000,5{7:016x}") == b"photo" * 500
                except HaystackError:
                    return False

            def alive() -> bool:
                return bool(client.cluster_status()["Counts"]["storesAlive"])

            _until(alive)
            cluster.run("volume", "import", file, "--apply")
            _until(is_there)
            assert b"knows this volume 4000 already" in cluster.run("volume", "import", file, code=1).stderr
            cluster.store.kill()
            _until(lambda: not alive())
            assert b"which is away and may have it" in cluster.run("volume", "import", file, code=1).stderr
            (tmp_path / "store" / "4000.vol").unlink()
            cluster.store.start_again()
            _until(alive)
            assert not is_there()
            cluster.run("volume", "import", file, "--apply")
            _until(is_there)
    finally:
        cluster.stop()
