"""Small disks, filled to the last byte and used again; `tests/campaigns/test_fill.py` does so at length."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from cluster_fill import Filling
from cluster_nodes import Cluster, ClusterOptions, places, running_cluster

from haystack.units import MIB

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts small disks, which takes root")


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@contextmanager
def small_cluster(folder: Path, replication: str, disk_bytes: int) -> Iterator[tuple[Cluster, list[Path]]]:
    spots = places("dc/A", "dc/B")[: 1 + int(replication[1])]
    options = ClusterOptions(
        spots,
        replication=replication,
        writable_volumes=2,
        directory_flags=("--max-volume-bytes", f"{disk_bytes // 10}", "--compact-garbage-share", "0"),
        heartbeat_seconds=0.2,
    )
    with ExitStack() as stack:
        disks = [stack.enter_context(small_disk(folder / f"store{n}", disk_bytes)) for n in range(1, len(spots) + 1)]
        yield stack.enter_context(running_cluster(folder, options)), disks


async def test_a_full_disk_is_used_again_and_again(tmp_path: Path) -> None:
    with small_cluster(tmp_path, "000", 16 * MIB) as (cluster, disks):
        filling = Filling(cluster, disks, random.Random(1), sizes=(200_000, 40_000))
        rounds = await filling.run(2)
        assert rounds[0].stored_bytes > 8 * MIB
        assert rounds[1].stored_bytes > 4 * MIB, "what was won is used again"
        assert filling.counts["PUT answered 507"] or filling.counts["GET answered 503"]
