"""Data folders: opened, refused, missed, probed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from haystack.errors import FolderError
from haystack.store import folder as folder_module
from haystack.store.control_cells import FolderState
from haystack.store.folder import DataFolder
from haystack.store.folder_identity import Identity
from haystack.store.folder_opening import open_folders

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a tmpfs, which takes root")


@contextmanager
def opened(*paths: Path, wait_seconds: float = 0.0) -> Iterator[list[DataFolder]]:
    folders = open_folders(paths, wait_seconds=wait_seconds)
    try:
        yield folders
    finally:
        for one in folders:
            one.close()


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts tmpfs file systems; all are gone at the end."""
    mounts: list[Path] = []

    def mount(name: str, options: str = "size=4m") -> Path:
        path = tmp_path / name
        path.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], check=True)
        mounts.append(path)
        return path

    yield mount
    for path in mounts:
        subprocess.run(["umount", "-l", path], check=False, stderr=subprocess.DEVNULL)


def identity_of(path: Path) -> dict[str, object]:
    return json.loads((path / "folder.json").read_bytes())


def test_a_new_folder_is_made_and_keeps_its_identity(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "data"
    with opened(path) as [one]:
        first = one.identity
        assert one.state is FolderState.OK
    document = identity_of(path)
    assert (document["format"], document["lmdb_format"], document["cluster_id"]) == (1, 1, None)
    with opened(path) as [one]:
        assert one.identity == first


def test_all_folders_name_the_same_store_and_each_other(tmp_path: Path) -> None:
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    with opened(one) as [alone]:
        store_id = alone.identity.store_id
    with opened(one, two, three) as folders:
        assert {folder.identity.store_id for folder in folders} == {store_id}
        siblings = {folder.id: str(folder.path) for folder in folders}
        assert all(folder.identity.siblings == siblings for folder in folders)
        assert len(siblings) == 3
    assert identity_of(two)["folders"] == siblings


def test_a_cluster_is_noted(tmp_path: Path) -> None:
    cluster_id = str(uuid4())
    with opened(tmp_path) as [one]:
        one.join_cluster(cluster_id)
    with opened(tmp_path, tmp_path / "new") as folders:
        assert [folder.identity.cluster_id for folder in folders] == [cluster_id, cluster_id]


def test_a_locked_folder_is_refused_and_names_the_process(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(FolderError, match=rf"in use by another Store \(process {os.getpid()}\)"):
        open_folders([tmp_path], wait_seconds=30)


def test_a_locked_folder_is_waited_for_when_its_supervisor_is_gone(tmp_path: Path) -> None:
    with opened(tmp_path):
        (tmp_path / "lock").write_text("999999 1")  # a supervisor that was killed; its worker still has the lock
        with pytest.raises(FolderError, match="finishing its requests"):
            open_folders([tmp_path], wait_seconds=0.1)


def test_a_refusal_unlocks_the_other_folders(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    with opened(two), pytest.raises(FolderError):
        open_folders([one, two])
    with opened(one):
        pass


def test_folders_of_two_stores_are_refused(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for path in (one, two):
        with opened(path):
            pass
    with pytest.raises(FolderError, match=f"{two} belongs to another Store"):
        open_folders([one, two])


def test_a_copied_folder_is_refused(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    with opened(one):
        pass
    shutil.copytree(one, two)
    with pytest.raises(FolderError, match="the same id: one is a copy"):
        open_folders([one, two])


def test_the_same_folder_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(FolderError, match="given twice"):
        open_folders([tmp_path / "real", tmp_path / "link"])


def test_a_foreign_folder_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"photo")
    with pytest.raises(FolderError, match=r"is not empty and no data folder \(it has holiday.jpg"):
        open_folders([tmp_path])
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_volumes_without_identity_are_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "3.vol").write_bytes(b"")
    with pytest.raises(FolderError, match=r"has volumes but no folder.json; to bring these volumes back"):
        open_folders([tmp_path])


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FolderError, match="is not a directory"):
        open_folders([tmp_path / "file"])
    with pytest.raises(FolderError, match="cannot be used: Not a directory"):
        open_folders([tmp_path / "file" / "below"])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"format": 9}, "format 9 is unknown"),
        ({"lmdb_format": 9}, "lmdb_format 9 is unknown"),
        ({"store_id": "x"}, "badly formed"),
        ({"store_id": None}, "no UUID"),
        ({"folders": []}, "no map of paths|not a map of paths"),
    ],
)
def test_an_identity_of_another_kind_is_refused(tmp_path: Path, change: dict[str, object], complaint: str) -> None:
    with opened(tmp_path):
        pass
    (tmp_path / "folder.json").write_text(json.dumps(identity_of(tmp_path) | change))
    with pytest.raises(FolderError, match=complaint):
        open_folders([tmp_path])


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_damaged_identity_is_refused(tmp_path: Path, content: bytes) -> None:
    with opened(tmp_path):
        pass
    (tmp_path / "folder.json").write_bytes(content)
    with pytest.raises(FolderError, match=r"folder.json cannot be used"):
        open_folders([tmp_path])


def test_an_identity_survives_its_json() -> None:
    one = Identity(str(uuid4()), str(uuid4()), str(uuid4()), {str(uuid4()): "/data"})
    assert Identity.from_json(one.to_json()) == one


def test_temporary_files_are_removed(tmp_path: Path) -> None:
    with opened(tmp_path):
        (tmp_path / "tmp" / "left").write_bytes(b"x")
    with opened(tmp_path):
        assert not (tmp_path / "tmp" / "left").exists()


# -- folders that are missing


def test_a_missing_disk_takes_only_its_own_volumes_down(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    with opened(one, two) as folders:
        lost_id = folders[1].id
    shutil.rmtree(two)
    for present in (False, True):
        if present:
            two.mkdir()  # the mount point without its disk
        with opened(one, two) as [first, second]:
            assert first.state is FolderState.OK
            assert second.failed
            assert second.id == lost_id
            assert "is its disk mounted?" in second.error
            assert second.volumes() == [] if present else True
    assert not any(two.iterdir())


def test_the_first_disk_may_be_the_missing_one(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    with opened(one, two) as folders:
        store_id = folders[0].identity.store_id
    shutil.rmtree(one)
    with opened(one, two) as [first, second]:
        assert first.failed
        assert not second.failed
        assert first.identity.store_id == second.identity.store_id == store_id


def test_a_disk_that_was_given_up_makes_room_for_a_new_one(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    with opened(one, two) as folders:
        lost_id = folders[1].id
    shutil.rmtree(two)
    with opened(one):
        pass
    with opened(one, two) as [_, second]:
        assert not second.failed
        assert second.id != lost_id


def test_a_disk_may_come_back_under_another_path(tmp_path: Path) -> None:
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    with opened(one, two) as folders:
        folder_id = folders[1].id
    two.rename(three)
    with opened(one, three) as [_, moved]:
        assert not moved.failed
        assert moved.id == folder_id


def test_without_any_folder_there_is_no_store(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    with opened(one, two):
        pass
    for path in (one, two):
        (path / "folder.json").write_bytes(b"")
    with pytest.raises(FolderError, match="cannot be used"):
        open_folders([one, two])


@AS_ROOT
def test_a_read_only_folder_is_refused(tmp_path: Path, mounted: Callable[..., Path]) -> None:
    path = mounted("disk")
    with opened(path):
        pass
    subprocess.run(["mount", "-o", "remount,ro", path], check=True)
    with pytest.raises(FolderError, match=rf"data folder {path}: cannot be used: Read-only file system"):
        open_folders([path])
    with opened(tmp_path / "new"), pytest.raises(FolderError, match="Read-only"):
        open_folders([path / "below"])


@AS_ROOT
def test_a_read_only_disk_among_others_takes_only_itself_down(tmp_path: Path, mounted: Callable[..., Path]) -> None:
    path = mounted("disk")
    with opened(tmp_path / "one", path):
        pass
    subprocess.run(["mount", "-o", "remount,ro", path], check=True)
    with opened(tmp_path / "one", path) as [first, second]:
        assert not first.failed
        assert second.failed
        assert "Read-only file system" in second.error


@AS_ROOT
def test_a_full_disk_is_opened(mounted: Callable[..., Path]) -> None:
    path = mounted("disk", "size=256k")
    with opened(path):
        pass
    with (path / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space"):
        while True:
            filler.write(bytes(4096))
    with opened(path) as [one]:
        assert not one.failed
        assert one.probe().free_bytes == 0
        assert one.probe().error is None


# -- probing


def test_a_probe_tells_space(tmp_path: Path) -> None:
    with opened(tmp_path) as [one]:
        found = one.probe()
        assert found.error is None
        assert 0 < found.free_bytes <= found.total_bytes


def test_a_probe_notices_that_the_folder_is_gone(tmp_path: Path) -> None:
    with opened(tmp_path / "data") as [one]:
        shutil.rmtree(tmp_path / "data")
        assert "No such file" in str(one.probe().error)


@AS_ROOT
def test_a_probe_notices_another_file_system_in_its_place(mounted: Callable[..., Path]) -> None:
    path = mounted("disk")
    with opened(path) as [one]:
        subprocess.run(["umount", "-l", path], check=True)
        assert "another folder is in its place" in str(one.probe().error)


def test_a_probe_notices_a_disk_that_fails_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    with opened(tmp_path) as [one]:
        monkeypatch.setattr(folder_module.os, "fdatasync", fail)
        assert "Input/output error" in str(one.probe().error)


def test_a_probe_does_not_blame_the_disk_for_our_own_shortage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int) -> None:
        raise OSError(24, "Too many open files")

    with opened(tmp_path) as [one]:
        monkeypatch.setattr(folder_module.os, "fdatasync", fail)
        assert one.probe().error is None


def test_volumes_are_found_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened(tmp_path) as [one]:
        for name in ("3.vol", "12.vol", "03.vol", "x.vol", "4294967296.vol", "3.idx", "3.vol.new"):
            (tmp_path / name).write_bytes(b"")
        assert one.volumes() == [(3, one.path / "3.vol"), (12, one.path / "12.vol")]
    assert caplog.text.count("is left alone") == 3
