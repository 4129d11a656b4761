"""`status` and `volume …` against a Directory and a Store that answer as the design says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fake_cluster import FakeCluster, node_document

from haystack.volume import Volume
from tools import cli

Capture = pytest.CaptureFixture[str]


class TestStatus:
    def test_well(self, cluster: FakeCluster, capsys: Capture) -> None:
        assert cli.run(["status"]) == 0
        out, err = capsys.readouterr()
        assert out.startswith(
            "The cluster is well: 2 of 2 Stores alive, 3 volumes (3 writable, all with all their copies), 4,321 photos."
            "\n\nSTORE "
        )
        assert re.search(r"127.0.0.1:8081\s+alive\s+dc1\s+r1\s+2\s+1\s+512 GiB\s+1.00 TiB\s+1.5\s+now\s+0.1.0\n", out)
        assert "Directory haystack 0.1.0, cluster cluster-1" in out
        assert err == ""

    def test_not_well(self, cluster: FakeCluster, capsys: Capture) -> None:
        cluster.status["Problems"] = ["volume 7: Store id-9 does not have it any more"]
        cluster.nodes[1] = node_document(2, state="dead", lastSeenSecondsAgo=300.0)
        assert cli.run(["status"]) == 1
        out, _ = capsys.readouterr()
        assert out.startswith("Photos cannot be read: ")
        assert "  - volume 7: Store id-9 does not have it any more\n" in out
        assert "What to do:\n  1. Start 127.0.0.1:8081 again: nothing else has all photos of volumes 2, 10.\n" in out

    def test_json(self, cluster: FakeCluster, capsys: Capture) -> None:
        assert cli.run(["status", "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["ok"] is True
        assert document["health"] == "well"
        assert document["problems"] == []
        assert document["Counts"]["photos"] == 4321
        assert len(document["nodes"]) == 2
        assert document["repair"]["settled"] is True

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            ({"Stores": []}, "no Store has registered"),
            ({"storesAlive": 0, "volumesWritable": 0}, "no Store is alive"),
            ({"volumesWritable": 0}, "no volume takes new photos"),
        ],
    )
    def test_what_stops_uploads_is_a_problem(
        self, cluster: FakeCluster, capsys: Capture, change: dict[str, Any], problem: str
    ) -> None:
        if "Stores" in change:
            cluster.status.update(change)
        else:
            cluster.status["Counts"].update(change)
        assert cli.run(["status"]) == 1
        assert f"  - {problem}" in capsys.readouterr().out

    def test_a_directory_that_is_not_there(self, cluster: FakeCluster, capsys: Capture, free_port: int) -> None:
        assert cli.run(["status", "--directory", f"http://127.0.0.1:{free_port}"]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert f"http://127.0.0.1:{free_port}/dir/status: cannot connect: Connection refused" in err
        assert "Is the cluster running" in err

    def test_the_next_directory_is_asked(self, cluster: FakeCluster, free_port: int) -> None:
        assert cli.run(["status", "--directory", f"http://127.0.0.1:{free_port},{cluster.url}"]) == 0

    def test_another_server(self, cluster: FakeCluster, capsys: Capture) -> None:
        cluster.status = {"Version": "3.80", "Topology": {}}
        assert cli.run(["status"]) == 1
        assert "not understood (KeyError: 'ClusterId')" in capsys.readouterr().err


class TestVolumeList:
    def test_text(self, cluster: FakeCluster, capsys: Capture) -> None:
        assert cli.run(["volume", "list"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].split() == [
            *("VOLUME", "STATE", "COPIES", "STORES", "PHOTOS", "SIZE", "OF", "DELETED", "READS", "WRITES")
        ]
        assert [line.split()[0] for line in lines[1:]] == ["1", "2", "10"]
        assert "127.0.0.1:8081" in lines[2]

    def test_json(self, cluster: FakeCluster, capsys: Capture) -> None:
        assert cli.run(["volume", "list", "--json"]) == 0
        assert [one["volume"] for one in json.loads(capsys.readouterr().out)["volumes"]] == [1, 2, 10]


class TestVolumeShow:
    def test_text_and_json(self, cluster: FakeCluster, capsys: Capture) -> None:
        assert cli.run(["volume", "show", "10"]) == 0
        out, _ = capsys.readouterr()
        assert out.startswith("Volume 10\n  state         readonly\n")
        assert "As Store 127.0.0.1:8081 says\n" in out
        assert "2023-11-14T22:13:20+00:00" in out
        assert cli.run(["volume", "show", "10", "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["copies"]["127.0.0.1:8081"]["bytesRead"] == 77

    def test_without_the_secret_the_directory_is_heard(
        self, cluster: FakeCluster, capsys: Capture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("HAYSTACK_SECRET_FILE")
        assert cli.run(["volume", "show", "1"]) == 0
        assert "this needs the cluster's secret" in capsys.readouterr().out

    def test_unknown_and_malformed(self, cluster: FakeCluster, capsys: Capture) -> None:
        assert cli.run(["volume", "show", "99"]) == 1
        assert "volume 99 is not known" in capsys.readouterr().err
        assert cli.run(["volume", "show", "0"]) == 2
        assert cli.run(["volume", "show", "x"]) == 2


class TestVolumeGrow:
    def test_the_plan_changes_nothing(self, cluster: FakeCluster, capsys: Capture) -> None:
        assert cli.run(["volume", "grow", "--count", "2"]) == 0
        out, err = capsys.readouterr()
        assert out == "Plan: 2 more writable volumes on 2 Stores: 3 now, 5 then.\n"
        assert "Nothing was changed; give --apply" in err
        assert cluster.calls == ["GET /dir/status"]

    def test_apply(self, cluster: FakeCluster, capsys: Capture) -> None:
        assert cli.run(["volume", "grow", "--count", "2", "--apply"]) == 0
        assert "Made 2: 8, 9\n" in capsys.readouterr().out
        assert cluster.calls == ["GET /dir/status", "POST /vol/grow?count=2"]

    def test_json(self, cluster: FakeCluster, capsys: Capture) -> None:
        assert cli.run(["volume", "grow", "--json"]) == 0
        plan = {"count": 1, "replication": None, "writableNow": 3, "writableThen": 4, "storesAlive": 2}
        assert json.loads(capsys.readouterr().out) == {"plan": plan, "applied": False}
        assert cli.run(["volume", "grow", "--count", "2", "--apply", "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert (document["applied"], document["volumes"]) == (True, [8, 9])

    def test_of_a_replication(self, cluster: FakeCluster, capsys: Capture) -> None:
        assert cli.run(["volume", "grow", "--replication", "011", "--apply"]) == 0
        assert capsys.readouterr().out.startswith("Plan: 1 more writable volume of replication 011 on 2 Stores")
        assert cluster.calls[1:] == ["POST /vol/grow?count=1&replication=011"]
        assert cli.run(["volume", "grow", "--replication", "11"]) == 2
        assert "'11': not three digits" in capsys.readouterr().err

    def test_fewer_than_asked_for(self, cluster: FakeCluster, capsys: Capture) -> None:
        cluster.grow_answer = (200, {"count": 1, "volumes": [8], "reason": "3 were asked for: the disks are full"})
        assert cli.run(["volume", "grow", "--count", "3", "--apply"]) == 1
        assert "the disks are full" in capsys.readouterr().err

    def test_refused(self, cluster: FakeCluster, capsys: Capture) -> None:
        cluster.grow_answer = (503, {"error": "no volume could be made: no Store is alive"})
        assert cli.run(["volume", "grow", "--apply"]) == 1
        assert "no Store is alive" in capsys.readouterr().err

    @pytest.mark.parametrize("count", ["0", "101", "x", "-1"])
    def test_wrong_counts(self, cluster: FakeCluster, count: str) -> None:
        assert cli.run(["volume", "grow", "--count", count]) == 2


class TestVolumeCheckByStores:
    def test_all(self, cluster: FakeCluster, capsys: Capture) -> None:
        assert cli.run(["volume", "check"]) == 0
        out, _ = capsys.readouterr()
        assert "volume 10 on 127.0.0.1:8081: ok, 3 needles, 1 deletes, 100 B" in out
        assert out.endswith("3 of 3 ok.\n")
        assert cluster.calls[1:] == [f"POST /admin/volumes/{number}/check" for number in (1, 2, 10)]

    def test_problems(self, cluster: FakeCluster, capsys: Capture) -> None:
        cluster.reports[2] = {
            "ok": False,
            "full": True,
            "sizeBytes": 9,
            "needles": 1,
            "tombstones": 0,
            "problemCount": 1200,
            "problems": ["damage at 4096"],
        }
        assert cli.run(["volume", "check", "2", "1", "--full"]) == 1
        out, _ = capsys.readouterr()
        assert "volume 2 on 127.0.0.1:8081: PROBLEMS" in out
        assert "  - damage at 4096\n  - and 1,199 more\n" in out
        assert out.endswith("1 of 2 ok.\n")
        assert cli.run(["volume", "check", "2", "--json"]) == 1
        document = json.loads(capsys.readouterr().out)
        assert document["ok"] is False
        assert document["checked"][0]["report"]["problems"] == ["damage at 4096"]

    def test_a_wrong_secret_is_told(
        self, cluster: FakeCluster, capsys: Capture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("HAYSTACK_SECRET_FILE")
        monkeypatch.setenv("HAYSTACK_SECRET", "x" * 64)
        assert cli.run(["volume", "check", "1"]) == 1
        assert "could not be checked" in capsys.readouterr().out

    def test_no_secret_is_told(self, cluster: FakeCluster, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("HAYSTACK_SECRET_FILE")
        assert cli.run(["volume", "check", "1"]) == 1
        assert "give --secret-file FILE" in capsys.readouterr().out

    def test_a_cluster_without_secret_needs_none(self, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("HAYSTACK_SECRET_FILE")
        monkeypatch.setattr(cluster, "open", True)
        assert cli.run(["volume", "check", "1"]) == 0


class TestVolumeCheckOfFiles:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "data" / "store1"
        folder.mkdir(parents=True)
        for number in (9, 10):
            with Volume.create(folder / f"{number}.vol", number) as volume:
                for key in range(3):
                    volume.put(key=key + 1, cookie=7, data=b"photo" * 100)
        return folder

    def test_folder_file_and_cluster_folder(self, folder: Path, capsys: Capture) -> None:
        assert cli.run(["volume", "check", "--full", str(folder)]) == 0
        out, _ = capsys.readouterr()
        assert [Path(line.partition(":")[0]).name for line in out.splitlines()[:2]] == ["9.vol", "10.vol"]
        assert out.endswith("2 of 2 ok.\n")
        assert cli.run(["volume", "check", str(folder / "9.vol")]) == 0
        assert capsys.readouterr().out.endswith("1 of 1 ok.\n")
        assert cli.run(["volume", "check", "--json", str(folder.parent)]) == 0
        document = json.loads(capsys.readouterr().out)
        assert [one["report"]["needles"] for one in document["checked"]] == [3, 3]

    def test_damage_is_found_and_nothing_is_changed(self, folder: Path, capsys: Capture) -> None:
        path = folder / "9.vol"
        content = bytearray(path.read_bytes())
        content[content.index(b"photo") + 3] ^= 1
        path.write_bytes(content)
        before = {one.name: one.read_bytes() for one in folder.iterdir() if one.suffix == ".vol"}
        assert cli.run(["volume", "check", "--full", str(folder)]) == 1
        out, _ = capsys.readouterr()
        assert "9.vol: PROBLEMS" in out
        assert "10.vol: ok" in out
        assert {one.name: one.read_bytes() for one in folder.iterdir() if one.suffix == ".vol"} == before

    def test_what_is_no_volume(self, tmp_path: Path, capsys: Capture) -> None:
        (tmp_path / "cat.jpg").write_bytes(b"jpeg" * 4000)
        assert cli.run(["volume", "check", str(tmp_path / "cat.jpg")]) == 1
        assert "not a Haystack volume" in capsys.readouterr().out
        assert cli.run(["volume", "check", str(tmp_path)]) == 2
        assert "no volume file (*.vol)" in capsys.readouterr().err
        assert cli.run(["volume", "check", str(tmp_path / "nowhere")]) == 2
        assert "no such file or folder" in capsys.readouterr().err
