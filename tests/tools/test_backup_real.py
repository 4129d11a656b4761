"""`haystack backup`, the cluster destroyed, `haystack restore` elsewhere: all photos are there again."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_up_real import ENVIRON, HAYSTACK, WAIT_SECONDS, Cluster, get_json, live_count, photos

from tools.backup_files import BackupFolder


@pytest.fixture
def clusters() -> Iterator[list[Cluster]]:
    started: list[Cluster] = []
    yield started
    for one in started:
        if one.process.poll() is None:
            one.kill_everything()


class Load:
    """Uploads and deletes in a thread of its own, until it is ended."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.stored: dict[str, bytes] = {}
        self._enough = threading.Event()
        self.busy = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def end(self) -> None:
        self._enough.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._enough.is_set():
            number += 1
            content = f"under load {number}".encode() * 50
            self.stored[self._cluster.upload(content)] = content
            if number >= 5:
                self.busy.set()


def delete(cluster: Cluster, fid: str) -> None:
    found = get_json(f"{cluster.directory}/dir/lookup?volumeId={fid.partition(',')[0]}")
    request = urllib.request.Request(f"http://{found['locations'][0]['url']}/{fid}", method="DELETE")
    with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as response:
        assert response.status == 202


def status_of(cluster: Cluster, fid: str) -> int:
    try:
        with urllib.request.urlopen(f"{cluster.directory}/{fid}", timeout=WAIT_SECONDS) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def restored(clusters: list[Cluster], backup: Path, data: Path, *arguments: str) -> Cluster:
    """Restore a backup elsewhere and start it; `Cluster.run` would add the folder of a running one."""
    plan = command("restore", str(backup), "--data", str(data), "--verify")
    assert plan["applied"] is False
    assert not data.exists()
    done = command("restore", str(backup), "--data", str(data), "--verify", "--apply")
    assert done["applied"] and done["verified"] and not done["problems"]
    cluster = Cluster(data, *arguments)
    clusters.append(cluster)
    return cluster


def command(*arguments: str, exit_code: int = 0) -> Any:
    result = subprocess.run(
        [*HAYSTACK, *arguments, "--json"],
        capture_output=True,
        text=True,
        env=ENVIRON,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert result.returncode == exit_code, result.stderr
    return json.loads(result.stdout) if result.stdout else result.stderr


def test_backup_under_load_destroy_restore(clusters: list[Cluster], tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "data", "--stores", "2", "--workers", "1")
    clusters.append(cluster)
    stored = {cluster.upload(content): content for content in photos(30, 1)}
    gone = list(stored)[:5]
    for fid in gone[:3]:
        delete(cluster, fid)
    load = Load(cluster)
    load.busy.wait(WAIT_SECONDS)
    first = cluster.run("backup", str(tmp_path / "backup"))
    assert first["ok"] and first["new"] and not first["same"] and not first["grown"]
    assert first["copiedBytes"] == first["volumeBytes"]
    load.end()
    for fid in gone[3:]:
        delete(cluster, fid)
    late = {cluster.upload(content): content for content in photos(10, 2)}
    # Only what is new.
    second = cluster.run("backup", str(tmp_path / "backup"))
    assert second["ok"] and not second["new"]
    assert second["copiedBytes"] == second["volumeBytes"] - first["volumeBytes"]
    third = cluster.run("backup", str(tmp_path / "backup"))
    assert third["copiedBytes"] == 0 and len(third["same"]) == third["volumes"]
    assert cluster.run("snapshot", "list") == {"snapshots": []}
    assert command("restore", str(tmp_path / "backup"), "--verify")["verified"]

    cluster.kill_everything()
    shutil.rmtree(tmp_path / "data")
    wanted = {fid: content for fid, content in {**stored, **load.stored, **late}.items() if fid not in gone}
    other = restored(clusters, tmp_path / "backup", tmp_path / "elsewhere")
    assert {fid: other.read(fid) for fid in wanted} == wanted
    assert {status_of(other, fid) for fid in gone} == {404}
    other.until(lambda status: status["Counts"]["photos"] == live_count(status) == len(wanted))
    assert other.run("status")["ok"] is True
    # It lives: new photos, a backup that goes on with the old one.
    again = {other.upload(content): content for content in photos(5, 3)}
    assert not again.keys() & wanted.keys()
    fourth = other.run("backup", str(tmp_path / "backup"))
    assert 0 < fourth["copiedBytes"] < third["volumeBytes"]


def test_copies_are_restored_as_copies(clusters: list[Cluster], tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "data", "--replication", "010", "--workers", "1")
    clusters.append(cluster)
    stored = {cluster.upload(content): content for content in photos(10, 1)}
    assert cluster.run("snapshot", "create", "before")["volumes"] > 0
    delete(cluster, next(iter(stored)))
    cluster.run("backup", str(tmp_path / "backup"), "--snapshot", "before")
    cluster.run("snapshot", "delete", "before")
    cluster.kill_everything()
    other = restored(clusters, tmp_path / "backup", tmp_path / "elsewhere")
    # As it was at the snapshot: the photo that was deleted afterwards is there.
    assert {fid: other.read(fid) for fid in stored} == stored

    def well(status: Any) -> bool:
        # New addresses make new epochs: a copy that has not heard of its own yet is taken out for a moment.
        counts = [len(volume["inSync"]) for volume in status["Volumes"]]
        if set(counts) != {2} or not status["Counts"]["volumesWritable"] or status["Problems"]:
            return False
        return bool(other.run("volume", "check", "--full", exit_code=None)["ok"])

    status = other.until(well)
    assert {store["rack"] for store in status["Stores"]} == {"rack1", "rack2"}
    assert other.read(other.upload(b"more")) == b"more"


def test_what_was_interrupted_leaves_the_backup_before(clusters: list[Cluster], tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "data", "--workers", "1")
    clusters.append(cluster)
    backup = tmp_path / "backup"
    stored = {cluster.upload(content): content for content in photos(10, 1)}
    cluster.run("backup", str(backup))
    # What a run leaves that was killed: bytes behind the end, whole needles and half ones.
    more = {cluster.upload(content): content for content in photos(10, 2)}
    manifest = BackupFolder(backup).read()
    assert manifest is not None
    grown = 0
    for saved in manifest.volumes.values():
        source = next((tmp_path / "data").glob(f"store*/{saved.volume}.vol"))
        tail = source.read_bytes()[saved.size_bytes :]
        with BackupFolder(backup).volume(saved.file).open("ab") as file:
            file.write(tail[: len(tail) - 8])
        grown += len(tail) > 8
    assert grown
    assert command("restore", str(backup), "--verify")["problems"] == {}
    later = cluster.run("backup", str(backup))
    # Whole needles that were there already are not copied again.
    assert 0 < later["copiedBytes"] < later["volumeBytes"] - sum(s.size_bytes for s in manifest.volumes.values()) + 1
    cluster.kill_everything()
    other = restored(clusters, backup, tmp_path / "elsewhere")
    assert {fid: other.read(fid) for fid in stored | more} == stored | more


def test_refusals(clusters: list[Cluster], tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "data", "--workers", "1")
    clusters.append(cluster)
    cluster.upload(b"photo")
    backup = tmp_path / "backup"
    cluster.run("backup", str(backup))
    assert "restoring begins with an empty folder" in command(
        "restore", str(backup), "--data", str(tmp_path / "data"), exit_code=1
    )
    assert "no complete backup" in command("restore", str(tmp_path), exit_code=1)
    manifest = BackupFolder(backup).read()
    assert manifest is not None
    # One byte: --verify tells which file.
    saved = max(manifest.volumes.values(), key=lambda one: one.size_bytes)
    path = BackupFolder(backup).volume(saved.file)
    raw = bytearray(path.read_bytes())
    raw[-20] ^= 1
    path.write_bytes(raw)
    problems = command("restore", str(backup), "--verify", exit_code=1)["problems"]
    assert list(problems) == [str(path)]
    # The next backup sees that the file is not what it was, and copies it anew.
    again = cluster.run("backup", str(backup))
    assert again["ok"] and again["copiedBytes"] == saved.size_bytes
    assert command("restore", str(backup), "--verify")["problems"] == {}


def test_a_snapshot_is_held_through_a_compaction(clusters: list[Cluster], tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "data", "--workers", "1")
    clusters.append(cluster)
    stored = {cluster.upload(content): content for content in photos(20, 1)}
    early = list(stored)[:4]
    for fid in early:
        delete(cluster, fid)
    wanted = {fid: content for fid, content in stored.items() if fid not in early}
    first = cluster.run("backup", str(tmp_path / "backup"))
    cluster.run("snapshot", "create", "held")
    # Deleted after the snapshot, and for good: only the snapshot keeps them.
    late = list(wanted)[:6]
    for fid in late:
        delete(cluster, fid)
    more = {cluster.upload(content): content for content in photos(10, 2)}
    cluster.until(lambda status: live_count(status) == len(wanted) - len(late) + len(more))
    done = cluster.run("volume", "compact", "--all", "--now", "--apply")
    assert any(one["state"] == "done" for one in done["compactions"])
    assert {status_of(cluster, fid) for fid in (*early, *late)} == {404}
    assert {fid: cluster.read(fid) for fid in more} == more
    assert cluster.run("snapshot", "list")["snapshots"][0]["lost"] == []
    # Another generation: all of these volumes, not only what is new.
    held = cluster.run("backup", str(tmp_path / "backup"), "--snapshot", "held")
    assert held["ok"] and held["new"]
    assert held["volumeBytes"] < first["volumeBytes"]
    later = cluster.run("backup", str(tmp_path / "later"))
    assert later["ok"]
    cluster.kill_everything()

    other = restored(clusters, tmp_path / "backup", tmp_path / "elsewhere")
    assert {fid: other.read(fid) for fid in wanted} == wanted
    assert {status_of(other, fid) for fid in (*early, *more)} == {404}
    other.until(lambda status: status["Counts"]["photos"] == live_count(status) == len(wanted))
    other.kill_everything()
    newest = restored(clusters, tmp_path / "later", tmp_path / "newest")
    alive = {fid: content for fid, content in {**wanted, **more}.items() if fid not in late}
    assert {fid: newest.read(fid) for fid in alive} == alive
    assert {status_of(newest, fid) for fid in (*early, *late)} == {404}
