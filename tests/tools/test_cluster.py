"""The cluster of one machine: order of start and stop, restarts, and what happens when one does not start."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from tools import cluster as cluster_module
from tools.children import ChildFailed, Ready
from tools.cluster import Cluster, local_url, restart_delay_seconds

STANDIN = Path(__file__).with_name("standin.py")


class Standins:
    """Command lines of stand-ins, with the misbehaviour of each."""

    def __init__(self, folder: Path, **behaviours: str) -> None:
        self.folder = folder
        self.behaviours = behaviours
        self.asked: list[tuple[str, Ready | None]] = []

    def directory(self, before: Ready | None) -> Sequence[str]:
        return self._argv("directory", before)

    def store(self, number: int, before: Ready | None, directory_url: str) -> Sequence[str]:
        assert directory_url == "http://127.0.0.1:1"
        return self._argv(f"store{number}", before)

    def cache(self, before: Ready | None, directory_url: str) -> Sequence[str]:
        assert directory_url == "http://127.0.0.1:1"
        return self._argv("cache", before)

    def frontend(self, before: Ready | None, directory_url: str) -> Sequence[str]:
        assert directory_url == "http://127.0.0.1:1"
        return self._argv("frontend", before)

    def intake(self, number: int, before: Ready | None, store_url: str, frontend_url: str) -> Sequence[str]:
        assert store_url == frontend_url == "http://127.0.0.1:1"
        return self._argv(f"intake{number}", before)

    def _argv(self, name: str, before: Ready | None) -> Sequence[str]:
        self.asked.append((name, before))
        return [sys.executable, str(STANDIN), name, str(self.folder), *self.behaviours.get(name, "").split()]

    def journal(self) -> list[tuple[str, str, int]]:
        rows = [line.split() for line in (self.folder / "journal").read_text().splitlines()]
        return [(name, event, int(pid)) for name, event, pid in rows]


class Reports:
    """Messages to the operator, to be waited for."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._more = asyncio.Event()

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        self._more.set()

    async def wait_for(self, text: str) -> str:
        while True:
            for line in self.lines:
                if text in line:
                    return line
            self._more.clear()
            await asyncio.wait_for(self._more.wait(), 30)


def make(
    standins: Standins,
    reports: Reports,
    stores: int = 2,
    stop_timeout_seconds: float = 30,
    *,
    with_cache: bool = False,
    with_frontend: bool = False,
) -> Cluster:
    return Cluster(
        standins,
        stores,
        report=reports,
        on_line=lambda name, line: None,
        start_timeout_seconds=30,
        stop_timeout_seconds=stop_timeout_seconds,
        environ={**os.environ, "PYTHONUNBUFFERED": "1"},
        with_cache=with_cache,
        with_frontend=with_frontend,
    )


@pytest.fixture
async def reports() -> AsyncIterator[Reports]:
    yield Reports()


async def test_the_directory_starts_first_and_stops_last(tmp_path: Path, reports: Reports) -> None:
    standins = Standins(tmp_path)
    cluster = make(standins, reports)
    running = await cluster.start()
    assert running.directory_url == "http://127.0.0.1:1"
    assert len(running.stores) == 2
    await cluster.stop()
    events = [(name, event) for name, event, _ in standins.journal()]
    assert events[0] == ("directory", "started")
    assert events[-1] == ("directory", "stopping")
    assert sorted(events[1:-1]) == [(f"store{n}", event) for n in (1, 2) for event in ("started", "stopping")]
    assert reports.lines == []


async def test_a_cache_is_a_child_like_the_others(
    tmp_path: Path, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "RESTART_DELAY_FIRST_SECONDS", 0.01)
    standins = Standins(tmp_path)
    cluster = make(standins, reports, with_cache=True)
    running = await cluster.start()
    assert running.cache is not None and len(running.stores) == 2
    os.kill(next(pid for who, _, pid in standins.journal() if who == "cache"), signal.SIGKILL)
    await reports.wait_for("cache is up again")
    assert standins.asked[-1] == ("cache", running.cache)
    await cluster.stop()
    events = [(name, event) for name, event, _ in standins.journal()]
    assert events[-1] == ("directory", "stopping") and ("cache", "stopping") in events


async def test_the_photo_service_starts_last(tmp_path: Path, reports: Reports, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "RESTART_DELAY_FIRST_SECONDS", 0.01)
    standins = Standins(tmp_path)
    cluster = make(standins, reports, with_frontend=True)
    running = await cluster.start()
    assert running.frontend is not None and len(running.intakes) == 2
    names = [name for name, _ in standins.asked]
    assert names[0] == "directory" and names[-2:] == ["intake1", "intake2"] and "frontend" in names
    os.kill(next(pid for who, _, pid in standins.journal() if who == "intake2"), signal.SIGKILL)
    await reports.wait_for("intake2 is up again")
    assert standins.asked[-1] == ("intake2", running.intakes[1])
    await cluster.stop()
    assert [(name, event) for name, event, _ in standins.journal()][-1] == ("directory", "stopping")


async def test_when_one_does_not_start_all_are_stopped(tmp_path: Path, reports: Reports) -> None:
    standins = Standins(tmp_path, store2="fail")
    with pytest.raises(ChildFailed, match="store2 did not start: .*port 8080 is in use"):
        await make(standins, reports).start()
    for _, _, pid in standins.journal():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_when_the_directory_does_not_start_no_store_is_tried(tmp_path: Path, reports: Reports) -> None:
    standins = Standins(tmp_path, directory="fail")
    with pytest.raises(ChildFailed, match="directory did not start"):
        await make(standins, reports).start()
    assert [name for name, _ in standins.asked] == ["directory"]


async def test_a_start_that_is_given_up_leaves_nothing(tmp_path: Path, reports: Reports) -> None:
    standins = Standins(tmp_path, store1="silent")
    task = asyncio.create_task(make(standins, reports).start())
    async with asyncio.timeout(30):
        while not (tmp_path / "journal").exists() or len(standins.journal()) < 3:  # noqa: ASYNC110 - others write it
            await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()
    for _, _, pid in standins.journal():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize("name", ["store1", "directory"])
async def test_one_that_dies_is_started_again_at_its_place(
    tmp_path: Path, reports: Reports, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(cluster_module, "RESTART_DELAY_FIRST_SECONDS", 0.01)
    standins = Standins(tmp_path)
    cluster = make(standins, reports)
    await cluster.start()
    victim = next(pid for who, event, pid in standins.journal() if (who, event) == (name, "started"))
    os.kill(victim, signal.SIGKILL)
    assert "killed by SIGKILL; starting it again in 0.01 s" in await reports.wait_for(f"{name} is down")
    await reports.wait_for(f"{name} is up again")
    assert standins.asked[-1][0] == name
    before = standins.asked[-1][1]
    assert before is not None
    assert before.url == "http://0.0.0.0:1"
    await cluster.stop()
    assert [event for who, event, _ in standins.journal() if who == name] == ["started", "started", "stopping"]


async def test_one_that_stays_broken_is_tried_again_ever_more_slowly(
    tmp_path: Path, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "RESTART_DELAY_FIRST_SECONDS", 0.01)
    standins = Standins(tmp_path, store1="once")
    cluster = make(standins, reports, stores=1)
    await cluster.start()
    os.kill(next(pid for who, _, pid in standins.journal() if who == "store1"), signal.SIGKILL)
    for delay in ("0.01", "0.02", "0.04", "0.08"):
        await reports.wait_for(f"starting it again in {delay} s")
    assert "port 8080 is in use; starting it again in 0.02 s" in await reports.wait_for("in 0.02 s")
    await cluster.stop()


async def test_a_deaf_one_is_killed_and_named(tmp_path: Path, reports: Reports) -> None:
    standins = Standins(tmp_path, store1="deaf")
    cluster = make(standins, reports, stop_timeout_seconds=0.3)
    await cluster.start()
    await cluster.stop()
    assert reports.lines == ["store1 did not stop within 0.3 s and was killed"]


async def test_kill_now_ends_all_at_once(tmp_path: Path, reports: Reports) -> None:
    standins = Standins(tmp_path, store1="deaf", directory="deaf")
    cluster = make(standins, reports)
    await cluster.start()
    stopping = asyncio.create_task(cluster.stop())
    await asyncio.sleep(0)
    cluster.kill_now()
    await asyncio.wait_for(stopping, 30)
    for _, _, pid in standins.journal():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_delays_grow_to_a_limit() -> None:
    delays = [restart_delay_seconds(failures) for failures in range(100)]
    assert delays[:7] == [0.5, 1, 2, 4, 8, 16, 30]
    assert delays == sorted(delays)
    assert set(delays[7:]) == {30}


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://0.0.0.0:9333", "http://127.0.0.1:9333"),
        ("http://[::]:9333", "http://[::1]:9333"),
        ("http://10.0.0.1:9333", "http://10.0.0.1:9333"),
        ("http://[::1]:9333", "http://[::1]:9333"),
    ],
)
def test_local_addresses(url: str, local: str) -> None:
    assert local_url(url) == local
