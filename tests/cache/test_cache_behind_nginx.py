"""A Cache behind nginx: as its proxy, and behind its own cache, which must keep what may be kept and ask otherwise."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cache_harness import one_store
from store_data_harness import Client, new_fid

NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
CONFIGURATION = """\
daemon off;
{user}
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 256; }}
http {{
    access_log off;
    proxy_cache_path {folder}/cache keys_zone=photos:1m;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    upstream haystack {{ server 127.0.0.1:{port}; keepalive 4; }}
    server {{
        listen 127.0.0.1:{listen};
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        location / {{ proxy_pass http://haystack; }}
        location /kept/ {{
            proxy_pass http://haystack/;
            proxy_cache photos;
            add_header X-Outer $upstream_cache_status;
        }}
    }}
}}
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def nginx_port() -> int:
    return _free_port()


@contextlib.contextmanager
def _started(folder: Path, port: int, listen: int) -> Iterator[None]:
    configuration = folder / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    configuration.write_text(CONFIGURATION.format(user=user, folder=folder, port=port, listen=listen))
    assert NGINX is not None
    process = subprocess.Popen([NGINX, "-e", "stderr", "-c", str(configuration)])
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", listen)).close()
                break
            except ConnectionRefusedError:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.01)
        yield
    finally:
        process.terminate()
        process.wait()


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_behind_nginx(tmp_path: Path, nginx_port: int) -> None:
    with one_store(tmp_path) as behind:
        fid, large = new_fid(), new_fid()
        behind.put(fid, b"photo" * 1000)
        behind.put(large, bytes(6_000_000))
        with _started(tmp_path, behind.node.port, nginx_port), Client(nginx_port) as client:
            assert [client.get(f"/{fid}").headers["x-cache"] for _ in range(3)] == ["miss", "hit", "hit"]
            answer = client.get(f"/{fid}")
            assert answer.body == b"photo" * 1000
            assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
            tag = answer.headers["etag"]
            assert client.get(f"/{fid}", If_None_Match=tag).status == 304
            part = client.get(f"/{fid}", Range="bytes=5-9")
            assert (part.status, part.body) == (206, b"photo")
            assert client.get(f"/{large}").body == bytes(6_000_000)
            assert client.get(f"/{new_fid()}").status == 404
            outer = [client.get(f"/kept/{fid}") for _ in range(2)]
            assert [one.headers["x-outer"] for one in outer] == ["MISS", "HIT"]
            assert outer[1].body == answer.body and outer[1].headers["etag"] == tag
