"""A whole `haystack up` on free ports, for tests that want everything to be real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

STOP_SECONDS = 60
ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith("HAYSTACK_")}
_PORTS = ("directory", "store", "cache", "frontend", "intake")


@contextmanager
def haystack_up(folder: Path, *arguments: str) -> Iterator[dict[str, Any]]:
    """What `haystack up --json` says of itself, while it runs."""
    ports = [word for name in _PORTS for word in (f"--{name}-port", "0")]
    command = [
        sys.executable,
        "-P",
        "-m",
        "tools.cli",
        "up",
        "--json",
        "--data",
        str(folder / "data"),
        *ports,
        *arguments,
    ]
    log_path = folder / "up.log"
    with log_path.open("ab") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=ENVIRON)
    assert process.stdout is not None
    try:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line == "}\n":
                break
        if not lines:
            pytest.fail(log_path.read_text())
        yield json.loads("".join(lines))
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def host_of(url: str) -> str:
    """Host and port of a URL."""
    return urlsplit(url).netloc
