"""`haystack snapshot` and what `backup` and `restore` refuse, against a stand-in Directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from fake_cluster import FakeCluster

from haystack.errors import FolderError
from tools import cli
from tools.backup_files import BackupFolder, Manifest, SavedVolume

Capture = pytest.CaptureFixture[str]

SNAPSHOT: dict[str, Any] = {
    "name": "monday",
    "createdMs": 1_700_000_000_000,
    "expiresMs": 0,
    "directoryBytes": 4096,
    "volumes": 1,
    "volumeBytes": 2**20,
    "lost": [],
    "checksum": "ab",
    "held": [{"volume": 1, "uuid": "u", "generation": 0, "end": 2**20, "lost": False}],
}


class SnapshotCluster(FakeCluster):
    """Also takes snapshots."""

    def __init__(self) -> None:
        super().__init__()
        self.orders: list[Any] = []
        self.snapshots: list[dict[str, Any]] = [SNAPSHOT]

    def routes(self, app: web.Application) -> None:
        app.router.add_get("/cluster/snapshots", self._list)
        app.router.add_post("/cluster/snapshots", self._take)
        app.router.add_delete("/cluster/snapshots/{name}", self._delete)

    async def _list(self, request: web.Request) -> web.Response:
        return web.json_response({"snapshots": self.snapshots})

    async def _take(self, request: web.Request) -> web.Response:
        order = json.loads(await request.read())
        self.orders.append(order)
        return await self._signed(request, {**SNAPSHOT, "name": order["name"]}, 201)

    async def _delete(self, request: web.Request) -> web.Response:
        if request.match_info["name"] != "monday":
            return web.json_response({"error": "there is no such snapshot"}, status=404)
        return await self._signed(request, {})


@pytest.fixture(scope="module")
def server() -> Any:
    server = SnapshotCluster()
    server.start()
    yield server
    server.stop()


def test_create(cluster: SnapshotCluster, capsys: Capture) -> None:
    assert cli.run(["snapshot", "create", "tuesday", "--hold", "2d"]) == 0
    assert cluster.orders[-1] == {"name": "tuesday", "holdSeconds": 172_800}
    assert capsys.readouterr().out == (
        "Snapshot tuesday: 1 volumes with 1.00 MiB, and 4.00 KiB of the Directory. Held until it is deleted.\n"
    )
    assert cli.run(["snapshot", "create", "x", "--hold", "soon"]) == 2


def test_list(cluster: SnapshotCluster, capsys: Capture) -> None:
    assert cli.run(["snapshot", "list"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[1].split() == (
        ["monday", "2023-11-14", "22:13:20", "UTC", "it", "is", "deleted", "1", "1.00", "MiB", "4.00", "KiB"]
    )
    cluster.snapshots = [{**SNAPSHOT, "lost": [1], "expiresMs": 1_700_000_000_000}]
    assert cli.run(["snapshot", "list"]) == 0
    assert "volumes 1 are lost to it" in capsys.readouterr().out
    cluster.snapshots = [{}]
    assert cli.run(["snapshot", "list"]) == 1
    assert "not understood" in capsys.readouterr().err
    cluster.snapshots = [SNAPSHOT]


def test_delete(cluster: SnapshotCluster, capsys: Capture) -> None:
    assert cli.run(["snapshot", "delete", "monday"]) == 0
    assert cli.run(["snapshot", "delete", "sunday"]) == 1
    assert "there is no such snapshot" in capsys.readouterr().err


class TestFolder:
    def manifest(self, **changes: Any) -> Manifest:
        saved = SavedVolume(7, "u", 0, 100, "7.0.vol", ((64, 8),))
        return Manifest("c", "s", 1, "directory-1.lmdb", 10, "ab", {7: saved})

    def test_what_is_written_is_read(self, tmp_path: Path) -> None:
        folder = BackupFolder(tmp_path / "b")
        with folder.locked():
            assert folder.read() is None
            for name in ("7.0.vol", "7.1.vol", "notes.txt"):
                folder.volume(name).touch()
            for name in ("directory-1.lmdb", "directory-0.lmdb", "directory-0.lmdb.part", "README"):
                (folder.path / name).touch()
            folder.write(self.manifest())
            assert folder.read() == self.manifest()
            # What no backup names goes, what is none of ours stays.
            assert sorted(path.name for path in (folder.path / "volumes").iterdir()) == ["7.0.vol", "notes.txt"]
            left = sorted(path.name for path in folder.path.iterdir())
            assert left == ["README", "backup.json", "directory-1.lmdb", "lock", "volumes"]
            assert folder.new_name(7, 0) == "7.0-1.vol"
            with pytest.raises(FolderError, match="another backup is being written"), folder.locked():
                pass

    def test_another_folder_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "photos").mkdir()
        with pytest.raises(FolderError, match="no folder of backups"), BackupFolder(tmp_path).locked():
            pass
        with pytest.raises(FolderError, match="Not a directory"), BackupFolder(Path("/dev/null/x")).locked():
            pass

    @pytest.mark.parametrize(
        "changes",
        [
            {"format": 2},
            {"volumes": [{"volume": 1}]},
            {"directory": {"file": "../x.lmdb", "sizeBytes": 1, "checksum": ""}},
            {"volumes": None},
        ],
    )
    def test_a_manifest_that_is_none(self, tmp_path: Path, changes: dict[str, Any]) -> None:
        (tmp_path / "backup.json").write_text(json.dumps({**self.manifest().to_json(), **changes}))
        with pytest.raises(FolderError, match="cannot be used"):
            BackupFolder(tmp_path).read()

    def test_a_volume_elsewhere_is_refused(self, tmp_path: Path) -> None:
        document = self.manifest().to_json()
        document["volumes"][0]["file"] = "../../etc/1.0.vol"
        (tmp_path / "backup.json").write_text(json.dumps(document))
        with pytest.raises(FolderError, match="no volume of a backup"):
            BackupFolder(tmp_path).read()


def test_usage(cluster: SnapshotCluster, capsys: Capture, tmp_path: Path) -> None:
    assert cli.run(["backup", str(tmp_path / "b"), "--bytes-per-second", "fast"]) == 2
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "x").touch()
    assert cli.run(["backup", str(tmp_path / "f")]) == 1
    assert "no folder of backups" in capsys.readouterr().err
    assert cli.run(["restore", str(tmp_path / "f")]) == 1
    assert "no complete backup" in capsys.readouterr().err
