"""`haystack up` with the real roles: photos survive kill -9 of everything, a dead Store comes back, Ctrl-C is clean."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HAYSTACK = (sys.executable, "-P", "-m", "tools.cli")
ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith("HAYSTACK_")}
WAIT_SECONDS = 60


class Cluster:
    """One `haystack up` on free ports."""

    def __init__(self, data: Path, *arguments: str) -> None:
        self.data = data
        ports = ("--directory-port", "0", "--store-port", "0")
        with (data.parent / "up.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*HAYSTACK, "up", "--json", "--no-frontend", "--data", str(data), *ports, *arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=ENVIRON,
            )
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if line == "}\n":
                break
        if not lines:
            self.process.communicate()
            pytest.fail((data.parent / "up.log").read_text())
        self.directory: str = json.loads("".join(lines))["directory"]

    def run(self, *arguments: str, exit_code: int | None = 0) -> Any:
        result = subprocess.run(
            [*HAYSTACK, *arguments, "--data", str(self.data), "--json"],
            capture_output=True,
            text=True,
            env=ENVIRON,
            timeout=WAIT_SECONDS,
            check=False,
        )
        assert exit_code in (None, result.returncode), result.stderr
        return json.loads(result.stdout)

    def until(self, done: Callable[[Any], bool]) -> Any:
        """Ask for the status until it is as wanted."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            status = get_json(f"{self.directory}/dir/status")
            if done(status):
                return status
            assert time.monotonic() < deadline, status

    def upload(self, content: bytes) -> str:
        """Store a photo, as any client does, and return its fid."""
        assigned = get_json(f"{self.directory}/dir/assign")
        fid: str = assigned["fid"]
        request = urllib.request.Request(f"http://{assigned['url']}/{fid}", data=content, method="PUT")
        with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as response:
            assert response.status == 201
        return fid

    def read(self, fid: str) -> bytes:
        """Fetch a photo by the Directory's redirect, as a browser does."""
        with urllib.request.urlopen(f"{self.directory}/{fid}", timeout=WAIT_SECONDS) as response:
            content: bytes = response.read()
            return content

    def processes(self) -> list[int]:
        """Return up and all processes below it."""
        found = [self.process.pid]
        for pid in found:
            for task in Path(f"/proc/{pid}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
        return found

    def kill_everything(self) -> None:
        pids = self.processes()
        pidfds = [os.pidfd_open(pid) for pid in pids]
        for pidfd in pidfds:
            # One that has ended since, as children of an ended parent do, is as dead as it should be.
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        for pidfd in pidfds:
            assert select.select([pidfd], [], [], WAIT_SECONDS)[0]
            os.close(pidfd)
        self.process.communicate()

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=WAIT_SECONDS)
        return self.process.returncode


def live_count(status: Any) -> int:
    """Return the photos in all volumes, as the Stores reported last."""
    return sum(volume["liveCount"] for volume in status["Volumes"])


def get_json(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=WAIT_SECONDS) as response:
        return json.load(response)


@pytest.fixture
def clusters() -> Iterator[list[Cluster]]:
    started: list[Cluster] = []
    yield started
    for one in started:
        if one.process.poll() is None:
            one.kill_everything()


def photos(count: int, seed: int) -> list[bytes]:
    dice = random.Random(seed)
    return [dice.randbytes(dice.choice((1, 100, 4096, 70_000))) for _ in range(count)]


def test_photos_survive_the_death_of_every_process(clusters: list[Cluster], tmp_path: Path) -> None:
    data = tmp_path / "data"
    cluster = Cluster(data, "--stores", "2", "--workers", "1")
    clusters.append(cluster)
    stored = {cluster.upload(content): content for content in photos(20, 1)}
    cluster.kill_everything()

    cluster = Cluster(data)  # the number of Stores is remembered
    clusters.append(cluster)
    assert {fid: cluster.read(fid) for fid in stored} == stored
    again = {cluster.upload(content): content for content in photos(5, 2)}
    assert not again.keys() & stored.keys()
    assert {fid: cluster.read(fid) for fid in again} == again
    status = cluster.until(lambda status: status["Counts"]["photos"] == live_count(status) == 25)
    assert status["Counts"]["storesAlive"] == 2
    assert cluster.run("status")["ok"] is True

    listed = cluster.run("volume", "list")["volumes"]
    assert sum(volume["liveCount"] for volume in listed) == 25
    checked = cluster.run("volume", "check", "--full")
    assert checked["ok"] is True
    assert sum(one["report"]["needles"] for one in checked["checked"]) == 25
    shown = cluster.run("volume", "show", str(listed[0]["volume"]))
    assert "error" not in next(iter(shown["copies"].values()))

    assert cluster.stop() == 0
    offline = cluster.run("volume", "check", "--full", str(data))
    assert sum(one["report"]["needles"] for one in offline["checked"]) == 25


def test_a_store_that_dies_comes_back(clusters: list[Cluster], tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "data", "--workers", "1")
    clusters.append(cluster)
    fid = cluster.upload(b"a photo")
    store = next(pid for pid in cluster.processes() if "\0store\0" in Path(f"/proc/{pid}/cmdline").read_text())
    log = tmp_path / "up.log"
    os.kill(store, signal.SIGKILL)
    cluster.until(lambda status: "store1 is up again" in log.read_text() and not status["Problems"])
    assert cluster.read(fid) == b"a photo"
    assert cluster.read(cluster.upload(b"another")) == b"another"
    assert "up        | store1 is down: it was killed by SIGKILL; starting it again in 0.5 s" in log.read_text()


def test_growing(clusters: list[Cluster], tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "data", "--workers", "1")
    clusters.append(cluster)
    before = cluster.until(lambda status: status["Counts"]["volumesWritable"] >= 7)["Counts"]["volumesWritable"]
    assert cluster.run("volume", "grow", "--count", "2")["applied"] is False
    assert get_json(f"{cluster.directory}/dir/status")["Counts"]["volumesWritable"] == before
    assert cluster.run("volume", "grow", "--count", "2", "--apply")["count"] == 2
    cluster.until(lambda status: status["Counts"]["volumesWritable"] == before + 2)


def test_a_port_in_use_is_told_in_one_line(clusters: list[Cluster], tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "data", "--workers", "1")
    clusters.append(cluster)
    port = cluster.directory.rpartition(":")[2]
    result = subprocess.run(
        [*HAYSTACK, "up", "--data", str(tmp_path / "other"), "--directory-port", port, "--store-port", "0"],
        capture_output=True,
        text=True,
        env=ENVIRON,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert (result.returncode, result.stdout) == (1, "")
    last = result.stderr.splitlines()[-1]
    assert last.startswith("haystack: directory did not start: it ended with exit code 2; it said: ")
    assert port in last
    assert "Traceback" not in result.stderr


def test_command_lines_show_role_folder_and_port(clusters: list[Cluster], tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "data", "--workers", "1")
    clusters.append(cluster)
    lines = [Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") for pid in cluster.processes()]
    for role in ("directory", "store"):
        assert any(f"tools.cli {role} --data {tmp_path / 'data' / role}" in line for line in lines)
    assert not any((tmp_path / "data/secret").read_text().strip() in line for line in lines)
