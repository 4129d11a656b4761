"""Small disks filled to the last byte, ten times over, with deletes and compactions in between.

``pytest tests/campaigns/test_fill.py -s`` (as root) prints a line for each time.
"""

from __future__ import annotations

import random
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "cluster"))

from campaign_disks import loop_disk, missing
from cluster_fill import Filling
from cluster_nodes import ClusterOptions, places, running_cluster
from test_cluster_fill import small_cluster

from haystack.units import MIB

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))
ROUNDS = 10
DISK_BYTES = 64 * MIB


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("replication", ["000", "010"])
async def test_a_small_tmpfs(tmp_path: Path, replication: str, pytestconfig: pytest.Config) -> None:
    print()
    with small_cluster(tmp_path, replication, DISK_BYTES) as (cluster, disks):
        filling = Filling(cluster, disks, random.Random(pytestconfig.getoption("--seed")))
        rounds = await filling.run(ROUNDS)
        print(dict(filling.counts))
    assert min(one.stored_bytes for one in rounds) > DISK_BYTES / 4


@pytest.mark.timeout(3600)
async def test_a_small_ext4(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    print()
    options = ClusterOptions(
        places("dc/A"),
        writable_volumes=2,
        directory_flags=("--max-volume-bytes", f"{DISK_BYTES // 10}", "--compact-garbage-share", "0"),
    )
    with ExitStack() as stack:
        (tmp_path / "disk").mkdir()
        disk = stack.enter_context(loop_disk(tmp_path / "disk", DISK_BYTES))
        (disk.mount_point / "data").mkdir()
        (tmp_path / "store1").symlink_to(disk.mount_point / "data")
        cluster = stack.enter_context(running_cluster(tmp_path, options))
        filling = Filling(cluster, [disk.mount_point / "data"], random.Random(pytestconfig.getoption("--seed")))
        rounds = await filling.run(ROUNDS)
        print(dict(filling.counts))
    assert min(one.stored_bytes for one in rounds) > DISK_BYTES / 5
