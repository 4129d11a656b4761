"""Hits of a cache: our Cache on one core beside Varnish and nginx with proxy_cache on one core.

All stand in front of the same Store, have all photos in memory before the clock starts (nginx: in the page cache), and
get the same requests in the same order from the same wrk with 32 connections on another core. nginx takes part with
tcp_nopush off and on, each of which is better at something; every line is beside the best of the others. The keeper of
our Cache shares the core with its worker; Store and Directory, which have nothing to do by then, are on wrk's core.

With --workers 2 it is measured how hits scale: one worker that shares one core with one thread of wrk, then two workers
that share two cores with two threads of wrk, so that what doubles is everything.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import procfs
from benchmarks.cache_servers import Backend, backend, cache, nginx_cache, varnish
from benchmarks.common import (
    PACKAGES,
    Report,
    Target,
    alternating,
    arguments,
    main,
    progress,
    require_cores,
    require_tools,
    settings_of,
    size_name,
)
from benchmarks.photos import Photo, PhotoMaker, fill_store, photo_set
from benchmarks.reads import HEADERS, OURS, PHOTOS, SAMPLE, VOLUMES, Bench, Run, Side, add_line
from benchmarks.servers import Server, read_all, require_same_bodies

TARGETS = {
    4096: Target(at_least=1.4, aim=1.8),
    65_536: Target(at_least=1.2, aim=1.4),
    200 * 1024: Target(at_least=1.0, aim=1.2),
    2**20: Target(at_least=1.0, aim=1.2),
}
P99_TARGET = Target(at_most=1.0)
SCALING_TARGET = Target(at_least=1.8)
MEMORY_BYTES = 4 * 2**30
WARM_UP = -1

PACKAGES["varnishd"] = "varnish"


@dataclass(frozen=True, slots=True)
class Front:
    """The measurement and what all caches stand in front of."""

    bench: Bench
    behind: Backend


def measure(options: argparse.Namespace) -> Report:
    """Measure and report."""
    require_tools("wrk", "nginx", "varnishd", "taskset")
    server_core, wrk_core = require_cores(2)
    with tempfile.TemporaryDirectory(prefix="haystack-cache-", dir=options.folder) as name:
        bench = _prepare(options, Path(name))
        with backend(bench.folder, bench.folder / "store", volumes=VOLUMES, cores=[wrk_core]) as behind:
            front = Front(bench, behind)
            if options.workers == 1:
                return _compare(front, server_core, wrk_core)
            return _scale(front, (server_core, wrk_core))


def _prepare(options: argparse.Namespace, folder: Path) -> Bench:
    photos: dict[int, list[Photo]] = {}
    for number, size_bytes in enumerate(options.sizes):
        photos[size_bytes] = photo_set(1 + number * 10**7, options.photos or PHOTOS[size_bytes], size_bytes, VOLUMES)
    everything = [photo for group in photos.values() for photo in group]
    procfs.require_room(folder, 3 * sum(photo.size_bytes for photo in everything))
    progress(f"writing {len(everything):,} photos for the Store")
    fill_store(folder / "store", everything, PhotoMaker(), volumes=VOLUMES)
    for size_bytes, group in photos.items():
        (folder / f"paths-{size_bytes}").write_text("".join(f"{photo.path}\n" for photo in group))
    for kind, lines in HEADERS.items():
        (folder / f"headers-{kind}").write_text(lines)
    return Bench(options, folder, photos)


def _warm_up(bench: Bench, servers: Sequence[Server]) -> None:
    maker = PhotoMaker()
    for server in servers:
        progress(f"{server.name}: reading everything twice")
        for group in bench.photos.values():
            require_same_bodies(server, random.Random(1).sample(group, min(SAMPLE, len(group))), maker)
            read_all(server, group, times=2)


def _ours(front: Front, workers: int, cores: Sequence[int]) -> contextlib.AbstractContextManager[Server]:
    folder = Path(tempfile.mkdtemp(prefix="cache-", dir=front.bench.folder))
    return cache(folder, front.behind, memory_bytes=MEMORY_BYTES, workers=workers, cores=cores)


def _nginx(
    front: Front, workers: int, cores: Sequence[int], *, nopush: bool
) -> contextlib.AbstractContextManager[Server]:
    folder = Path(tempfile.mkdtemp(prefix="nginx-", dir=front.bench.folder)) / "run"
    files = sum(len(group) for group in front.bench.photos.values())
    return nginx_cache(folder, front.behind, workers=workers, cores=cores, open_files=files + 100, nopush=nopush)


def _compare(front: Front, server_core: int, wrk_core: int) -> Report:
    bench = front.bench
    report = Report("Hits of a cache, one core", settings_of(bench.options))
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(_ours(front, 1, [server_core]))]
        folder = bench.folder / "varnish"
        peers.append(stack.enter_context(varnish(folder, front.behind, memory_bytes=MEMORY_BYTES, cores=[server_core])))
        for nopush in (False, True):
            peers.append(stack.enter_context(_nginx(front, 1, [server_core], nopush=nopush)))
        sides = [Side(server.name if number else OURS, server, (wrk_core,), 1) for number, server in enumerate(peers)]
        _warm_up(bench, peers)
        for size_bytes in bench.photos:
            for headers in bench.options.headers:
                _compare_at(bench, report, sides, size_bytes, headers)
    return report


def _compare_at(bench: Bench, report: Report, sides: Sequence[Side], size_bytes: int, headers: str) -> None:
    found: dict[str, list[Run]] = {side.label: [] for side in sides}
    for round_number, side in alternating(bench.options.rounds, sides):
        found[side.label].append(bench.run(side, size_bytes, headers, round_number))
    what = f"{size_name(size_bytes)}, {headers} headers"
    add_line(report, what, "requests/s", found, lambda run: run.result.per_second, TARGETS.get(size_bytes))
    add_line(report, f"{what}: p50", "ms", found, lambda run: run.result.p50_ms, None, lower_is_better=True)
    add_line(report, f"{what}: p99", "ms", found, lambda run: run.result.p99_ms, P99_TARGET, lower_is_better=True)
    add_line(report, f"{what}: a CPU second of the server", "requests", found, lambda run: run.per_cpu_second, None)
    for label in found:
        values = [run.result.per_second for run in found[label]]
        if label != OURS:
            report.add(f"{what}: beside {label}", "requests/s", _per_second(found[OURS]), values, peer_name=label)


def _per_second(runs: Sequence[Run]) -> list[float]:
    return [run.result.per_second for run in runs]


def _scale(front: Front, cores: tuple[int, int]) -> Report:
    """Everything on one core, then everything on two."""
    bench = front.bench
    report = Report("Hits of a cache, one and two cores shared with wrk", settings_of(bench.options))
    report.note(
        "one worker and one wrk thread share one core; two workers and two wrk threads share two. 2.0 is perfect"
    )
    for headers in bench.options.headers:
        found: dict[int, dict[int, list[Run]]] = {1: defaultdict(list), 2: defaultdict(list)}
        for round_number, workers in alternating(bench.options.rounds, [1, 2]):
            used = cores[:workers]
            with _ours(front, workers, used) as server:
                _warm_up(bench, [server])
                side = Side(f"{OURS}, {workers} workers", server, used, workers)
                for size_bytes in bench.photos:
                    bench.run(side, size_bytes, headers, WARM_UP)  # each worker prepares its own answers
                    found[workers][size_bytes].append(bench.run(side, size_bytes, headers, round_number))
        for size_bytes in bench.photos:
            report.add(
                f"{size_name(size_bytes)}, {headers} headers: two cores",
                "requests/s",
                _per_second(found[2][size_bytes]),
                _per_second(found[1][size_bytes]),
                peer_name="one core",
                target=SCALING_TARGET,
            )
    return report


def _parser() -> argparse.ArgumentParser:
    parser = arguments(__doc__, seconds=5, rounds=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(PHOTOS), metavar="BYTES", help="sizes of photos")
    parser.add_argument("--photos", type=int, metavar="N", help="photos of each size [10,000 of 4 KB … 600 of 1 MB]")
    parser.add_argument("--headers", nargs="+", choices=list(HEADERS), default=list(HEADERS), help="headers to send")
    parser.add_argument("--workers", type=int, choices=(1, 2), default=1, help="2: measure how hits scale")
    return parser


if __name__ == "__main__":
    main(measure, _parser())
