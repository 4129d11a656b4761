"""`node …` and `repair` against a Directory that answers as its API says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fake_cluster import FakeCluster, node_document, repair_document

from haystack.errors import InvalidRequest
from tools import cli, waiting
from tools.nodes import find_node, parse_nodes

Capture = pytest.CaptureFixture[str]


def drain_document(volumes: int, size_bytes: int, *blocked: tuple[int, str]) -> dict[str, Any]:
    return {
        "volumesLeft": volumes,
        "bytesLeft": size_bytes,
        "blocked": [{"volume": volume, "reason": reason} for volume, reason in blocked],
        "done": not volumes,
    }


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(waiting, "STUCK_SECONDS", 0.01)
    monkeypatch.setattr(waiting, "PATIENCE_SECONDS", 0.05)


class TestNames:
    def nodes(self, *documents: dict[str, Any]) -> Any:
        return parse_nodes({"nodes": list(documents)})

    @pytest.mark.parametrize("name", ["127.0.0.1:8081", "http://127.0.0.1:8081/", "id-2", " ID-2 "])
    def test_a_store_has_several_names(self, name: str) -> None:
        assert find_node(self.nodes(node_document(1), node_document(2)), name).store_id == "id-2"

    def test_wrong_names(self) -> None:
        nodes = self.nodes(node_document(1), node_document(2))
        with pytest.raises(InvalidRequest, match=r"no Store 'x'; known: 127.0.0.1:8080, 127.0.0.1:8081"):
            find_node(nodes, "x")
        with pytest.raises(InvalidRequest, match="none has ever registered"):
            find_node((), "x")
        twins = self.nodes(node_document(1, storeId="abcd-1"), node_document(2, storeId="abcd-2"))
        with pytest.raises(InvalidRequest, match="may be abcd-1 or abcd-2; give the whole id"):
            find_node(twins, "abcd")

    def test_a_new_store_at_an_old_address_is_meant(self) -> None:
        old = node_document(1, storeId="old-1", state="dead")
        new = node_document(1, storeId="new-1")
        assert find_node(self.nodes(old, new), "127.0.0.1:8080").store_id == "new-1"


class TestLook:
    def test_list(self, cluster: FakeCluster, capsys: Capture) -> None:
        cluster.nodes = [
            node_document(1, mark="readonly", onlyCopies=[1, 2]),
            node_document(2, state="dead", lastSeenSecondsAgo=7300.0),
            node_document(3, state="unknown", lastSeenSecondsAgo=None),
        ]
        assert cli.run(["node", "list"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[1].split()[:8] == ["127.0.0.1:8080", "alive", "readonly", "dc1", "r1", "2", "1", "2"]
        assert lines[1].endswith("512 GiB  1.00 TiB  now")
        assert lines[2].endswith("2.0 h ago")
        assert lines[3].endswith("not since the Directory started")
        assert cli.run(["node", "list", "--json"]) == 0
        assert len(json.loads(capsys.readouterr().out)["nodes"]) == 3

    def test_show(self, cluster: FakeCluster, capsys: Capture) -> None:
        drain = drain_document(3, 2**30, (7, "there is no other rack with room"))
        cluster.nodes[0] = node_document(1, drain=drain, mark="draining", onlyCopies=list(range(1, 31)), stale=1)
        assert cli.run(["node", "show", "127.0.0.1:8080"]) == 0
        out, _ = capsys.readouterr()
        assert "  volumes       2, leads 1, 1 not up to date\n" in out
        assert "19, 20 and 10 more\n" in out
        assert "  disk          /mnt/disk1: ok, 2 volumes, 512 GiB free of 1.00 TiB\n" in out
        assert "  draining      3 volumes, 1.00 GiB left\n" in out
        assert "volume 7 cannot leave: there is no other rack with room" in out
        assert cli.run(["node", "show", "127.0.0.1:9999"]) == 1
        assert "there is no Store '127.0.0.1:9999'" in capsys.readouterr().err

    def test_another_release(self, cluster: FakeCluster, capsys: Capture) -> None:
        cluster.nodes = [{"storeId": "x"}]
        assert cli.run(["node", "list"]) == 1
        assert "/cluster/nodes: the answer is not understood" in capsys.readouterr().err


class TestMarks:
    @pytest.mark.parametrize(
        ("arguments", "request_document"),
        [
            (["drain"], {"mark": "draining", "folder": None}),
            (["drain", "--folder", "/mnt/disk2/"], {"mark": "draining", "folder": "folder-2"}),
            (["undrain"], {"mark": "none", "folder": None}),
            (["maintenance"], {"mark": "maintenance", "folder": None}),
            (["maintenance", "--off"], {"mark": "none", "folder": None}),
            (["readonly"], {"mark": "readonly", "folder": None}),
            (["remove"], {"mark": "removed", "folder": None}),
            (["remove", "--accept-loss"], {"mark": "removed", "folder": None, "acceptLoss": True}),
        ],
    )
    def test_the_plan_first(
        self, cluster: FakeCluster, capsys: Capture, arguments: list[str], request_document: dict[str, Any]
    ) -> None:
        command, *options = arguments
        assert cli.run(["node", command, "127.0.0.1:8081", *options]) == 0
        out, err = capsys.readouterr()
        assert "127.0.0.1:8081" in out.splitlines()[0]
        assert out.endswith(":\n  1. stop new photos\n  2. copy 2 volumes elsewhere\n")
        assert err == "Nothing was changed; give --apply to do it.\n"
        assert cli.run(["node", command, "127.0.0.1:8081", *options, "--apply", "--json"]) == 0
        out, err = capsys.readouterr()
        document = json.loads(out)
        assert (document["url"], document["applied"]) == ("127.0.0.1:8081", True)
        assert document["plan"] == ["stop new photos", "copy 2 volumes elsewhere"]
        assert err.startswith("Done.\n")
        assert cluster.marks == [
            ("id-2", {**request_document, "dryRun": True}),
            ("id-2", {**request_document, "dryRun": False}),
        ]

    def test_refusals(self, cluster: FakeCluster, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
        cluster.mark_answer = (409, {"error": "Store 127.0.0.1:8081 is alive; drain it, or stop it first"})
        assert cli.run(["node", "remove", "127.0.0.1:8081", "--apply"]) == 1
        assert "is alive; drain it" in capsys.readouterr().err
        assert cli.run(["node", "drain", "127.0.0.1:8081", "--folder", "/nowhere"]) == 1
        assert "has no data folder '/nowhere'; it has /mnt/disk2" in capsys.readouterr().err
        monkeypatch.delenv("HAYSTACK_SECRET_FILE")
        assert cli.run(["node", "drain", "127.0.0.1:8081"]) == 2
        assert "give --secret-file FILE" in capsys.readouterr().err

    def test_nothing_to_do_and_loss(self, cluster: FakeCluster, capsys: Capture) -> None:
        cluster.mark_answer = (200, {"steps": [], "lost": [4, 5]})
        assert cli.run(["node", "remove", "127.0.0.1:8081"]) == 0
        out, err = capsys.readouterr()
        assert out == "Remove 127.0.0.1:8081 for good: nothing to do, it is so already.\n"
        assert "no copy would be left of volumes 4, 5" in err


class TestDrainWaits:
    def test_until_it_is_empty(self, cluster: FakeCluster, capsys: Capture) -> None:
        cluster.node_answers = [cluster.nodes] + [
            [node_document(2, mark="draining", drain=drain_document(left, left * 100))] for left in (2, 1, 1, 0)
        ]
        assert cli.run(["node", "drain", "127.0.0.1:8081", "--apply", "--wait"]) == 0
        assert capsys.readouterr().out.endswith("It is empty: stop it, then remove it.\n")

    def test_until_nothing_moves(self, cluster: FakeCluster, capsys: Capture) -> None:
        drain = drain_document(1, 100, (9, "no other Store of the rack has room"))
        cluster.nodes[1] = node_document(2, mark="draining", drain=drain)
        assert cli.run(["node", "drain", "127.0.0.1:8081", "--apply", "--wait", "--json"]) == 1
        out, err = capsys.readouterr()
        assert json.loads(out)["drain"]["blocked"] == [{"volume": 9, "reason": "no other Store of the rack has room"}]
        assert "volume 9: no other Store of the rack has room" in err

    def test_until_somebody_ends_it(self, cluster: FakeCluster, capsys: Capture) -> None:
        assert cli.run(["node", "drain", "127.0.0.1:8081", "--apply", "--wait"]) == 1
        assert "It is not being drained any more." in capsys.readouterr().err


DEGRADED = {
    "volume": 3,
    "replication": "011",
    "promised": 3,
    "inSync": ["id-1", "id-2"],
    "stale": [],
    "degradedSinceMs": 1,
    "copyInSeconds": 312.0,
    "reason": "",
}
RUNNING = {
    "volume": 4,
    "action": "copy",
    "target": "id-2",
    "source": "id-1",
    "copiedBytes": 2**29,
    "totalBytes": 2**30,
    "startedMs": 1,
    "error": "",
}


class TestRepair:
    def test_nothing_to_do(self, cluster: FakeCluster, capsys: Capture) -> None:
        assert cli.run(["repair"]) == 0
        assert capsys.readouterr() == ("All volumes have all their copies.\n", "")

    def test_what_is_done(self, cluster: FakeCluster, capsys: Capture) -> None:
        stale = {**DEGRADED, "volume": 5, "inSync": ["id-1"], "stale": ["id-9"], "copyInSeconds": None}
        step = {"action": "rejoin", "volume": 5, "target": "id-9", "source": "id-1", "bytes": 2048}
        other = {
            "action": "giveUp",
            "volume": 6,
            "target": "id-1",
            "source": None,
            "bytes": 0,
            "reason": "one too many",
        }
        degraded = [DEGRADED, {**DEGRADED, "volume": 4}, stale]
        cluster.repair = repair_document(degraded=degraded, running=[RUNNING], steps=[step, other])
        assert cli.run(["repair"]) == 0
        out, err = capsys.readouterr()
        assert out.splitlines() == [
            "Volume 3: 2 of 3 copies (127.0.0.1:8080, 127.0.0.1:8081); another one is made in 5 min",
            "Volume 4: 2 of 3 copies (127.0.0.1:8080, 127.0.0.1:8081); being repaired",
            "Volume 5: 1 of 3 copies (127.0.0.1:8080); not up to date: id-9; its turn comes",
            "Now: volume 4: copy to 127.0.0.1:8081 from 127.0.0.1:8080: 50% of 1.00 GiB",
            "Next: volume 5: bring the copy on id-9 up to date, 2.00 KiB",
            "Next: volume 6: give up the copy on 127.0.0.1:8080, one too many",
        ]
        assert err == "Nothing was changed; give --apply not to wait for Stores that are away.\n"

    def test_apply(self, cluster: FakeCluster, capsys: Capture) -> None:
        cluster.repair = repair_document(degraded=[DEGRADED])
        assert cli.run(["repair", "--apply", "--volume", "3", "--volume", "4"]) == 0
        assert cluster.marks == [("repair", {"volumes": [3, 4]})]
        assert cli.run(["repair", "--apply", "--json"]) == 0
        assert cluster.marks[1:] == [("repair", {"volumes": None})]
        document = json.loads(capsys.readouterr().out.partition("\n{")[2].join(["{", ""]))
        assert document["applied"] is True

    def test_wait(self, cluster: FakeCluster, capsys: Capture) -> None:
        cluster.repair_answers = [
            repair_document(degraded=[DEGRADED]),
            repair_document(degraded=[DEGRADED], running=[RUNNING]),
            repair_document(settled=False, recent=[{**RUNNING, "ok": True, "bytes": 2**30, "finishedMs": 5}]),
        ]
        assert cli.run(["repair", "--wait"]) == 0
        out = capsys.readouterr().out
        assert "All volumes have all their copies. 1 copy was made or mended in " in out
        assert out.endswith(": 1.00 GiB.\n")

    def test_what_cannot_be_repaired(self, cluster: FakeCluster, capsys: Capture) -> None:
        blocked = [{"volume": 3, "reason": "no Store in another rack has room"}]
        cluster.repair = repair_document(degraded=[DEGRADED], blocked=blocked, settled=False, waitingFor=["id-2"])
        assert cli.run(["repair", "--wait"]) == 1
        out, err = capsys.readouterr()
        assert "waits for Stores to report: 127.0.0.1:8081. Nothing is given up yet." in out
        assert "Cannot be repaired: volume 3: no Store in another rack has room" in out
        assert "haystack: volume 3: no Store in another rack has room" in err
