"""The proxies of ``deploy/`` as processes on loopback: their files as they are, with the placeholders filled in."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import Program, free_port, running

DEPLOY = Path(__file__).parents[2] / "deploy"
ALL_CORES = sorted(os.sched_getaffinity(0))

NGINX_MAIN = """\
daemon off;
{user}
worker_processes 2;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    include {folder}/photos.conf;
}}
"""
"""What a distribution's nginx.conf has around the files of conf.d."""


class PlaceholderMissing(AssertionError):
    """A file of ``deploy/`` has other placeholders than the test fills in."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that runs."""

    name: str
    host: str
    port: int
    tls_port: int = 0

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


def program(name: str) -> str:
    """Path of a program of Debian's. Raises FileNotFoundError."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        raise FileNotFoundError(f"{name} is not installed; docs/testing.md says which packages this campaign needs")
    return found


def filled(file: str, values: Mapping[str, str]) -> str:
    """The text of a file of ``deploy/`` with its placeholders replaced. Raises PlaceholderMissing."""
    text = (DEPLOY / file).read_text()
    for placeholder, value in values.items():
        if placeholder not in text:
            raise PlaceholderMissing(f"deploy/{file} has no {placeholder}")
        text = text.replace(placeholder, value)
    if "example" in (rest := "\n".join(line.partition("#")[0] for line in text.splitlines())):
        raise PlaceholderMissing(f"deploy/{file} has placeholders that the test does not know: {rest}")
    return text


@contextlib.contextmanager
def proxy(file: str, folder: Path, caches: Sequence[str], changes: Mapping[str, str]) -> Iterator[Proxy]:
    """Run the proxy that a file of ``deploy/`` configures.

    Parameters
    ----------
    caches: addresses of the two.
    changes: further texts of the file, and what stands there instead: shorter times, so that nobody has to wait.
    """
    folder.mkdir()
    kind = file.partition("-")[0].partition(".")[0]
    with _KINDS[kind](file, folder, caches, changes) as found:
        yield found


@contextlib.contextmanager
def _nginx(file: str, folder: Path, caches: Sequence[str], changes: Mapping[str, str]) -> Iterator[Proxy]:
    port, tls_port = free_port(), 0
    values = {"photos.example:80": f"127.0.0.1:{port}", **_of_caches(caches)}
    if "ssl_certificate" in (DEPLOY / file).read_text():
        tls_port = free_port()
        values["photos.example:443"] = f"127.0.0.1:{tls_port}"
        values |= _certificate(folder)
    else:
        values["/var/cache/nginx/photos"] = str(folder / "kept")
    values["photos.example"] = "photos.test"
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "photos.conf").write_text(filled(file, {**values, **changes}))
    (folder / "nginx.conf").write_text(NGINX_MAIN.format(user=user, folder=folder))
    argv = [program("nginx"), "-e", "stderr", "-c", str(folder / "nginx.conf")]
    with running(Program(file, argv, ALL_CORES, folder)) as process:
        process.wait_for_port(port)
        yield Proxy(file, "127.0.0.1", port, tls_port)


@contextlib.contextmanager
def _varnish(file: str, folder: Path, caches: Sequence[str], changes: Mapping[str, str]) -> Iterator[Proxy]:
    port = free_port()
    values = {}
    for number, address in enumerate(caches, 1):
        host, _, cache_port = address.rpartition(":")
        values[f'"cache{number}.example"; .port = "8100"'] = f'"{host}"; .port = "{cache_port}"'
    (folder / "photos.vcl").write_text(filled(file, {**values, **changes}))
    argv = [program("varnishd"), "-F", "-j", "none", "-n", str(folder / "work"), "-f", str(folder / "photos.vcl")]
    argv += ["-a", f"127.0.0.1:{port}", "-s", "malloc,64m"]
    with running(Program(file, argv, ALL_CORES, folder)) as process:
        process.wait_for_port(port)
        yield Proxy(file, "127.0.0.1", port)


@contextlib.contextmanager
def plain_varnish(folder: Path, origin: str) -> Iterator[Proxy]:
    """Run a Varnish that knows nothing of photos, as a CDN does not."""
    folder.mkdir()
    port = free_port()
    argv = [program("varnishd"), "-F", "-j", "none", "-n", str(folder / "work"), "-b", origin]
    argv += ["-a", f"127.0.0.1:{port}", "-s", "malloc,64m"]
    with running(Program("the CDN", argv, ALL_CORES, folder)) as process:
        process.wait_for_port(port)
        yield Proxy("the CDN", "127.0.0.1", port)


@contextlib.contextmanager
def _haproxy(file: str, folder: Path, caches: Sequence[str], changes: Mapping[str, str]) -> Iterator[Proxy]:
    port = free_port()
    values = {"photos.example:80": f"127.0.0.1:{port}", **_of_caches(caches)}
    (folder / "haproxy.cfg").write_text(filled(file, {**values, **changes}))
    with running(Program(file, [program("haproxy"), "-db", "-f", "haproxy.cfg"], ALL_CORES, folder)) as process:
        process.wait_for_port(port)
        yield Proxy(file, "127.0.0.1", port)


_KINDS = {"nginx": _nginx, "varnish": _varnish, "haproxy": _haproxy}


def _of_caches(caches: Sequence[str]) -> dict[str, str]:
    return {f"cache{number}.example:8100": address for number, address in enumerate(caches, 1)}


def _certificate(folder: Path) -> dict[str, str]:
    """A certificate of our own, and the placeholders that stand for it."""
    certificate, key = folder / "own.pem", folder / "own.key"
    argv = [program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=photos"]
    subprocess.run([*argv, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return {"/etc/ssl/photos.example.pem": str(certificate), "/etc/ssl/photos.example.key": str(key)}
