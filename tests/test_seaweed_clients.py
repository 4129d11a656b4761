"""Client libraries of the SeaweedFS blob API, unmodified, against a real cluster."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from pyseaweed import WeedFS
from weed.operation import WeedOperation

START_SECONDS = 60


@dataclass(frozen=True)
class Cluster:
    host: str
    port: int


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    data = tmp_path_factory.mktemp("seaweed")
    ports = ["--directory-port", "0", "--store-port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.cli", "up", "--data", str(data), *ports],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        address = next(line.split()[1] for line in process.stdout if line.strip().startswith("directory "))
        host, _, port = address.removeprefix("http://").partition(":")
        yield Cluster(host, int(port))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(START_SECONDS)
        process.stdout.close()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    Image.frombytes("RGB", (64, 48), os.urandom(64 * 48 * 3)).save(path)
    return path


def test_pyseaweed(cluster: Cluster, photo: Path) -> None:
    client = WeedFS(cluster.host, cluster.port)
    assert client.version
    fid = client.upload_file(str(photo))
    assert client.get_file_size(fid) == photo.stat().st_size
    assert client.get_file(fid) == photo.read_bytes()
    assert client.file_exists(fid)
    stranger = fid[:-1] + ("0" if fid[-1] != "0" else "1")
    assert not client.file_exists(stranger)
    assert client.delete_file(fid)
    assert not client.file_exists(fid)
    assert not client.delete_file(fid)


def test_pyseaweed_uploads_a_stream(cluster: Cluster) -> None:
    client = WeedFS(cluster.host, cluster.port, use_session=True)
    fid = client.upload_file(stream=io.BytesIO(b"bytes of a photo"), name="small.jpg")
    assert client.get_file(fid) == b"bytes of a photo"


def test_python_weed(cluster: Cluster, photo: Path) -> None:
    client = WeedOperation(f"http://{cluster.host}:{cluster.port}")
    stored = client.put(str(photo))
    assert stored is not None
    assert stored.storage_size == photo.stat().st_size
    assert client.get(stored.fid).content == photo.read_bytes()
    assert client.get(stored.fid).content_type == "image/jpeg"
    assert client.exists(stored.fid)
    replaced = client.crud_update(io.BytesIO(b"another photo"), stored.fid, "other.jpg")
    assert replaced is not None
    assert client.get(stored.fid).content == b"another photo"
    assert client.delete(stored.fid).storage_size == len(b"another photo")
    assert not client.exists(stored.fid)
    assert client.delete(stored.fid).message.startswith("Error")
    assert "Version" in client.master.get_status()


def test_python_weed_uses_the_further_fids_of_a_count(cluster: Cluster) -> None:
    client = WeedOperation(f"http://{cluster.host}:{cluster.port}")
    fids = client.acquire_new_fids(count=3)[:3]
    for number, fid in enumerate(fids):
        client.put(io.BytesIO(b"%d" % number), fid=fid, file_name=f"{number}.jpg")
    assert [client.get(fid).content for fid in fids] == [b"0", b"1", b"2"]
