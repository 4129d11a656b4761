"""The two sides of most measurements: a Store and nginx, each on cores of its own choosing."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks import procfs
from benchmarks.client import Client
from benchmarks.common import CannotMeasure
from benchmarks.photos import Photo, PhotoMaker
from benchmarks.processes import Program, free_port, running
from tools.children import parse_ready

STORE_COMMAND = ("-P", "-m", "tools.cli", "store")
STORE_WORKER = "haystack.store.worker"
READY_SECONDS = 60.0
READY_POLL_SECONDS = 0.002

NGINX_CONFIGURATION = """\
daemon off;
{user}
worker_processes {workers};
pid {folder}/nginx.pid;
error_log stderr error;
worker_rlimit_nofile 200000;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush {nopush};
    tcp_nodelay on;
    keepalive_timeout 75s;
    keepalive_requests 1000000000;
    open_file_cache max={open_files} inactive=1h;
    open_file_cache_valid 1h;
    open_file_cache_min_uses 1;
    etag on;
    default_type image/jpeg;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} reuseport;
        root {root};
        add_header Cache-Control "public, max-age=31536000, immutable";
        add_header X-Content-Type-Options nosniff;
    }}
}}
"""
"""One core's worth of static files at nginx's best: every open file stays in its cache, nothing is logged."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running side.

    Parameters
    ----------
    name: for messages and tables.
    port: of the loopback interface.
    pids: all its processes.
    workers: those that answer requests.
    ready_seconds: from the start of its process until it was ready.
    """

    name: str
    port: int
    pids: tuple[int, ...]
    workers: tuple[int, ...]
    ready_seconds: float

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def store(
    data: Path,
    *,
    workers: int,
    cores: Sequence[int],
    durability: str = "fsync",
    admin_port: int | None = None,
    tree: Path | None = None,
) -> Iterator[Server]:
    """Run a Store, supervisor and workers, as an operator would, without a Directory.

    Parameters
    ----------
    data: its data folder.
    cores: processor cores for all of its processes.
    admin_port: of its admin API; by default any free one.
    tree: source tree to run; by default the one that is installed.
    """
    argv = [sys.executable, *STORE_COMMAND, "--data", str(data), "--port", "0"]
    argv += ["--admin-port", str(admin_port)] if admin_port is not None else []
    argv += ["--workers", str(workers), "--durability", durability]
    environ = {"PYTHONPATH": str(tree)} if tree is not None else None
    with running(Program("the Store", argv, cores, data.parent, environ)) as program:
        ready = program.wait_for_line(parse_ready)
        ready_seconds = time.perf_counter() - program.started
        port = urlsplit(ready.url).port
        assert port is not None
        _wait_until_all_ready(port)
        found = procfs.children(program.pid)
        serving = tuple(pid for pid in found if STORE_WORKER in procfs.command_line(pid))
        if len(serving) != workers:
            raise CannotMeasure(f"{workers} workers were asked for, {len(serving)} are there")
        yield Server("Haystack", port, (program.pid, *found), serving, ready_seconds)


@contextlib.contextmanager
def nginx(
    folder: Path, root: Path, *, workers: int, cores: Sequence[int], open_files: int, nopush: bool
) -> Iterator[Server]:
    """Run nginx over a folder of files.

    Parameters
    ----------
    folder: for its own files.
    root: what it serves.
    open_files: how many files it may keep open.
    nopush: send head and body in the same packets (tcp_nopush), which is better for some sizes and worse for others.
    """
    folder.mkdir()
    port = free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(
        NGINX_CONFIGURATION.format(
            # Started as root, it would become somebody who cannot reach the temporary files.
            user="user root;" if os.geteuid() == 0 else "",
            workers=workers,
            folder=folder,
            root=root,
            port=port,
            open_files=open_files,
            nopush="on" if nopush else "off",
        )
    )
    program_path = shutil.which("nginx") or "/usr/sbin/nginx"
    program = Program("nginx", [program_path, "-e", "stderr", "-c", str(configuration)], cores, folder)
    with running(program):
        program.wait_for_port(port)
        ready_seconds = time.perf_counter() - program.started
        serving = _wait_for_children(program.pid, workers)
        yield Server("nginx, tcp_nopush" if nopush else "nginx", port, (program.pid, *serving), serving, ready_seconds)


def fetch(server: Server, path: str) -> tuple[int, bytes]:
    """Status and body of one GET."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=READY_SECONDS)
    with contextlib.closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()


def require_same_bodies(server: Server, photos: Iterable[Photo], maker: PhotoMaker) -> None:
    """Raises CannotMeasure unless the server answers each of these photos with its bytes."""
    for photo in photos:
        status, body = fetch(server, photo.path)
        if status != 200 or body != maker.body(photo):
            raise CannotMeasure(f"{server.name} answered {photo.path} with {status} and {len(body)} other bytes")


def read_all(server: Server, photos: Sequence[Photo], *, times: int) -> None:
    """Ask for every photo, so that all caches have what they can hold. Raises CannotMeasure for a wrong answer."""
    with Client(server.port) as client:
        for photo in (photo for _ in range(times) for photo in photos):
            if client.get_size(photo.path) != photo.size_bytes:
                raise CannotMeasure(f"{server.name} answered {photo.path} with another size")


def _wait_for_children(pid: int, count: int) -> tuple[int, ...]:
    """nginx listens before it starts its workers."""
    deadline = time.monotonic() + READY_SECONDS
    while len(found := procfs.children(pid)) < count:
        if time.monotonic() > deadline:
            raise CannotMeasure(f"nginx started {len(found)} workers, not {count}")
        time.sleep(READY_POLL_SECONDS)
    return tuple(found)


def _wait_until_all_ready(port: int) -> None:
    """The ready line may come while volumes are still being recovered."""
    probe = Server("the Store", port, (), (), 0.0)
    deadline = time.monotonic() + READY_SECONDS
    while fetch(probe, "/readyz")[0] != 200:
        if time.monotonic() > deadline:
            raise CannotMeasure(f"the Store is not ready after {READY_SECONDS:g} s; its volumes are being recovered")
        time.sleep(READY_POLL_SECONDS)
