"""The examples of docs/client.md, run as they stand against a real cluster."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from transfer_cluster import RealCluster

DOCUMENT = Path(__file__).parents[2] / "docs" / "client.md"
EXAMPLES = dict(re.findall(r"<!-- run: (\w+) -->\n```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    running = RealCluster(tmp_path_factory.mktemp("client"))
    yield running
    running.stop()


@pytest.mark.parametrize("name", ["sync", "async"])
def test_example(cluster: RealCluster, tmp_path: Path, name: str) -> None:
    (tmp_path / "cat.jpg").write_bytes(b"\xff\xd8\xff" + bytes(100_000))
    code = EXAMPLES[name]
    assert "http://127.0.0.1:9333" in code
    code = code.replace("http://127.0.0.1:9333", cluster.environ["HAYSTACK_DIRECTORY"])
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout
