"""The examples of docs/store.md, as they stand, against a Store."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from store_data_harness import running

from haystack.config import StoreSettings

DOCUMENT = (Path(__file__).parents[2] / "docs" / "store.md").read_text()
PHOTO = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 20
STRICT = 'set -e -o pipefail\ncurl() { command curl -sS --fail-with-body --max-time 20 "$@"; }\n'


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_every_example_works(tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(PHOTO)
    with running(tmp_path / "data") as store:
        blocks = re.findall(r"```sh\n(.*?)```", DOCUMENT, re.DOTALL)
        script = "".join(blocks).replace("127.0.0.1:8080", f"127.0.0.1:{store.ports[0]}")
        assert script.count("curl") >= 14
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", STRICT + script], cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True
        )
        assert done.returncode == 0, done.stderr.decode()
        assert (tmp_path / "copy.jpg").read_bytes() == PHOTO
        assert (tmp_path / "saved" / "cat.jpg").read_bytes() == PHOTO
        assert done.stdout.count(b'"eTag"') == 5 + 2
        assert done.stdout.count(b'{"size": %d}' % len(PHOTO)) == 3
        assert b"haystack_store_ready 1" in done.stdout
        assert store.once("GET", "/1,1f5a2c9e0b7d44e18a6").status == 404
        assert store.once("GET", "/1,2f5a2c9e0b7d44e18a6_1").body == PHOTO[:1000]
        page = store.once("GET", "/metrics").body.decode()
    told = set(re.findall(r"`([a-z_]+)(?:\{[a-z,]+\})?`", DOCUMENT.split("All names begin with")[1]))
    for name in set(re.findall(r"^haystack_store_([a-z_]+?)(?:_bucket|_sum|_count)?(?:\{| )", page, re.MULTILINE)):
        assert name in told, f"{name} is not in docs/store.md"


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("max_photo_bytes", 64 << 20),
        ("max_header_bytes", 16 << 10),
        ("max_connections", 4096),
        ("header_timeout_seconds", 10),
        ("stall_timeout_seconds", 30),
        ("idle_timeout_seconds", 75),
        ("upload_memory_bytes", 4 << 20),
        ("upload_memory_total_bytes", 256 << 20),
        ("trash_retention_seconds", 7 * 86_400),
        ("reserve_bytes", None),
    ],
)
def test_the_limits_are_those_of_the_document(name: str, default: int | None) -> None:
    assert getattr(StoreSettings(data=(Path("/data"),)), name) == default
    assert f"`{name}`" in DOCUMENT
