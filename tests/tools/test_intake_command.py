"""``haystack intake`` as a process: ready line, folder, secret, stop."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tools.cli", "intake", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def usual(tmp_path: Path) -> list[str]:
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef0123456789abcdef\n")
    secret.chmod(0o600)
    given = {"data": tmp_path / "intake", "port": 0, "store": "127.0.0.1:1", "frontend": "http://127.0.0.1:2"}
    return [*(f"--{name}={value}" for name, value in given.items()), f"--secret-file={secret}"]


def test_it_runs_alone_in_its_folder_and_stops(usual: list[str]) -> None:
    with start(*usual) as first:
        assert first.stdout is not None
        line = first.stdout.readline()
        assert line.startswith("intake: listening on http://127.0.0.1:") and line.endswith("/intake\n")
        url = line.split()[3].rstrip(",")
        with urllib.request.urlopen(url + "/healthz", timeout=10) as answer:
            assert answer.status == 200
        with start(*usual) as second:
            _, error = second.communicate(timeout=30)
            assert second.returncode == 1 and "in use by another intake" in error
        first.terminate()
        assert first.wait(30) == 0
        first.communicate()


def test_without_a_secret_it_does_not_start(usual: list[str]) -> None:
    with start(*usual[:-1]) as process:
        _, error = process.communicate(timeout=30)
    assert process.returncode == 2 and "secret" in error
