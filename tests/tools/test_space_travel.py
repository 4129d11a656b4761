"""`haystack space`, `haystack volume export` and `import`, and volume files that are copied by hand."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_backup_real import command, delete
from test_up_real import Cluster, live_count, photos

from directory.decisions.compaction import LEAST_GAIN_BYTES
from haystack.client.errors import UnexpectedAnswer
from haystack.units import format_size
from haystack.volume import Volume
from haystack.volume.names import index_files
from tools.spaces import most_to_win, spaces_of


@pytest.fixture
def clusters() -> Iterator[list[Cluster]]:
    started: list[Cluster] = []
    yield started
    for one in started:
        if one.process.poll() is None:
            one.kill_everything()


def status(*volumes: dict[str, Any]) -> dict[str, Any]:
    folder = {"id": "f", "path": "/disk", "state": "ok", "totalBytes": 1000, "freeBytes": 500, "reserveBytes": 100}
    return {"folders": [folder], "volumes": list(volumes)}


def volume(number: int, live: int, deleted: int) -> dict[str, Any]:
    sizes = {"liveBytes": live, "deletedBytes": deleted, "indexBytes": 7, "sizeBytes": 64 + live + deleted}
    return {"volume": number, "folder": "f", "state": "writable", **sizes}


class TestSums:
    def test_by_volume_disk_and_machine(self) -> None:
        exact = {"liveBytes": 90, "garbageBytes": 30, "trashBytes": 20, "expiredBytes": 10, "indexBytes": 7}
        found = spaces_of(
            {
                "a:1": status(volume(1, 100, 50), volume(2, 10, 0)),
                "a:2": status(volume(1, 100, 50)),
                "b:1": status(),
            },
            {("a:2", 1): {**exact, "sizeBytes": 214}},
        )
        assert [(one.host, one.disks, one.volumes) for one in found.machines] == [("a", 2, 3), ("b", 1, 0)]
        assert found.total.document() == {
            "liveBytes": 200,
            "garbageBytes": 80,
            "trashBytes": 20,
            "expiredBytes": 10,
            "indexBytes": 21,
            "sizeBytes": 502,
            "gainBytes": 90,
        }
        assert found.disks[0].bytes.trash is None
        assert found.disks[1].bytes.gain == 40
        assert [(one.volume, one.store) for one in most_to_win(found.volumes, 5)] == [(1, "a:1"), (1, "a:2")]
        assert len(most_to_win(found.volumes, None)) == 3

    def test_another_release(self) -> None:
        with pytest.raises(UnexpectedAnswer, match="not understood"):
            spaces_of({"a:1": {"folders": [{}], "volumes": []}}, {})


def test_space(clusters: list[Cluster], tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "data", "--stores", "2", "--workers", "1")
    clusters.append(cluster)
    stored = [cluster.upload(bytes(10_000)) for _ in range(10)]
    for fid in stored[:4]:
        delete(cluster, fid)
    cluster.until(lambda status: live_count(status) == 6)
    plain = cluster.run("space")
    assert plain["total"]["trashBytes"] is None
    assert plain["total"]["garbageBytes"] > 40_000
    assert len(plain["disks"]) == 2 and len(plain["machines"]) == 1
    exact = cluster.run("space", "--exact", "--volumes")["total"]
    assert exact["trashBytes"] == plain["total"]["garbageBytes"] > 40_000
    assert (exact["garbageBytes"], exact["expiredBytes"], exact["gainBytes"]) == (0, 0, 0)
    assert exact["liveBytes"] == plain["total"]["liveBytes"]
    assert "as soon as 30% of them can be won" in plain["automatic"]
    # Which of the two a volume says depends on how the few photos fell on the volumes.
    least = format_size(LEAST_GAIN_BYTES)
    outlooks = [one["compaction"] for one in plain["volumes"] if one["liveBytes"]]
    assert outlooks and all(re.match(rf"when (30% can be won, now \d+%|{least} can be won)", one) for one in outlooks)


def test_export_and_import(clusters: list[Cluster], tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "data", "--workers", "1")
    clusters.append(cluster)
    stored = {cluster.upload(content): content for content in [*photos(30, 1), bytes(3_000_000)]}
    number = next(reversed(stored)).partition(",")[0]
    file = tmp_path / "volume"
    exported = cluster.run("volume", "export", number, str(file))
    assert exported["sizeBytes"] == file.stat().st_size and not exported["damaged"]
    assert command("volume", "check", "--full", str(file), exit_code=1)["checked"][0]["report"]["damage"] == []
    in_volume = {fid: content for fid, content in stored.items() if fid.startswith(f"{number},")}

    other = Cluster(tmp_path / "other", "--workers", "1")
    clusters.append(other)
    # Numbers of volumes that the other cluster has are refused.
    refused = command("volume", "import", str(file), "--data", str(tmp_path / "other"), "--apply", exit_code=1)
    assert "the cluster has another volume" in refused

    # An export of a volume that only exists there.
    single = tmp_path / "4000.vol"
    with Volume.create(single, 4000) as made:
        kept = {key: made.put(key, 7, b"photo" * 1000 * key) and b"photo" * 1000 * key for key in range(1, 20)}
        made.delete(3, 7)
        del kept[3]
    planned = other.run("volume", "import", str(single))
    assert planned["applied"] is False
    assert other.run("volume", "import", str(single), "--apply")["applied"]
    for key, content in kept.items():
        assert other.read(f"4000,{key:x}{7:016x}") == content
    other.until(lambda status: any(one["volume"] == 4000 and one["liveCount"] == 18 for one in status["Volumes"]))
    again = command("volume", "import", str(single), "--data", str(tmp_path / "other"), "--apply", exit_code=1)
    assert "knows this volume 4000 already" in again
    assert not list((tmp_path / "other").glob("store*/*.import"))

    # Damage is refused, and nothing of it is left in use.
    bad = tmp_path / "4001.vol"
    with Volume.create(bad, 4001) as made:
        made.put(1, 7, b"photo" * 1000)
    raw = bytearray(bad.read_bytes())
    raw[500] ^= 1
    bad.write_bytes(raw)
    damaged = command("volume", "import", str(bad), "--data", str(tmp_path / "other"), "--apply", exit_code=1)
    assert "volume 4001 is damaged: 5072 bytes at offset 64" in damaged
    assert "is no volume" in command(
        "volume", "import", str(tmp_path / "up.log"), "--data", str(tmp_path / "other"), exit_code=1
    )
    assert {fid: cluster.read(fid) for fid in in_volume} == in_volume


@pytest.mark.parametrize("with_index", [True, False])
def test_a_file_that_is_copied_by_hand(clusters: list[Cluster], tmp_path: Path, with_index: bool) -> None:
    cluster = Cluster(tmp_path / "data", "--workers", "1")
    clusters.append(cluster)
    before = {cluster.upload(content): content for content in photos(5, 1)}
    assert cluster.stop() == 0
    made = tmp_path / "4000.vol"
    with Volume.create(made, 4000) as volume:
        for key in range(10_001, 10_020):
            volume.put(key, 7, b"photo %d" % key)
    shutil.copy(made, tmp_path / "data/store1/4000.vol")
    if with_index:
        for path in index_files(made):
            shutil.copy(path, tmp_path / "data/store1" / path.name)
    cluster = Cluster(tmp_path / "data", "--workers", "1")
    clusters.append(cluster)
    for key in range(10_001, 10_020):
        assert cluster.read(f"4000,{key:x}{7:016x}") == b"photo %d" % key
    assert {fid: cluster.read(fid) for fid in before} == before
    cluster.until(lambda status: status["Counts"]["photos"] == 24)
    shown = cluster.run("volume", "show", "4000")
    assert shown["liveCount"] == 19
