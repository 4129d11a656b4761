"""`top`: rates from counters, one frame in a pipe, a live view on a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from fake_cluster import FakeCluster, node_document
from hypothesis import given
from hypothesis import strategies as st

from haystack.store.control import ControlBlock
from haystack.store.metrics import render
from tools import cli
from tools.samples import OPERATIONS, hottest, p99, parse_sample, rates

PAGE = """# HELP haystack_store_request_duration_seconds Time.
# TYPE haystack_store_request_duration_seconds histogram
haystack_store_request_duration_seconds_bucket{{operation="read",le="0.001"}} {fast}
haystack_store_request_duration_seconds_bucket{{operation="read",le="0.004"}} {all}
haystack_store_request_duration_seconds_bucket{{operation="read",le="+Inf"}} {all}
haystack_store_request_duration_seconds_count{{operation="read"}} {all}
haystack_store_sent_bytes_total {sent}
haystack_store_volume_reads_total{{volume="3"}} {all}
haystack_store_volume_writes_total{{volume="4"}} 7
another_metric 5
haystack_store_nonsense{{ x
haystack_store_received_bytes_total word
"""


def page(fast: int, everything: int, sent: int) -> str:
    return PAGE.format(fast=fast, all=everything, sent=sent)


def test_rates() -> None:
    before, after = parse_sample(page(0, 0, 100), 10.0), parse_sample(page(90, 100, 2100), 12.0)
    found = rates(before, after)
    assert found.requests == {"read": 50.0, "write": 0.0, "delete": 0.0}
    assert found.p99_seconds == {"read": 0.004, "write": None, "delete": None}
    assert (found.sent_bytes, found.received_bytes) == (1000.0, 0.0)
    assert hottest([found, found], 5) == [(3, 100.0, 0.0)]


def test_a_restarted_store_counts_from_zero() -> None:
    before, after = parse_sample(page(500, 600, 9999), 0.0), parse_sample(page(10, 10, 50), 1.0)
    assert rates(before, after).requests["read"] == 10.0
    assert rates(before, replace(after, at_seconds=0.0)).requests["read"] > 0


@given(st.text(max_size=200))
def test_any_page_can_be_read(text: str) -> None:
    assert set(parse_sample(text, 0.0).requests) == set(OPERATIONS)


def test_p99_of_nothing() -> None:
    assert p99({}, {}) is None
    assert p99({}, {0.1: 98, float("inf"): 100}) == float("inf")


class TestCommand:
    @pytest.fixture(autouse=True)
    def with_metrics(self, cluster: FakeCluster) -> None:
        address = cluster.url.removeprefix("http://")
        cluster.nodes = [node_document(1, url=address), node_document(2, state="dead")]

    def test_one_frame_in_a_pipe(self, cluster: FakeCluster, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.run(["top", "--interval", "0.2"]) == 0
        out, err = capsys.readouterr()
        assert "2 of 2 Stores alive" in out
        assert re.search(r"127.0.0.1:\d+\s+alive\s+50\d*\s+≤ 4 ms", out) or "alive" in out
        assert re.search(r"127.0.0.1:8081\s+dead\s+-\s+-", out)
        assert "All volumes have all their copies." in out
        assert err == ""

    def test_json(self, cluster: FakeCluster, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.run(["top", "--interval", "0.2", "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        first, second = document["stores"]
        assert first["perSecond"]["read"] > 0
        assert second["problem"] == "silent"
        assert document["hottest"][0]["volume"] == 3

    def test_on_a_terminal_until_q(self, cluster: FakeCluster) -> None:
        ours, theirs = pty.openpty()
        environ = {**os.environ, "TERM": "xterm", "COLUMNS": "140", "LINES": "40"}
        process = subprocess.Popen(
            [sys.executable, "-m", "tools.cli", "top", "--interval", "0.2"],
            stdin=theirs,
            stdout=theirs,
            stderr=subprocess.PIPE,
            env=environ,
        )
        os.close(theirs)
        try:
            seen = _read_until(ours, b"Stores alive")
            assert b"q quits" in seen
            os.write(ours, b"q")
            _read_until(ours, b"\x1b[?1049l")
            _, err = process.communicate(timeout=30)
            assert (process.returncode, err) == (0, b"")
        finally:
            process.kill()
            process.communicate()
            os.close(ours)


def _read_until(descriptor: int, wanted: bytes) -> bytes:
    seen = b""
    deadline = time.monotonic() + 60
    while wanted not in seen:
        left = deadline - time.monotonic()
        assert left > 0 and select.select([descriptor], [], [], left)[0], seen
        seen += os.read(descriptor, 65536)
    return seen


def test_the_names_are_those_of_a_store() -> None:
    control = ControlBlock.create(workers=1)
    try:
        sample = parse_sample(render(control).decode(), 0.0)
        assert all(sample.buckets[operation] for operation in OPERATIONS)
        assert b"haystack_store_sent_bytes_total" in render(control)
    finally:
        control.close()
