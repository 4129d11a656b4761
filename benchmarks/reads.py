"""Reads of photos in the page cache: one Store worker on one core beside nginx on one core.

Both serve the same photos, the Store out of volumes with everything on (checksum of every read, cookie, ETag, metrics),
nginx as plain files with sendfile and all files open in its cache. Both get the same requests in the same order from
the same wrk with 32 connections on another core. nginx takes part with tcp_nopush off and on, each of which is better
at something; every line is beside the better of the two.

With --workers 2 it is measured how reads scale: one worker that shares one core with one thread of wrk, then two
workers that share two cores with two threads of wrk, so that what doubles is everything.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import procfs, wrk
from benchmarks.common import (
    Report,
    Target,
    alternating,
    arguments,
    best,
    main,
    number,
    progress,
    require_cores,
    require_tools,
    settings_of,
    size_name,
)
from benchmarks.photos import Photo, PhotoMaker, fill_store, photo_set, write_files
from benchmarks.servers import Server, nginx, read_all, require_same_bodies, store

PHOTOS = {4096: 10_000, 65_536: 4_000, 200 * 1024: 2_000, 2**20: 600}
"""Number of photos by size: together far more than the processor's caches hold, and little beside the memory."""

TARGETS = {size: Target(at_least=1.1, aim=1.4) if size == 4096 else Target(at_least=0.95, aim=1.1) for size in PHOTOS}
P99_TARGET = Target(at_most=1.0)
SCALING_TARGET = Target(at_least=1.8)
VOLUMES = 7
CONNECTIONS = 32
SAMPLE = 20
WARM_UP = -1
"""Number of a round that does not count."""

OURS = "Haystack"
ALMOST_ALL = 0.97

BROWSER_HEADERS = """\
Accept: image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8
Accept-Encoding: gzip, deflate, br, zstd
Accept-Language: en-GB,en;q=0.9,de;q=0.8
Connection: keep-alive
DNT: 1
Referer: http://photos.example.org/albums/2024/summer
Sec-CH-UA: "Chromium";v="126", "Not/A)Brand";v="8"
Sec-CH-UA-Mobile: ?0
Sec-CH-UA-Platform: "Linux"
Sec-Fetch-Dest: image
Sec-Fetch-Mode: no-cors
Sec-Fetch-Site: same-origin
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36
"""
HEADERS = {"plain": "", "browser": BROWSER_HEADERS}


@dataclass(frozen=True, slots=True)
class Side:
    """One server with the cores that it and wrk have."""

    label: str
    server: Server
    wrk_cores: tuple[int, ...]
    wrk_threads: int


@dataclass(frozen=True, slots=True)
class Run:
    """One run of wrk; ``busy`` is the part of its core's time that the side's workers used."""

    result: wrk.Result
    busy: float

    @property
    def per_cpu_second(self) -> float:
        """Requests in one second of the workers' CPU time: hardly moved by what else the machine does."""
        return self.result.per_second / self.busy if self.busy else 0.0


@dataclass(frozen=True, slots=True)
class Bench:
    """Data and settings of one measurement."""

    options: argparse.Namespace
    folder: Path
    photos: dict[int, list[Photo]]

    def run(self, side: Side, size_bytes: int, headers: str, round_number: int) -> Run:
        """One run of wrk; its seed depends on the round alone."""
        cpu_before = procfs.cpu_seconds(side.server.workers)
        result = wrk.run(
            side.server.url,
            wrk.RANDOM_PATHS,
            [self.folder / f"paths-{size_bytes}", self.folder / f"headers-{headers}", 1000 + round_number],
            folder=self.folder,
            seconds=self.options.seconds,
            connections=CONNECTIONS * side.wrk_threads,
            threads=side.wrk_threads,
            cores=side.wrk_cores,
        )
        busy = (procfs.cpu_seconds(side.server.workers) - cpu_before) / result.seconds
        progress(
            f"  {side.label:<20} {size_name(size_bytes):>6} {headers:<7} {number(result.per_second):>8}/s"
            f"  p99 {result.p99_ms:.2f} ms  workers {busy:.2f} busy, wrk {result.busy:.2f}"
        )
        return Run(result, busy)


def measure(options: argparse.Namespace) -> Report:
    """Measure and report."""
    require_tools("wrk", "nginx", "taskset")
    with tempfile.TemporaryDirectory(prefix="haystack-reads-", dir=options.folder) as name:
        bench = _prepare(options, Path(name))
        if options.workers == 1:
            return _compare(bench)
        return _scale(bench)


def _prepare(options: argparse.Namespace, folder: Path) -> Bench:
    photos: dict[int, list[Photo]] = {}
    for number_, size_bytes in enumerate(options.sizes):
        photos[size_bytes] = photo_set(1 + number_ * 10**7, options.photos or PHOTOS[size_bytes], size_bytes, VOLUMES)
    everything = [photo for group in photos.values() for photo in group]
    procfs.require_room(folder, 2 * sum(photo.size_bytes for photo in everything))
    progress(f"writing {len(everything):,} photos twice, for Haystack and for nginx")
    maker = PhotoMaker()
    fill_store(folder / "store", everything, maker, volumes=VOLUMES)
    (folder / "files").mkdir()
    write_files(folder / "files", everything, maker)
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


def _compare(bench: Bench) -> Report:
    """One worker beside nginx."""
    server_core, wrk_core = require_cores(2)
    report = Report("Reads from the page cache, one core", settings_of(bench.options))
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(store(bench.folder / "store", workers=1, cores=[server_core]))
        sides = [Side(OURS, ours, (wrk_core,), 1)]
        for nopush in (False, True):
            peer = stack.enter_context(_nginx(bench, 1, [server_core], nopush=nopush))
            sides.append(Side(peer.name, peer, (wrk_core,), 1))
        _warm_up(bench, [side.server for side in sides])
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
    add_line(report, f"{what}: a CPU second of the worker", "requests", found, lambda run: run.per_cpu_second, None)
    for label, runs in found.items():
        if statistics.median(run.result.busy for run in runs) > ALMOST_ALL:
            report.note(f"{what}: wrk's own core was full, so the figure of {label} is a lower bound")


def add_line(
    report: Report,
    what: str,
    unit: str,
    found: Mapping[str, Sequence[Run]],
    quantity: Callable[[Run], float],
    target: Target | None,
    *,
    lower_is_better: bool = False,
) -> None:
    """Add a line, beside the peer that is best at this quantity."""
    values = {label: [quantity(run) for run in runs] for label, runs in found.items()}
    ours = values.pop(OURS)
    name, peer = best(values, lowest=lower_is_better)
    report.add(what, unit, ours, peer, peer_name=name, target=target)


def _scale(bench: Bench) -> Report:
    """Everything on one core, then everything on two."""
    first, second = require_cores(2)
    report = Report("Reads from the page cache, one and two cores shared with wrk", settings_of(bench.options))
    report.note(
        "one worker and one wrk thread share one core; two workers and two wrk threads share two. 2.0 is perfect"
    )
    for name in (OURS, "nginx"):
        for headers in bench.options.headers:
            _scale_side(bench, report, name, headers, (first, second))
    return report


def _scale_side(bench: Bench, report: Report, name: str, headers: str, cores: tuple[int, int]) -> None:
    """One Store may use a data folder at a time, so the servers are started anew for each number of cores."""
    found: dict[int, dict[int, list[Run]]] = {1: defaultdict(list), 2: defaultdict(list)}
    for round_number, workers in alternating(bench.options.rounds, [1, 2]):
        used = cores[:workers]
        with contextlib.ExitStack() as stack:
            if name == OURS:
                server = stack.enter_context(store(bench.folder / "store", workers=workers, cores=used))
            else:
                server = stack.enter_context(_nginx(bench, workers, used, nopush=True))
            _warm_up(bench, [server])
            side = Side(f"{name}, {workers} workers", server, used, workers)
            for size_bytes in bench.photos:
                bench.run(side, size_bytes, headers, WARM_UP)  # each worker prepares its own answers
                found[workers][size_bytes].append(bench.run(side, size_bytes, headers, round_number))
    for size_bytes in bench.photos:
        one, two = found[1][size_bytes], found[2][size_bytes]
        what = f"{name}, {size_name(size_bytes)}, {headers} headers: two cores"
        report.add(
            what,
            "requests/s",
            (run.result.per_second for run in two),
            (run.result.per_second for run in one),
            peer_name="one core",
            target=SCALING_TARGET if name == OURS else None,
        )
        report.add(
            f"{what}, a CPU second of the workers",
            "requests",
            (run.per_cpu_second for run in two),
            (run.per_cpu_second for run in one),
            peer_name="one core",
        )
        report.add(
            f"{what}, cores that workers and wrk had",
            "cores",
            (run.busy + run.result.busy for run in two),
            (run.busy + run.result.busy for run in one),
            peer_name="one core",
        )


def _nginx(
    bench: Bench, workers: int, cores: Sequence[int], *, nopush: bool
) -> contextlib.AbstractContextManager[Server]:
    files = sum(len(group) for group in bench.photos.values())
    folder = Path(tempfile.mkdtemp(prefix="nginx-", dir=bench.folder)) / "run"
    root = bench.folder / "files"
    return nginx(folder, root, workers=workers, cores=cores, open_files=files + 100, nopush=nopush)


def _parser() -> argparse.ArgumentParser:
    parser = arguments(__doc__, seconds=5, rounds=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(PHOTOS), metavar="BYTES", help="sizes of photos")
    parser.add_argument("--photos", type=int, metavar="N", help="photos of each size [10,000 of 4 KB … 600 of 1 MB]")
    parser.add_argument("--headers", nargs="+", choices=list(HEADERS), default=list(HEADERS), help="headers to send")
    parser.add_argument("--workers", type=int, choices=(1, 2), default=1, help="2: measure how reads scale")
    return parser


if __name__ == "__main__":
    main(measure, _parser())
