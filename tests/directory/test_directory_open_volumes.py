"""Volumes that are nearly full do not keep new ones from being made."""

from __future__ import annotations

from directory.cluster.cluster import Cluster
from directory.decisions.growth import MAX_OPEN_FACTOR, volumes_wanted
from directory.decisions.replication import parse_replication
from directory.messages import FolderDocument, Registration, StoreDocument, VolumeDocument
from directory.storage.tables import VolumeRecord
from haystack.units import GIB

STORES = ("s1", "s2")


def document(store_id: str) -> StoreDocument:
    return StoreDocument(store_id, None, f"{store_id}:1", f"{store_id}:1", f"{store_id}:2", "dc", "r", "1", 1, 1)


def volume(number: int, size_bytes: int) -> VolumeDocument:
    return VolumeDocument(
        volume=number,
        uuid=f"u{number}",
        generation=1,
        epoch=1,
        folder="f",
        state="writable",
        reason="",
        size_bytes=size_bytes,
        max_bytes=100,
        live_count=1,
        live_bytes=size_bytes,
        deleted_count=0,
        deleted_bytes=0,
        max_key=1,
        reads=0,
        writes=0,
        replication="001",
        last_append_ms=1,
        primary="s1",
        in_sync=STORES,
    )


def record(number: int) -> VolumeRecord:
    return VolumeRecord(number, f"u{number}", "001", 1, "s1", STORES, "writable", 1, 100, members=STORES)


def test_volumes_that_are_nearly_full_are_not_open() -> None:
    """Emptier volumes are preferred, so nearly full ones stay as they are for ever: they must not count as open."""
    cluster = Cluster(dead_after_seconds=3, started_seconds=0)
    target = 2
    nearly_full = MAX_OPEN_FACTOR * target
    volumes = (*(volume(number, 95) for number in range(1, nearly_full + 1)), volume(nearly_full + 1, 10))
    for store_id in STORES:
        folder = FolderDocument("f", "/f", 1000 * GIB, 900 * GIB, "ok", "")
        cluster.register(Registration(document(store_id), (folder,), volumes), 1.0)
    cluster.settle("s1", [record(one.volume) for one in volumes], {})
    assert cluster.open_count("001") == 1
    wanted = volumes_wanted(
        cluster.folder_spaces(1.0, {}, "001"),
        target,
        replication=parse_replication("001"),
        writable=1,
        still_open=cluster.open_count("001"),
    )
    assert wanted == 1
