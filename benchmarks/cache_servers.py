"""What stands in front of a Store in measurements of caches: our Cache, Varnish, and nginx with proxy_cache."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks import procfs
from benchmarks.common import CannotMeasure
from benchmarks.processes import Program, free_port, running
from benchmarks.servers import (
    STORE_WORKER,
    NginxPlaces,
    Server,
    fetch,
    processes_of,
    run_nginx,
    wait_for,
)
from cache.desk import HEAD_COUNTS_SECONDS
from tools.children import Ready, parse_ready

CACHE_WORKER = "cache.worker"
HAYSTACK = (sys.executable, "-P", "-m", "tools.cli")

_REVALIDATIONS = re.compile(rb"^haystack_cache_revalidations_total ([0-9]+)$", re.MULTILINE)

VCL = """\
vcl 4.1;
backend store {{ .host = "127.0.0.1"; .port = "{store}"; }}
sub vcl_recv {{
    # What photos are asked for with says nothing about which photo it is.
    unset req.http.Cookie;
}}
"""

PROXY_HTTP = """\
    proxy_cache_path {folder}/cache levels=1:2 keys_zone=photos:256m inactive=10h max_size=64g use_temp_path=off;
    upstream store {{ server 127.0.0.1:{store}; keepalive 32; }}
"""
PROXY_SERVER = """\
        location / {
            proxy_pass http://store;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_cache photos;
            proxy_cache_key $uri;
            proxy_cache_lock on;
            proxy_buffers 64 16k;
        }
"""


@dataclass(frozen=True, slots=True)
class Backend:
    """A Directory and a Store that it knows."""

    directory_url: str
    store: Server


@contextlib.contextmanager
def backend(
    folder: Path, data: Path, *, volumes: int, cores: Sequence[int], store_workers: int = 1
) -> Iterator[Backend]:
    """Run a Directory and, for it, a Store over a data folder that has volumes 1 … ``volumes`` already."""
    directory_argv = [*HAYSTACK, "directory", "--data", str(folder / "directory"), "--port", "0"]
    with running(Program("the Directory", directory_argv, cores, folder)) as directory:
        url = directory.wait_for_line(parse_ready).url
        argv = [*HAYSTACK, "store", "--data", str(data), "--port", "0", "--admin-port", "0", "--directory", url]
        argv += ["--workers", str(store_workers)]
        with running(Program("the Store", argv, cores, folder)) as program:
            port = _port(program.wait_for_line(parse_ready))
            found, serving = processes_of(program, STORE_WORKER, store_workers)
            probe = Server("the Directory", int(urlsplit(url).port or 0), (), (), 0.0)
            wait_for(
                lambda: fetch(probe, f"/dir/lookup?volumeId={volumes}")[0] == 200, "the Directory knows the volumes"
            )
            yield Backend(url, Server("Store", port, found, serving, 0.0))


@contextlib.contextmanager
def cache(
    folder: Path, behind: Backend, *, memory_bytes: int, workers: int, cores: Sequence[int], policy: str | None = None
) -> Iterator[Server]:
    """Run our Cache: keeper and workers on the same cores."""
    argv = [*HAYSTACK, "cache", "--data", str(folder), "--port", "0", "--admin-port", "0"]
    argv += ["--directory", behind.directory_url, "--memory", str(memory_bytes), "--workers", str(workers)]
    argv += ["--policy", policy] if policy else []
    with running(Program("the Cache", argv, cores, folder.parent)) as program:
        port = _port(program.wait_for_line(parse_ready))
        found, serving = processes_of(program, CACHE_WORKER, workers)
        yield Server("Haystack", port, found, (*serving, program.pid), 0.0)


def wait_until_vouched(server: Server, path: str) -> None:
    """Wait until our Cache gives a photo out without asking a Store: it has followed the feed for a while by then.

    Raises CannotMeasure when it does not come to that.
    """

    def vouched() -> bool:
        fetch(server, path)
        time.sleep(1.5 * HEAD_COUNTS_SECONDS)  # what a Store has said counts for so long
        before = _revalidations(server)
        fetch(server, path)
        return _revalidations(server) == before

    wait_for(vouched, "the Cache vouches for what it has")


def _revalidations(server: Server) -> bytes:
    match = _REVALIDATIONS.search(fetch(server, "/metrics")[1])
    if match is None:
        raise CannotMeasure("the Cache's metrics do not say how often it has asked whether photos are there")
    return match[1]


@contextlib.contextmanager
def varnish(
    folder: Path, behind: Backend, *, memory_bytes: int, cores: Sequence[int], vcl: str = VCL
) -> Iterator[Server]:
    """Run Varnish, Debian's package, with its memory as malloc."""
    folder.mkdir()
    port = free_port()
    (folder / "photos.vcl").write_text(vcl.format(store=behind.store.port))
    program_path = shutil.which("varnishd") or "/usr/sbin/varnishd"
    argv = [program_path, "-F", "-j", "none", "-n", str(folder / "work"), "-f", str(folder / "photos.vcl")]
    argv += ["-a", f"127.0.0.1:{port}", "-s", f"malloc,{memory_bytes}"]
    with running(Program("Varnish", argv, cores, folder)) as program:
        program.wait_for_port(port)
        found = tuple(procfs.children(program.pid))
        yield Server("Varnish", port, (program.pid, *found), found, 0.0)


def nginx_cache(
    folder: Path, behind: Backend, *, workers: int, cores: Sequence[int], open_files: int, nopush: bool
) -> contextlib.AbstractContextManager[Server]:
    """Run nginx with proxy_cache; its files are in the page cache. Parameters as of ``run_nginx``."""
    http = PROXY_HTTP.format(folder=folder, store=behind.store.port)
    places = NginxPlaces("nginx proxy_cache", folder, http, PROXY_SERVER)
    return run_nginx(places, workers=workers, cores=cores, open_files=open_files, nopush=nopush)


def _port(ready: Ready) -> int:
    port = urlsplit(ready.url).port
    assert port is not None
    return port
