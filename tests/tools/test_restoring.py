"""What a backup becomes: the plan (pure), and copying between file systems."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from directory.messages import StoreDocument
from directory.storage.restored import Contents
from directory.storage.tables import VolumeRecord
from haystack.errors import FolderError, OutOfSpace
from tools import restoring
from tools.backup_files import Manifest, SavedVolume
from tools.folders import require_empty
from tools.layout import Layout
from tools.restoring import check_room, make_plan

UUIDS = [f"{number:08d}-0000-0000-0000-000000000000" for number in range(10)]


def store(name: str, port: int, rack: str = "default", center: str = "default") -> StoreDocument:
    url = f"10.0.0.1:{port}"
    return StoreDocument(name, "c", url, url, url, center, rack, "1", 1, 1)


def record(volume: int, *in_sync: str, replication: str = "000", members: tuple[str, ...] = ()) -> VolumeRecord:
    return VolumeRecord(
        volume, UUIDS[volume], replication, 3, in_sync[0], in_sync, "writable", 1, None, members=members or in_sync
    )


def manifest(*volumes: int, cluster: str = "c") -> Manifest:
    saved = {volume: SavedVolume(volume, UUIDS[volume], 0, 1000, f"{volume}.0.vol") for volume in volumes}
    return Manifest(cluster, "s", 1, "directory-1.lmdb", 10, "ab", saved)


def contents(stores: list[StoreDocument], records: list[VolumeRecord]) -> Contents:
    return Contents("c", {one.store_id: one for one in stores}, {one.volume: one for one in records})


class TestPlan:
    def test_each_store_gets_what_it_had_all_of(self) -> None:
        stores = [store("b", 8081, "rack2"), store("a", 8080, "rack1"), store("idle", 8082)]
        records = [
            record(1, "a", "b", replication="010"),
            record(2, "b", replication="010", members=("b", "a")),
            record(3, "a"),
        ]
        plan = make_plan(manifest(1, 2, 3), contents(stores, records))
        assert [(one.name, one.document.store_id) for one in plan.stores] == [("store1", "a"), ("store2", "b")]
        assert [[saved.volume for saved in one.volumes] for one in plan.stores] == [[1, 3], [1, 2]]
        assert plan.size_bytes == 4010
        assert plan.layout == Layout("010", 1, 2)

    def test_ports_need_not_be_in_the_order_of_racks(self) -> None:
        stores = [store("a", 9, "rack1"), store("b", 5, "rack2"), store("c", 7, "rack1")]
        plan = make_plan(manifest(1), contents(stores, [record(1, "a", "b", "c", replication="011")]))
        assert [one.document.store_id for one in plan.stores] == ["c", "b", "a"]
        assert plan.layout == Layout("011", 1, 2)

    def test_racks_that_up_does_not_make(self) -> None:
        plan = make_plan(manifest(1), contents([store("a", 1, "cellar")], [record(1, "a")]))
        assert plan.layout is None

    def test_a_cluster_without_volumes(self) -> None:
        assert make_plan(manifest(), contents([store("a", 1)], [])).stores == ()

    def test_parts_that_do_not_go_together(self) -> None:
        known = contents([store("a", 1)], [record(1, "a"), record(2, "gone")])
        for wrong, message in (
            (manifest(1, cluster="other"), "is of cluster c, not other"),
            (manifest(1, 5), "volume 5 .* is not in the Directory's storage"),
            (manifest(2), "names Stores that it does not know: gone"),
        ):
            with pytest.raises(FolderError, match=message):
                make_plan(wrong, known)


def test_room_and_emptiness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(manifest(1), contents([store("a", 1)], [record(1, "a")]))
    check_room(plan, tmp_path / "to" / "be" / "made")
    space = os.statvfs(tmp_path)
    monkeypatch.setattr(
        "tools.restoring.os.statvfs", lambda path: os.statvfs_result((1, 1, 9, 9, 9, *tuple(space)[5:]))
    )
    with pytest.raises(OutOfSpace, match=r"are needed, 9 B are free"):
        check_room(plan, tmp_path)
    (tmp_path / "lost+found").mkdir()
    require_empty(tmp_path, "restoring begins")
    require_empty(tmp_path / "none", "restoring begins")
    (tmp_path / "x").touch()
    for path in (tmp_path, tmp_path / "x"):
        with pytest.raises(FolderError):
            require_empty(path, "restoring begins")


@pytest.mark.parametrize("other_kind", [False, True])
def test_copying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other_kind: bool) -> None:
    def refuse(*_: Any, **__: Any) -> int:
        raise OSError(errno.EXDEV, "cross-device")

    if other_kind:
        monkeypatch.setattr("tools.restoring.os.copy_file_range", refuse)
    monkeypatch.setattr(restoring, "COPY_BYTES", 1000)
    content = os.urandom(5000)
    (tmp_path / "a").write_bytes(content)
    done: list[int] = []
    restoring._copy(tmp_path / "a", tmp_path / "b", 4500, done.append)
    assert (tmp_path / "b").read_bytes() == content[:4500]
    assert sum(done) == 4500 and len(done) == 5
    with pytest.raises(FolderError, match="ends 1000 bytes too early"):
        restoring._copy(tmp_path / "a", tmp_path / "c", 6000, done.append)
