"""`haystack heat`: tables with bars, or the Directory's document."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from fake_cluster import FakeCluster
from hypothesis import given
from hypothesis import strategies as st

from tools import cli
from tools.bars import bar


def windows(reads: float, size_bytes: float = 0.0) -> dict[str, Any]:
    rates = {"bytesPerSecond": size_bytes, "busySecondsPerSecond": reads / 10_000}
    return {
        name: {"readsPerSecond": reads * factor, **rates} for name, factor in (("1m", 1.5), ("10m", 1.0), ("1h", 0.5))
    }


def machine(number: int, load: float, state: str = "alive") -> dict[str, Any]:
    return {
        "storeId": f"id-{number}",
        "url": f"127.0.0.1:808{number}",
        "dataCenter": "dc1",
        "rack": f"r{number}",
        "state": state,
        "knownSeconds": 60.0,
        "load": load,
        "heat": windows(load, 65536.0),
    }


def copy(number: int, load: float, weight: float) -> dict[str, Any]:
    return {"storeId": f"id-{number}", "url": f"127.0.0.1:808{number}", "load": load, "weight": weight}


DOCUMENT: dict[str, Any] = {
    "windowsSeconds": [60, 600, 3600],
    "loadBytes": 65536,
    "total": windows(400),
    "machines": [machine(1, 300), machine(2, 100), machine(3, 0, "dead")],
    "volumes": [
        {
            "volume": 7,
            "load": 250.0,
            "heat": windows(240, 2**20),
            "sizeBytes": 3 * 2**30,
            "copies": [copy(1, 200.0, 80), copy(2, 50.0, 20)],
        },
        {"volume": 9, "load": 1.5, "heat": windows(1.5), "sizeBytes": 2**20, "copies": [copy(2, 1.5, 100)]},
    ],
    "photos": [
        {
            "photo": "1f",
            "volume": 7,
            "readsPerSecond": 120.0,
            "sources": [{"id": "id-1", "url": "127.0.0.1:8081", "readsPerSecond": 120.0}],
        },
        {
            "photo": "2\x1b[31m",
            "volume": None,
            "readsPerSecond": 3.25,
            "sources": [{"id": "gone", "url": None, "readsPerSecond": 3.25}],
        },
    ],
}


class HeatCluster(FakeCluster):
    """Answers /cluster/heat, too."""

    def __init__(self) -> None:
        super().__init__()
        self.heat: Any = DOCUMENT

    def routes(self, app: web.Application) -> None:
        app.router.add_get("/cluster/heat", self._heat)

    async def _heat(self, request: web.Request) -> web.Response:
        self.calls.append(f"{request.method} {request.raw_path}")
        return web.json_response(self.heat)


@pytest.fixture(scope="module")
def server() -> Iterator[HeatCluster]:
    server = HeatCluster()
    server.start()
    yield server
    server.stop()


def test_tables(cluster: HeatCluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.heat = DOCUMENT
    assert cli.run(["heat", "--limit", "5"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert cluster.calls == ["GET /cluster/heat?limit=5"]
    lines = [line.split() for line in out.splitlines()]
    full, third = "█" * 20, "█" * 6 + "▋"
    assert lines[1][:6] == ["127.0.0.1:8081", "r1", "alive", "300", "1.50", full]
    assert lines[2][:6] == ["127.0.0.1:8082", "r2", "alive", "100", "0.50", third]
    assert lines[3][:5] == ["127.0.0.1:8083", "r3", "dead", "0.0", "-"]
    assert lines[1][6:9] == ["300", "450", "150"]
    volume = next(line for line in lines if line[:1] == ["7"])
    assert volume[1:6] == ["250", full, "240", "360", "120"]
    assert volume[6:10] == ["1.00", "MiB", "3.00", "GiB"]
    assert "127.0.0.1:8081 200 (80), 127.0.0.1:8082 50.0 (20)" in out
    assert lines[-2][:3] == ["1f", "7", "120"] and lines[-2][-1] == "127.0.0.1:8081"
    assert "\x1b" not in out and lines[-1][1:3] == ["-", "3.2"] and lines[-1][-1] == "gone"


def test_json(cluster: HeatCluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.heat = DOCUMENT
    assert cli.run(["--json", "heat"]) == 0
    assert json.loads(capsys.readouterr().out) == DOCUMENT


def test_a_cluster_at_rest(cluster: HeatCluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.heat = {**DOCUMENT, "machines": [machine(1, 0)], "volumes": [], "photos": []}
    assert cli.run(["heat"]) == 0
    assert "No volume is read at the moment." in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [{}, {**DOCUMENT, "machines": [{}]}, {**DOCUMENT, "volumes": 5}])
def test_an_answer_of_something_else(cluster: HeatCluster, capsys: pytest.CaptureFixture[str], wrong: Any) -> None:
    cluster.heat = wrong
    assert cli.run(["heat"]) == 1
    assert "same release" in capsys.readouterr().err


@given(st.floats(-10, 1000), st.floats(-10, 1000), st.integers(1, 60))
def test_bars(value: float, most: float, width: int) -> None:
    drawn = bar(value, most, width)
    assert len(drawn) <= width
    assert bool(drawn) == (value > 0 and most > 0)
    if value >= most > 0:
        assert drawn == "█" * width
