"""``haystack volume compact`` against a real cluster: the plan, what comes of it, and what it refuses."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transfer_cluster import RealCluster


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    cluster = RealCluster(tmp_path_factory.mktemp("compact"))
    yield cluster
    cluster.stop()


def _plan(real: RealCluster) -> dict[str, Any]:
    """The plan, when the Directory has heard of the deletes."""
    deadline = time.monotonic() + 30
    while True:
        plan: dict[str, Any] = real.json("volume", "compact", "--all")
        if sum(one["gainBytes"] for one in plan["volumes"]) > 60_000:
            return plan
        assert time.monotonic() < deadline, plan
        time.sleep(0.1)


def test_compact_gives_back_the_room_of_deleted_photos(real: RealCluster, tmp_path: Path) -> None:
    fids = []
    for number in range(6):
        (tmp_path / "photo.jpg").write_bytes(random.Random(number).randbytes(20_000))
        fids.append(real.json("put", tmp_path / "photo.jpg")["stored"][0]["fid"])
    real.run("rm", *fids[:3], "--now", "--apply")
    plan = _plan(real)
    assert not plan["applied"]
    text = real.run("volume", "compact", "--all")
    assert b"wins at most" in text.stdout and b"give --apply" in text.stderr
    done = real.json("volume", "compact", "--all", "--apply")
    assert {one["state"] for one in done["compactions"]} == {"done"}
    assert sum(one["oldBytes"] - one["newBytes"] for one in done["compactions"]) > 60_000
    for number, name in enumerate(fids):
        got = tmp_path / f"{number}.got"
        real.run("get", name, "-o", got, code=0 if number >= 3 else 1)
        assert number < 3 or got.read_bytes() == random.Random(number).randbytes(20_000)
    real.run("volume", "check", "--full")


def test_compact_wants_to_know_which_volumes(real: RealCluster) -> None:
    real.run("volume", "compact", code=2)
    real.run("volume", "compact", "1", "--all", code=2)
    assert b"99999" in real.run("volume", "compact", "99999", code=1).stderr
