"""`haystack volume check --repair`: the plan, and what it mends on running Stores and in files."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_replicated_cluster import ReplicatedCluster
from transfer_cluster import Role

from haystack.client import SyncHaystackClient
from haystack.volume import Volume, check_volume
from haystack.volume.index import NeedleIndex
from haystack.volume.index_records import IndexEntry
from tools import cli
from tools.check import Checked
from tools.volume_repair import Action, make_plan


def report(**changes: Any) -> dict[str, Any]:
    return {"ok": False, "problems": ["something"], "damage": [], "indexProblems": 0, **changes}


class TestPlan:
    def test_what_can_be_done(self) -> None:
        damaged = report(damage=[[64, 1024], [9000, 1024]], indexProblems=1)
        plan = make_plan(
            [
                Checked("sound", {"ok": True}, copy=(1, "a")),
                Checked("two copies", damaged, copy=(1, "a")),
                Checked("one copy", damaged, copy=(2, "a")),
                Checked("index", report(indexProblems=3), copy=(2, "a")),
                Checked("file", report(indexProblems=1), path=Path("1.vol")),
                Checked("damaged file", damaged, path=Path("1.vol")),
                Checked("silent", {}, "no answer", copy=(1, "b")),
                Checked("no volume", report()),
            ],
            {1: 2, 2: 1},
        )
        assert [(step.checked.name, step.action) for step in plan.steps] == [
            ("two copies", Action.MEND),
            ("index", Action.INDEX),
            ("file", Action.INDEX),
        ]
        assert plan.steps[0].words == "two copies: mend 2.00 KiB in 2 places from another copy"
        assert [words.partition(":")[0] for words in plan.hopeless] == [
            "one copy",
            "damaged file",
            "silent",
            "no volume",
        ]
        assert "unless a backup has them" in plan.hopeless[0]


class QuietCluster(ReplicatedCluster):
    """Its Stores mend nothing by themselves."""

    def add_store(self, number: int) -> Role:
        arguments = ("--data", str(self.folder / f"store{number}"), "--rack", f"rack{number}", "--workers", "1")
        return Role("store", *arguments, "--admin-port", "0", "--scrub-bytes-per-second", "0", environ=self.environ)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuietCluster]:
    running = QuietCluster(tmp_path_factory.mktemp("quiet"))
    yield running
    running.stop()


def test_damage_is_mended_from_another_copy(cluster: QuietCluster) -> None:
    with SyncHaystackClient(cluster.directory.ready.url) as client:
        fid = client.upload(b"a photo" * 1000).fid
        number = int(fid.partition(",")[0])
        cluster.until_well()  # only a copy in sync may mend another
        path = sorted(cluster.folder.glob(f"store*/{number}.vol"))[0]
        with path.open("r+b") as file:
            file.seek(64 + 200)
            file.write(b"X")
        planned = cluster.json("volume", "check", str(number), "--full", "--repair", code=1)
        assert [step["action"] for step in planned["repair"]["steps"]] == ["mend"]
        assert planned["applied"] is False
        assert not check_volume(path, full=True, index=None).ok
        cluster.until(lambda counts: not counts["volumesDegraded"])
        done = cluster.json("volume", "check", str(number), "--full", "--repair", "--apply")
        assert done["ok"] and done["applied"]
        assert cluster.json("volume", "check", str(number), "--full")["ok"]
        assert client.read(fid) == b"a photo" * 1000


def test_an_index_is_made_anew_while_the_store_runs(cluster: QuietCluster) -> None:
    with SyncHaystackClient(cluster.directory.ready.url) as client:
        fid = client.upload(b"another photo").fid
        number = int(fid.partition(",")[0])
        path = sorted(cluster.folder.glob(f"store*/{number}.vol"))[0]
        index = NeedleIndex(path.with_suffix(".idx"))
        with index.write() as writer:
            writer._put(0xABC, 0, IndexEntry(64, 500, 0, 0))
        index.close()
        assert "photo abc" in cluster.run("volume", "check", str(number), code=1).stdout.decode()
        done = cluster.run("volume", "check", str(number), "--repair", "--apply").stdout.decode()
        assert "make its index anew from the volume" in done
        assert client.read(fid) == b"another photo"


class TestFiles:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        with Volume.create(tmp_path / "7.vol", 7) as volume:
            for key in range(1, 6):
                volume.put(key, key, b"photo" * 100)
        return tmp_path / "7.vol"

    def test_an_index_is_made_anew(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path.with_suffix(".idx").write_bytes(b"no index" * 1000)
        assert cli.run(["volume", "check", str(path), "--repair"]) == 1
        assert "make its index anew" in capsys.readouterr().out
        assert cli.run(["volume", "check", str(path), "--repair", "--apply", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["checked"][0]["report"]["needles"] == 5
        with Volume.open(path) as volume:
            assert volume.get(5, 5).data == b"photo" * 100

    def test_a_torn_tail_is_cut(self, path: Path) -> None:
        with path.open("ab") as file:
            file.write(b"NEDL torn")
        assert cli.run(["volume", "check", str(path)]) == 1
        assert cli.run(["volume", "check", str(path), "--repair", "--apply"]) == 0
        assert len(list(path.parent.glob("7.torn-*"))) == 1

    def test_damage_is_reported_and_left(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        before = path.read_bytes()
        path.write_bytes(before[:200] + b"X" + before[201:])
        after = path.read_bytes()
        assert cli.run(["volume", "check", str(path), "--full", "--repair", "--apply"]) == 1
        assert "if there are other copies, it mends this" in capsys.readouterr().err
        assert path.read_bytes() == after

    def test_a_volume_in_use_is_left_alone(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path.with_suffix(".idx").write_bytes(b"no index" * 1000)
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            assert cli.run(["volume", "check", str(path), "--repair", "--apply"]) == 1
        assert "another process has it open" in capsys.readouterr().err

    def test_usage(self, path: Path) -> None:
        assert cli.run(["volume", "check", str(path), "--apply"]) == 2
