"""The fake cluster for commands that look after one."""

from __future__ import annotations

import copy
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_cluster import SECRET, FakeCluster


@pytest.fixture(scope="module")
def server() -> Iterator[FakeCluster]:
    server = FakeCluster()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def cluster(server: FakeCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeCluster]:
    for name in [name for name in os.environ if name.startswith("HAYSTACK_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HAYSTACK_DIRECTORY", server.url)
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "secret").chmod(0o600)
    monkeypatch.setenv("HAYSTACK_SECRET_FILE", str(tmp_path / "secret"))
    before = copy.deepcopy((server.status, server.nodes, server.repair))
    server.calls.clear()
    server.marks.clear()
    yield server
    server.status, server.nodes, server.repair = before
    server.node_answers.clear()
    server.repair_answers.clear()
    server.mark_answer = (200, {})
    server.backup_checksum = None
    server.reports.clear()
    server.grow_answer = (200, {"count": 2, "volumes": [8, 9]})


@pytest.fixture
def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
