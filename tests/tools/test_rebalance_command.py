"""`haystack rebalance`: the plan, carrying it out, stopping, and what was decided."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from fake_cluster import FakeCluster

from tools import cli


def machine(number: int, before: float, after: float) -> dict[str, Any]:
    return {
        "storeId": f"id-{number}",
        "url": f"10.0.0.{number}:8080",
        "loadBefore": before * 100,
        "loadAfter": after * 100,
        "levelBefore": before,
        "levelAfter": after,
        "fillBefore": 0.5,
        "fillAfter": 0.51,
    }


STEP = {
    "kind": "move",
    "volume": 7,
    "otherVolume": None,
    "source": "id-1",
    "sourceUrl": "10.0.0.1:8080",
    "target": "id-2",
    "targetUrl": "10.0.0.2:8080",
    "bytes": 3 * 2**20,
    "weights": {},
    "otherWeights": {},
    "reason": "it is hot\x1b[31m",
    "gain": 50.0,
    "worstBefore": 1.5,
    "worstAfter": 1.04,
}
PLAN: dict[str, Any] = {
    "applied": False,
    "reason": "",
    "meanLoad": 100.0,
    "worstBefore": 1.5,
    "worstAfter": 1.04,
    "fullestBefore": 0.5,
    "fullestAfter": 0.5,
    "bytes": 3 * 2**20,
    "leastBytes": 2 * 2**20,
    "machines": [machine(1, 1.5, 1.04), machine(2, 0.5, 0.96)],
    "counts": {"move": 1},
    "steps": [STEP],
    "run": None,
    "automatic": "nothing is rebalanced by itself: rebalance_auto is off",
}


def run(**changes: Any) -> dict[str, Any]:
    steps = {"waiting": 0, "running": 0, "done": 1, "failed": 0, "skipped": 0}
    return {
        "by": "operator",
        "startedMs": 1,
        "finishedMs": 2,
        "stopped": False,
        "steps": steps | changes.pop("steps", {}),
        "copiedBytes": 3 * 2**20,
        "totalBytes": 3 * 2**20,
        "leastBytes": 2 * 2**20,
        "errors": [],
        **changes,
    }


class RebalanceCluster(FakeCluster):
    """Answers what ``haystack rebalance`` asks."""

    def __init__(self) -> None:
        super().__init__()
        self.plan: Any = PLAN
        self.runs: list[Any] = []
        self.orders: list[Any] = []

    def routes(self, app: web.Application) -> None:
        app.router.add_post("/cluster/rebalance", self._order)
        app.router.add_get("/cluster/rebalance", self._state)
        app.router.add_post("/cluster/rebalance/stop", self._stop)
        app.router.add_get("/cluster/decisions", self._decisions)

    async def _order(self, request: web.Request) -> web.Response:
        self.orders.append(await request.json())
        applied = not self.orders[-1]["dryRun"]
        steps = bool(self.plan.get("steps"))
        document = {**self.plan, "applied": applied, "run": run(finishedMs=None) if applied and steps else None}
        return web.json_response(document)

    async def _state(self, request: web.Request) -> web.Response:
        one = self.runs.pop(0) if len(self.runs) > 1 else self.runs[0]
        return web.json_response({"run": one})

    async def _stop(self, request: web.Request) -> web.Response:
        return web.json_response({"stopped": bool(self.runs)})

    async def _decisions(self, request: web.Request) -> web.Response:
        one = {"timeMs": 1_000, "by": "rebalance", "what": "volume 7: moves", "why": "it is hot", "volume": 7}
        return web.json_response({"decisions": [one] if self.runs else []})


@pytest.fixture(scope="module")
def server() -> Iterator[RebalanceCluster]:
    server = RebalanceCluster()
    server.start()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def fresh(cluster: RebalanceCluster) -> None:
    cluster.plan, cluster.runs, cluster.orders = PLAN, [run()], []


def test_the_plan_with_bars_and_bytes(cluster: RebalanceCluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["rebalance"]) == 0
    out, err = capsys.readouterr()
    assert cluster.orders == [{"dryRun": True}] and "--apply" in err
    lines = out.splitlines()
    assert lines[1].split()[:4] == ["10.0.0.1:8080", "150.0", "1.50", "█" * 20]
    step = next(line for line in lines if line.startswith("1."))
    assert step.split()[:7] == ["1.", "move", "7", "10.0.0.1:8080", "10.0.0.2:8080", "3.00", "MiB"]
    assert "\x1b" not in out and "1 move: the busiest Store has 1.50 times the mean load, then 1.04" in out
    assert "3.00 MiB are to be copied; no plan could do with less than 2.00 MiB" in out
    assert "rebalance_auto is off." in out


def test_it_is_carried_out(cluster: RebalanceCluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.runs = [run(finishedMs=None, steps={"done": 0, "running": 1}), run()]
    assert cli.run(["rebalance", "--apply"]) == 0
    assert cluster.orders == [{"dryRun": False}]
    assert "1 steps done, 3.00 MiB copied." in capsys.readouterr().out


def test_a_step_that_failed_is_told(cluster: RebalanceCluster, capsys: pytest.CaptureFixture[str]) -> None:
    error = {"volume": 7, "kind": "move", "error": "Store 10.0.0.2:8080 is silent"}
    cluster.runs = [run(stopped=True, steps={"done": 0, "failed": 1, "skipped": 2}, errors=[error])]
    assert cli.run(["rebalance", "--apply"]) == 1
    out, err = capsys.readouterr()
    assert "2 steps were not begun" in out and "volume 7: Store 10.0.0.2:8080 is silent" in err


def test_nothing_to_do(cluster: RebalanceCluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.plan = {**PLAN, "steps": [], "counts": {}, "reason": "the busiest Store has 1.04 times the mean load"}
    for arguments in (["rebalance"], ["rebalance", "--apply"]):
        assert cli.run(arguments) == 0
        out, err = capsys.readouterr()
        assert "Nothing is to be done: the busiest Store has 1.04 times the mean load." in out
        assert "--apply" not in err


def test_json(cluster: RebalanceCluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--json", "rebalance"]) == 0
    assert json.loads(capsys.readouterr().out) == PLAN
    assert cli.run(["--json", "rebalance", "--apply"]) == 0
    assert json.loads(capsys.readouterr().out)["run"]["steps"]["done"] == 1


def test_stop_and_log(cluster: RebalanceCluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["rebalance", "--stop"]) == 0
    assert "No more steps are begun" in capsys.readouterr().out
    assert cli.run(["rebalance", "--log"]) == 0
    assert "volume 7: moves" in capsys.readouterr().out
    cluster.runs = []
    assert cli.run(["rebalance", "--stop"]) == cli.run(["rebalance", "--log"]) == 0
    out = capsys.readouterr().out
    assert "No rebalance is under way." in out and "Nothing was decided" in out
    assert cli.run(["rebalance", "--stop", "--apply"]) == 2


@pytest.mark.parametrize("wrong", [{}, {**PLAN, "machines": [{}]}, {**PLAN, "steps": 5}])
def test_an_answer_of_something_else(cluster: RebalanceCluster, capsys: pytest.CaptureFixture[str], wrong: Any) -> None:
    cluster.plan = wrong
    assert cli.run(["rebalance"]) == 1
    assert "same release" in capsys.readouterr().err
