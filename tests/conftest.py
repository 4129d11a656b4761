"""How the suite is run in several processes: in which order, and no module compiled twice."""

from __future__ import annotations

import compileall
import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PACKAGES = ("haystack", "directory", "cache", "frontend", "tools")

WAITING_FILES = (
    "cluster/test_cluster_moves.py",
    "cluster/test_cluster_cache.py",
    "frontend/test_pages_browser.py",
    "cluster/test_cluster_fill.py",
    "frontend/test_frontend_cluster.py",
    "store/replication/test_replication_stores.py",
    "tools/test_transfer_cluster.py",
    "tools/test_compact_copies.py",
    "tools/test_space_travel.py",
    "tools/test_backup_real.py",
    "tools/test_replicated_cluster.py",
    "cluster/test_cluster_compaction.py",
    "cluster/test_cluster_partitions.py",
    "cluster/test_cluster_chaos.py",
    "cluster/test_cluster_auto_compaction.py",
    "cluster/test_cluster_storm.py",
    "cluster/test_cluster_flips.py",
    "cluster/test_cluster_wiped_disk.py",
    "cluster/test_cluster_heat.py",
    "directory/test_directory_replication.py",
    "directory/test_directory_healing.py",
    "directory/test_directory_moves.py",
    "directory/test_directory_leadership.py",
    "directory/test_directory_process.py",
    "cache/test_cache_ssd_node.py",
    "cache/test_cache_many_clients.py",
    "store/replication/test_replication_receiving.py",
    "store/replication/test_replication_compaction.py",
    "tools/test_trash_cluster.py",
    "tools/test_up.py",
    "tools/test_up_real.py",
)
"""Files that mostly wait for what other processes do: for their starts, and for Stores to be taken for dead."""

WORKING_FILES = (
    "store/test_store_follow.py",
    "store/test_store_supervisor.py",
    "volume/test_volume_compaction.py",
    "frontend/test_pages.py",
    "store/test_store_data_bounds.py",
    "store/test_store_data_failures.py",
    "directory/test_simulation.py",
    "frontend/test_intake_hostile.py",
    "store/test_store_data_model.py",
    "volume/test_volume_model.py",
    "frontend/test_database_search.py",
    "directory/test_directory_repair_plan.py",
    "replication/test_replication_model.py",
    "store/test_store_heat.py",
    "store/test_store_cold_reads.py",
    "frontend/test_database_lists.py",
    "frontend/test_frontend_access.py",
    "volume/test_volume_crashes.py",
    "frontend/test_frontend_api.py",
    "store/test_store_confirmations.py",
    "frontend/test_images_hostile.py",
    "volume/test_volume_index.py",
    "http/test_http_properties.py",
    "frontend/test_images_files.py",
    "http/test_http_fast_path.py",
    "store/test_store_data_parts.py",
)
"""Files that take a processor for long."""


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False  # pytest-xdist would begin with the files that have the most tests
    # aiohttp reads the certificates of all authorities that the system knows when it is imported, which takes each of
    # hundreds of processes a tenth of a second; nobody here talks to strangers.
    os.environ.setdefault("SSL_CERT_FILE", os.devnull)
    os.environ.setdefault("SSL_CERT_DIR", os.devnull)
    if sys.dont_write_bytecode and "PYTEST_XDIST_WORKER" not in os.environ:
        # The tests start hundreds of processes, each of which would compile all that it imports for itself.
        for package in PACKAGES:
            compileall.compile_dir(HERE.parent / package, quiet=2)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first, since a file is run by one process: others would wait for one that begins last.

    One that waits is followed by one that works, so that side by side they leave no processor idle.
    """
    both = [name for pair in zip(WAITING_FILES, WORKING_FILES, strict=False) for name in pair]
    rest = [*WAITING_FILES[len(WORKING_FILES) :], *WORKING_FILES[len(WAITING_FILES) :]]
    places = {HERE / name: place for place, name in enumerate([*both, *rest])}
    items.sort(key=lambda item: places.get(item.path, len(places)))
