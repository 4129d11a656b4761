"""The two sides of most measurements: a Store and nginx, each on cores of its own choosing."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
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
READERS = 16
NGINX_WORKER = "nginx: worker process"

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
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {http}
    server {{
        listen 127.0.0.1:{port} reuseport;
        {server}
    }}
}}
"""
"""nginx at its best on one core: every open file stays in its cache, nothing is logged."""

STATIC_HTTP = """\
    etag on;
    default_type image/jpeg;
"""
STATIC_SERVER = """\
        root {root};
        add_header Cache-Control "public, max-age=31536000, immutable";
        add_header X-Content-Type-Options nosniff;
"""


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
        probe = Server("the Store", port, (), (), 0.0)
        wait_for(lambda: fetch(probe, "/readyz")[0] == 200, "all volumes of the Store are recovered")
        found, serving = processes_of(program, STORE_WORKER, workers)
        yield Server("Haystack", port, found, serving, ready_seconds)


def processes_of(program: Program, module: str, workers: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids of a node's processes, its supervisor first, and of its workers.

    Parameters
    ----------
    module: which its workers run.

    Raises CannotMeasure when a worker is missing.
    """
    children = procfs.children(program.pid)
    serving = tuple(pid for pid in children if module in procfs.command_line(pid))
    if len(serving) != workers:
        raise CannotMeasure(f"{workers} workers were asked for, {len(serving)} are there")
    return (program.pid, *children), serving


def nginx(
    folder: Path, root: Path, *, workers: int, cores: Sequence[int], open_files: int, nopush: bool
) -> contextlib.AbstractContextManager[Server]:
    """Run nginx over a folder of files; parameters as of :func:`run_nginx`.

    Parameters
    ----------
    root: what it serves.
    """
    places = NginxPlaces("nginx", folder, STATIC_HTTP, STATIC_SERVER.format(root=root))
    return run_nginx(places, workers=workers, cores=cores, open_files=open_files, nopush=nopush)


@dataclass(frozen=True, slots=True)
class NginxPlaces:
    """What is said to one nginx beyond the settings that all have.

    Parameters
    ----------
    folder: for its own files; it is made.
    http, server: more lines of these parts of its configuration.
    """

    name: str
    folder: Path
    http: str
    server: str


@contextlib.contextmanager
def run_nginx(
    places: NginxPlaces, *, workers: int, cores: Sequence[int], open_files: int, nopush: bool
) -> Iterator[Server]:
    """Run nginx.

    Parameters
    ----------
    open_files: how many files it may keep open.
    nopush: send head and body in the same packets (tcp_nopush), which is better for some sizes and worse for others.
    """
    folder = places.folder
    folder.mkdir()
    port = free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(
        NGINX_CONFIGURATION.format(
            # Started as root, it would become somebody who cannot reach the temporary files.
            user="user root;" if os.geteuid() == 0 else "",
            workers=workers,
            folder=folder,
            port=port,
            open_files=open_files,
            nopush="on" if nopush else "off",
            http=places.http.strip(),
            server=places.server.strip(),
        )
    )
    program_path = shutil.which("nginx") or "/usr/sbin/nginx"
    program = Program("nginx", [program_path, "-e", "stderr", "-c", str(configuration)], cores, folder)
    with running(program):
        program.wait_for_port(port)
        ready_seconds = time.perf_counter() - program.started
        # It listens before it starts its workers, and has others that look after caches, one of which ends by itself.
        wait_for(lambda: len(_nginx_workers(program)) >= workers, f"nginx starts {workers} workers")
        serving = _nginx_workers(program)
        name = f"{places.name}, tcp_nopush" if nopush else places.name
        yield Server(name, port, (program.pid, *serving), serving, ready_seconds)


def _nginx_workers(program: Program) -> tuple[int, ...]:
    return tuple(pid for pid in procfs.children(program.pid) if NGINX_WORKER in procfs.command_line(pid))


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition holds. Raises CannotMeasure when it does not come to that."""
    deadline = time.monotonic() + READY_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise CannotMeasure(f"waited {READY_SECONDS:g} s in vain: {what}")
        time.sleep(READY_POLL_SECONDS)


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
    """Ask for every photo, so that all caches have what they can hold. Raises CannotMeasure for a wrong answer.

    Several requests are under way at a time, so that a busy machine is not waited for twice with each.
    """
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(server.port)) for _ in range(READERS)]
        for start in range(0, times * len(photos), READERS):
            asked = [(client, photos[(start + n) % len(photos)]) for n, client in enumerate(clients)]
            for client, photo in asked:
                client.ask(photo.path)
            for client, photo in asked:
                if client.answered_size(photo.path) != photo.size_bytes:
                    raise CannotMeasure(f"{server.name} answered {photo.path} with another size")
