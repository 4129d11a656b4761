"""Two Caches behind nginx, Varnish and HAProxy, configured by the files of ``deploy/``.

``pytest tests/campaigns/test_behind_proxies.py`` takes about two minutes. See docs/testing.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "cluster"))

from campaign_proxies import Proxy, plain_varnish, program, proxy
from cluster_nodes import Cluster, ClusterOptions, Node, places, running_cluster

from haystack.client.sync import SyncHaystackClient
from haystack.fid import Fid
from haystack.signed_urls import UrlSigner
from haystack.store.answers import IMMUTABLE

SIZES = (1, 4096, 200_000, 5_000_000)
"""The last one is larger than what a Cache keeps of its memory: it passes through."""

KEPT_SECONDS = 3
"""How long proxies keep a photo here, in place of 60 s."""

PLAIN = ("nginx-proxy.conf", "haproxy.cfg", "haproxy-cdn.cfg")
KEEPING = ("nginx-cache.conf", "varnish.vcl", "haproxy-cache.cfg")
SHORTER: dict[str, dict[str, str]] = {
    "nginx-cache.conf": {"proxy_cache_valid 200 60s": f"proxy_cache_valid 200 {KEPT_SECONDS}s"},
    "varnish.vcl": {
        "beresp.ttl > 60s": f"beresp.ttl > {KEPT_SECONDS}s",
        "beresp.ttl = 60s": f"beresp.ttl = {KEPT_SECONDS}s",
    },
    "haproxy-cache.cfg": {"max-age 60": f"max-age {KEPT_SECONDS}", "total-max-size 1024": "total-max-size 64"},
}
OLD_NGINX = {
    "proxy_http_version 1.1;": "",
    'proxy_set_header Connection "";': "",
    "keepalive 64;": "",
    "keepalive_timeout 60s;": "",
}
"""What nginx does when nobody tells it otherwise: HTTP/1.0, and a connection for each request."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class Asking:
    """One connection to a proxy, opened again when the proxy has closed it in good order."""

    def __init__(self, host: str, port: int) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=15)

    def __enter__(self) -> Asking:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()

    def ask(self, method: str, path: str, **fields: str) -> Answer:
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        self._connection.request(method, path, headers=headers)
        answer = self._connection.getresponse()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())

    def get(self, path: str, **fields: str) -> Answer:
        return self.ask("GET", path, **fields)


def asking(found: Proxy) -> Asking:
    return Asking(found.host, found.port)


class Photos:
    """Puts photos into the cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._directory = cluster.directory.address
        self._signer = UrlSigner(cluster.secret)

    def assign(self) -> tuple[Fid, str]:
        """A new name, and the address of the Store that takes it."""
        found = _json(self._directory, "/dir/assign")
        return Fid.parse(found["fid"]), found["url"]

    def put(self, body: bytes, place: tuple[Fid, str] | None = None, query: str = "") -> Fid:
        fid, address = place or self.assign()
        connection = http.client.HTTPConnection(address, timeout=15)
        with contextlib.closing(connection):
            connection.request("PUT", f"/{fid}{query}", body, {"Content-Type": "image/jpeg"})
            assert connection.getresponse().status == 201
        return fid

    def delete(self, fid: Fid) -> None:
        with SyncHaystackClient(f"http://{self._directory}") as client:
            client.delete(fid)

    def signed(self, fid: Fid) -> str:
        """Path with the right signature."""
        return f"/{fid}?{self._signer.query(fid, int(time.time()) + 300)}"


def _json(address: str, path: str) -> dict[str, str]:
    connection = http.client.HTTPConnection(address, timeout=15)
    with contextlib.closing(connection):
        connection.request("GET", path)
        return dict(json.loads(connection.getresponse().read()))


def body_of(size_bytes: int) -> bytes:
    return random.Random(size_bytes).randbytes(size_bytes)


def counter(node: Node, name: str) -> int:
    connection = http.client.HTTPConnection(node.address, timeout=15)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    values = [int(float(line.rpartition(" ")[2])) for line in lines if line.startswith(name)]
    assert values, f"there is no {name}"
    return sum(values)


@contextlib.contextmanager
def cluster_of(folder: Path, **settings: str) -> Iterator[Cluster]:
    environ = {f"HAYSTACK_CACHE_{name.upper()}": value for name, value in settings.items()}
    options = ClusterOptions(places("dc1/A", "dc1/A"), writable_volumes=2, caches=2, environ=environ)
    with running_cluster(folder, options) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster_of(tmp_path_factory.mktemp("proxies")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def photos(cluster: Cluster) -> Photos:
    return Photos(cluster)


@pytest.fixture(scope="module")
def fids(photos: Photos) -> dict[int, Fid]:
    return {size: photos.put(body_of(size)) for size in SIZES}


@contextlib.contextmanager
def in_front(cluster: Cluster, file: str, folder: Path, changes: Mapping[str, str] | None = None) -> Iterator[Proxy]:
    changes = SHORTER.get(file, {}) if changes is None else changes
    with proxy(file, folder / "proxy", [node.address for node in cluster.caches], changes) as found:
        _until_ready(found)
        yield found


def _until_ready(found: Proxy) -> None:
    """Until its own checks have seen the Caches: what it does not know it answers itself, with 503."""
    deadline = time.monotonic() + 15
    with asking(found) as client:
        while client.get("/1,0123456789abcdef01").status == 503:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.parametrize("file", [*PLAIN, *KEEPING])
def test_answers_are_those_of_a_cache(
    cluster: Cluster, photos: Photos, fids: dict[int, Fid], tmp_path: Path, file: str
) -> None:
    with in_front(cluster, file, tmp_path) as found, asking(found) as client:
        for size, fid in fids.items():
            check_photo(client, fid, body_of(size), "s-maxage" if "cdn" in file else "")
        check_not_kept(client, photos)
        assert client.get("/metrics").status == 404
        assert client.ask("POST", f"/{fids[1]}").status in (403, 405)


@pytest.mark.parametrize("file", ["nginx-proxy.conf", "nginx-cache.conf"])
def test_nginx_with_http_1_0(cluster: Cluster, fids: dict[int, Fid], tmp_path: Path, file: str) -> None:
    with in_front(cluster, file, tmp_path, OLD_NGINX) as found, asking(found) as client:
        for size, fid in fids.items():
            check_photo(client, fid, body_of(size))


def check_photo(client: Asking, fid: Fid, body: bytes, more: str = "") -> None:
    path = f"/{fid}"
    for _ in range(3):
        whole = client.get(path)
        assert (whole.status, hashlib.sha256(whole.body).digest()) == (200, hashlib.sha256(body).digest())
    headers = whole.headers
    expected = IMMUTABLE.replace(", immutable", f", {more}=60, immutable") if more else IMMUTABLE
    assert headers["cache-control"] == expected
    assert headers["content-length"] == str(len(body))
    assert headers["x-cache"] in ("hit", "miss", "pass")
    # Varnish 7.1 puts its own Via in place of what there was.
    assert "1.1 haystack-cache" in headers["via"] or headers["via"].startswith("1.1 varnish")
    assert int(headers.get("age", "0")) < 120
    tag, modified = headers["etag"], headers["last-modified"]
    head = client.ask("HEAD", path)
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(body)))
    assert (head.headers["etag"], head.headers["content-type"]) == (tag, "image/jpeg")
    for condition in ({"If_None_Match": tag}, {"If_Modified_Since": modified}):
        same = client.get(path, **condition)
        assert (same.status, same.body, same.headers["etag"]) == (304, b"", tag), condition
    assert client.get(path, If_None_Match='"other"').status == 200
    several = client.get(path, If_None_Match=f'"other", {tag}')  # Varnish 7.1 knows one tag alone
    assert several.status == 304 or (several.status, several.body) == (200, body)
    check_ranges(client, path, body, tag)


def check_ranges(client: Asking, path: str, body: bytes, tag: str) -> None:
    size = len(body)
    for text, start, end in (("0-0", 0, 1), ("-1", size - 1, size), (f"{size // 2}-", size // 2, size)):
        part = client.get(path, Range=f"bytes={text}")
        # HAProxy's own cache knows no ranges, and may answer with the whole photo.
        assert part.status in (200, 206), text
        assert part.body == (body[start:end] if part.status == 206 else body), text
        if part.status == 206:
            assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
    assert client.get(path, Range="bytes=0-0", If_Range=tag).body in (body[:1], body)
    other = client.get(path, Range="bytes=0-0", If_Range='"other"')
    assert (other.status, other.body) == (200, body)
    outside = client.get(path, Range=f"bytes={size}-")
    assert outside.status == 416 or (outside.status, outside.body) == (200, body)


def check_not_kept(client: Asking, photos: Photos) -> None:
    """What is not there may come; what one may see is not for everybody."""
    place = photos.assign()
    missing = client.get(f"/{place[0]}")
    assert (missing.status, missing.headers["cache-control"]) == (404, "no-store")
    photos.put(b"late", place)
    time.sleep(1.1)  # a Cache remembers for a second that it was not there
    assert client.get(f"/{place[0]}").body == b"late"
    private = photos.put(b"private", query="?signed=true")
    for _ in range(3):
        right = client.get(photos.signed(private))
        assert (right.status, right.body) == (200, b"private")
        assert right.headers["cache-control"].startswith("private, max-age=")
        assert right.headers.get("age", "0") == "0"
        assert client.get(f"/{private}").status == 404


@pytest.mark.parametrize("file", KEEPING)
def test_a_proxy_keeps_a_photo_and_gives_a_deleted_one_for_no_longer_than_it_says(
    cluster: Cluster, photos: Photos, tmp_path: Path, file: str
) -> None:
    with in_front(cluster, file, tmp_path) as found, asking(found) as client:
        old, fid = (photos.put(body_of(20_000)) for _ in range(2))
        first = [node for node in cluster.caches if asked_directly(node, old)]
        assert len(first) == 2  # both have it
        time.sleep(KEPT_SECONDS + 1)  # older in the Cache than a proxy would keep it
        for one in (old, fid):
            assert client.get(f"/{one}").status == 200
            before = requests_at(cluster)
            for _ in range(20):
                assert client.get(f"/{one}").body == body_of(20_000)
            assert requests_at(cluster) - before <= 2, "the proxy does not keep what it may keep"
        photos.delete(fid)
        deleted = time.monotonic()
        while client.get(f"/{fid}").status == 200:
            assert time.monotonic() - deleted < KEPT_SECONDS + 1.5
            time.sleep(0.05)
        assert client.get(f"/{fid}").status == 404
        assert client.get(f"/{old}").body == body_of(20_000)


@pytest.mark.parametrize("file", ["nginx-cache.conf", "varnish.vcl"])
def test_what_was_kept_for_long_is_asked_for_again_and_not_sent_again(
    cluster: Cluster, photos: Photos, tmp_path: Path, file: str
) -> None:
    fid = photos.put(body_of(500_000))
    with in_front(cluster, file, tmp_path) as found, asking(found) as client:
        assert client.get(f"/{fid}").status == 200
        sent = sum(counter(node, "haystack_cache_result_bytes_total") for node in cluster.caches)
        for _ in range(2):
            time.sleep(KEPT_SECONDS + 0.5)
            before = requests_at(cluster)
            assert client.get(f"/{fid}").body == body_of(500_000)
            assert requests_at(cluster) > before
        assert sum(counter(node, "haystack_cache_result_bytes_total") for node in cluster.caches) - sent < 400_000


def test_varnish_forgets_what_it_is_told_to(cluster: Cluster, photos: Photos, tmp_path: Path) -> None:
    fid = photos.put(b"photo")
    with in_front(cluster, "varnish.vcl", tmp_path, {}) as found, asking(found) as client:
        assert client.get(f"/{fid}").status == 200
        photos.delete(fid)
        time.sleep(1.0)
        assert client.get(f"/{fid}").status == 200
        assert client.ask("PURGE", f"/{fid}").status == 200
        assert client.get(f"/{fid}").status == 404


def test_a_cdn_asks_its_origin_again_after_the_time_it_was_given(
    cluster: Cluster, photos: Photos, tmp_path: Path
) -> None:
    """A Varnish that knows nothing of us is the CDN; its origin is HAProxy."""
    fid = photos.put(b"photo")
    assert all(asked_directly(node, fid) for node in cluster.caches)
    time.sleep(KEPT_SECONDS + 1)
    changes = {"s-maxage=60": f"s-maxage={KEPT_SECONDS}"}
    with (
        in_front(cluster, "haproxy-cdn.cfg", tmp_path, changes) as origin,
        plain_varnish(tmp_path / "cdn", origin.address) as cdn,
        asking(cdn) as client,
    ):
        for _ in range(10):
            assert client.get(f"/{fid}").body == b"photo"
        before = requests_at(cluster)
        assert client.get(f"/{fid}").body == b"photo"
        assert requests_at(cluster) == before
        photos.delete(fid)
        deleted = time.monotonic()
        while client.get(f"/{fid}").status == 200:
            assert time.monotonic() - deleted < KEPT_SECONDS + 10 + 1.5  # with Varnish's usual grace
            time.sleep(0.1)


def asked_directly(node: Node, fid: Fid) -> bool:
    connection = http.client.HTTPConnection(node.address, timeout=15)
    with contextlib.closing(connection):
        connection.request("GET", f"/{fid}")
        return connection.getresponse().status == 200


def requests_at(cluster: Cluster) -> int:
    """Requests for photos at all Caches, once they were all counted: hits are four times a second."""
    time.sleep(0.6)
    return sum(counter(node, "haystack_cache_results_total") for node in cluster.caches)


@pytest.mark.parametrize(("file", "secure"), [("nginx-proxy.conf", True), ("haproxy.cfg", False)])
def test_http_2_for_clients(cluster: Cluster, fids: dict[int, Fid], tmp_path: Path, file: str, secure: bool) -> None:
    with in_front(cluster, file, tmp_path) as found:
        base = f"https://127.0.0.1:{found.tls_port}" if secure else f"http://{found.address}"
        for size, fid in fids.items():
            out = tmp_path / f"{size}"
            argv = [program("curl"), "-sk", "--http2" if secure else "--http2-prior-knowledge", "-o", str(out)]
            argv += ["-w", "%{http_version} %{http_code}", f"{base}/{fid}"]
            said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
            assert (said, out.read_bytes()) == ("2 200", body_of(size))


@pytest.mark.parametrize("file", [*PLAIN, *KEEPING])
def test_thousands_of_requests_without_one_that_fails(
    cluster: Cluster, fids: dict[int, Fid], tmp_path: Path, file: str
) -> None:
    script = tmp_path / "paths.lua"
    paths = ", ".join(f'"/{fids[size]}"' for size in SIZES[:3])
    script.write_text(
        f"local paths = {{{paths}}}\nlocal n = 0\n"
        "request = function() n = n + 1; return wrk.format('GET', paths[n % 3 + 1]) end\n"
        "done = function(s) local e = s.errors; io.write(string.format('ours %d %d\\n', s.requests,"
        " e.status + e.connect + e.read + e.write + e.timeout)) end\n"
    )
    with in_front(cluster, file, tmp_path) as found:
        argv = [program("wrk"), "-t1", "-c16", "-d3s", "-s", str(script), f"http://{found.address}"]
        said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        count, failed = map(int, said.rpartition("ours ")[2].split())
        print(f"\n{file}: {count} requests", flush=True)
        assert count > 1000 and failed == 0


IDLE = {
    "nginx-proxy.conf": {"keepalive_timeout 60s": "keepalive_timeout 20s"},
    "haproxy.cfg": {},
    "varnish.vcl": {"beresp.ttl > 60s": "beresp.ttl > 0s", "beresp.ttl = 60s": "beresp.ttl = 0s"},
}
"""Proxies that keep connections for longer than the Caches do (below): the worst case, not what is advised."""


def test_connections_that_the_cache_closes_while_a_proxy_wants_to_use_them(tmp_path: Path) -> None:
    with cluster_of(tmp_path / "cluster", idle_timeout_seconds="1s") as cluster:
        fid = Photos(cluster).put(body_of(4096))
        for file, changes in IDLE.items():
            folder = tmp_path / file
            folder.mkdir()
            with in_front(cluster, file, folder, changes) as found:
                failed = together(16, partial(pausing, found, fid))
                assert not failed, (file, failed)


def pausing(found: Proxy, fid: Fid, number: int) -> None:
    """Ask again just when the idle connection is about to be closed: after one to two seconds, by the Cache's sweep."""
    chance = random.Random(number)
    with asking(found) as client:
        for _ in range(8):
            assert client.get(f"/{fid}").body == body_of(4096)
            time.sleep(chance.uniform(0.95, 2.1))


@pytest.mark.parametrize("file", ["nginx-proxy.conf", "haproxy.cfg", "varnish.vcl"])
def test_a_cache_is_killed_while_requests_go_through(
    cluster: Cluster, photos: Photos, tmp_path: Path, file: str
) -> None:
    bodies = {photos.put(body_of(size)): body_of(size) for size in (1, 4096, 4097, 20_000, 20_001, 60_000)}
    # Nothing is kept by the proxy, so each request needs a Cache.
    changes = {"beresp.ttl > 60s": "beresp.ttl > 0s", "beresp.ttl = 60s": "beresp.ttl = 0s"}
    with in_front(cluster, file, tmp_path, changes if file == "varnish.vcl" else {}) as found:
        ended = threading.Event()
        counts = [0] * 4

        def read(number: int) -> None:
            with asking(found) as client:
                while not ended.is_set():
                    for fid, body in bodies.items():
                        answer = client.get(f"/{fid}")
                        assert (answer.status, answer.body == body) == (200, True), answer.headers
                        counts[number] += 1

        def kill(_number: int) -> None:
            try:
                for node in cluster.caches:
                    time.sleep(1.5)
                    node.kill()
                    time.sleep(2.5)
                    node.start()
                    time.sleep(6.0)  # until the proxy takes it for well again
            finally:
                ended.set()

        failed = together(5, lambda number: kill(number) if number == 4 else read(number))
        print(f"\n{file}: {sum(counts)} requests", flush=True)
        assert not failed and sum(counts) > 1000


def together(count: int, work: Callable[[int], None]) -> list[BaseException]:
    """Do it for each number at the same time; what went wrong."""
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


@pytest.mark.parametrize("file", [*KEEPING, *PLAIN])
def test_admission_of_the_paper_goes_by_what_proxies_say(tmp_path: Path, file: str) -> None:
    with cluster_of(tmp_path / "cluster", admission="paper") as cluster:
        fid = Photos(cluster).put(body_of(4096))
        with in_front(cluster, file, tmp_path) as found, asking(found) as client:
            assert client.get(f"/{fid}").headers["x-cache"] == ("pass" if file in KEEPING else "miss")
            if file in PLAIN:  # they are on the way, and no cache: users ask
                assert client.get(f"/{fid}").headers["x-cache"] == "hit"
                other = Photos(cluster).put(body_of(4096))
                assert client.get(f"/{other}", Via="1.1 cdn").headers["x-cache"] == "pass"
