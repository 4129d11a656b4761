"""Servers side by side: the same photos, the same requests from the same wrk, in turns.

What measurements of reads and of caches share. All sides have everything in memory before the clock starts, and get the
same requests in the same order from the same wrk with 32 connections on another core.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import procfs, wrk
from benchmarks.common import Report, Target, alternating, arguments, best, number, progress, size_name
from benchmarks.photos import Photo, PhotoMaker, fill_store, photo_set
from benchmarks.servers import Server, read_all, require_same_bodies

PHOTOS = {4096: 10_000, 65_536: 4_000, 200 * 1024: 2_000, 2**20: 600}
"""Number of photos by size: together far more than the processor's caches hold, and little beside the memory."""

P99_TARGET = Target(at_most=1.0)
SCALING_TARGET = Target(at_least=1.8)
VOLUMES = 7
CONNECTIONS = 32
SAMPLE = 20
WARM_UP = -1
"""Number of a round that does not count."""

OURS = "Haystack"
ALMOST_ALL = 0.97
HEADERS_MATTER_BYTES = 100_000
"""For photos above this it makes no difference how long the head of a request is: one kind is measured."""

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
class Bench:
    """Data and settings of one measurement."""

    options: argparse.Namespace
    folder: Path
    photos: dict[int, list[Photo]]

    def run(self, side: Side, size_bytes: int, headers: str, round_number: int) -> wrk.Run:
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
        return wrk.Run(result, busy)


def headers_for(bench: Bench, size_bytes: int) -> Sequence[str]:
    """The kinds of headers to measure photos of a size with."""
    kinds: list[str] = bench.options.headers
    return kinds if size_bytes < HEADERS_MATTER_BYTES else kinds[:1]


def prepare(options: argparse.Namespace, folder: Path, *, copies: int) -> Bench:
    """Choose the photos and write them for a Store, in ``folder / "store"``; and what wrk needs.

    Parameters
    ----------
    copies: how often all photos will lie in the folder in the end.
    """
    photos: dict[int, list[Photo]] = {}
    for number_, size_bytes in enumerate(options.sizes):
        photos[size_bytes] = photo_set(1 + number_ * 10**7, options.photos or PHOTOS[size_bytes], size_bytes, VOLUMES)
    everything = [photo for group in photos.values() for photo in group]
    procfs.require_room(folder, copies * sum(photo.size_bytes for photo in everything))
    progress(f"writing {len(everything):,} photos for the Store")
    fill_store(folder / "store", everything, PhotoMaker(), volumes=VOLUMES)
    for size_bytes, group in photos.items():
        (folder / f"paths-{size_bytes}").write_text("".join(f"{photo.path}\n" for photo in group))
    for kind, lines in HEADERS.items():
        (folder / f"headers-{kind}").write_text(lines)
    return Bench(options, folder, photos)


def warm_up(bench: Bench, servers: Sequence[Server]) -> None:
    """See that all servers answer alike, and have them read everything twice. Raises CannotMeasure."""
    maker = PhotoMaker()
    for server in servers:
        progress(f"{server.name}: reading everything twice")
        for group in bench.photos.values():
            require_same_bodies(server, random.Random(1).sample(group, min(SAMPLE, len(group))), maker)
            read_all(server, group, times=2)


def compare_at(
    bench: Bench, report: Report, sides: Sequence[Side], size_bytes: int, headers: str, target: Target | None
) -> dict[str, list[wrk.Run]]:
    """Measure one size with one kind of headers, and add its lines; returns the runs of each side.

    Parameters
    ----------
    target: for our requests a second beside those of the best of the others.
    """
    found: dict[str, list[wrk.Run]] = {side.label: [] for side in sides}
    for round_number, side in alternating(bench.options.rounds, sides):
        found[side.label].append(bench.run(side, size_bytes, headers, round_number))
    what = f"{size_name(size_bytes)}, {headers} headers"
    add_line(report, what, "requests/s", found, lambda run: run.result.per_second, target)
    add_line(report, f"{what}: p50", "ms", found, lambda run: run.result.p50_ms, None, lower_is_better=True)
    add_line(report, f"{what}: p99", "ms", found, lambda run: run.result.p99_ms, P99_TARGET, lower_is_better=True)
    add_line(report, f"{what}: a CPU second of the server", "requests", found, lambda run: run.per_cpu_second, None)
    for label, runs in found.items():
        if statistics.median(run.result.busy for run in runs) > ALMOST_ALL:
            report.note(f"{what}: wrk's own core was full, so the figure of {label} is a lower bound")
    return found


def add_line(
    report: Report,
    what: str,
    unit: str,
    found: Mapping[str, Sequence[wrk.Run]],
    quantity: Callable[[wrk.Run], float],
    target: Target | None,
    *,
    lower_is_better: bool = False,
) -> None:
    """Add a line, beside the peer that is best at this quantity."""
    values = {label: [quantity(run) for run in runs] for label, runs in found.items()}
    ours = values.pop(OURS)
    name, peer = best(values, lowest=lower_is_better)
    report.add(what, unit, ours, peer, peer_name=name, target=target)


Scaled = dict[int, dict[int, list[wrk.Run]]]
"""Runs by the number of workers, and by the size of photos."""


def scale(
    bench: Bench,
    label: str,
    headers: str,
    cores: tuple[int, int],
    start: Callable[[int, Sequence[int]], AbstractContextManager[Server]],
) -> Scaled:
    """Everything on one core, then everything on two: as many workers and as many threads of wrk as cores.

    Parameters
    ----------
    start: runs the server with so many workers on these cores.
    """
    found: Scaled = {1: defaultdict(list), 2: defaultdict(list)}
    for round_number, workers in alternating(bench.options.rounds, [1, 2]):
        used = cores[:workers]
        with start(workers, used) as server:
            warm_up(bench, [server])
            side = Side(f"{label}, {workers} workers", server, used, workers)
            for size_bytes in bench.photos:
                if headers in headers_for(bench, size_bytes):
                    bench.run(side, size_bytes, headers, WARM_UP)  # each worker prepares its own answers
                    found[workers][size_bytes].append(bench.run(side, size_bytes, headers, round_number))
    return found


def tell_scaled(
    report: Report,
    what: str,
    unit: str,
    found: Scaled,
    size_bytes: int,
    quantity: Callable[[wrk.Run], float],
    target: Target | None = None,
) -> None:
    """Add a line of two cores beside one."""
    one, two = ([quantity(run) for run in found[workers][size_bytes]] for workers in (1, 2))
    report.add(what, unit, two, one, peer_name="one core", target=target)


def parser_for(description: str | None, *, seconds: float, rounds: int, scales: str) -> argparse.ArgumentParser:
    """The options of these measurements.

    Parameters
    ----------
    scales: what ``--workers 2`` measures the scaling of.
    """
    parser = arguments(description, seconds=seconds, rounds=rounds)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(PHOTOS), metavar="BYTES", help="sizes of photos")
    parser.add_argument("--photos", type=int, metavar="N", help="photos of each size [10,000 of 4 KB … 600 of 1 MB]")
    parser.add_argument(
        "--headers",
        nargs="+",
        choices=list(HEADERS),
        default=list(HEADERS),
        help="headers to send; photos above 100 KB are asked for with the first alone",
    )
    parser.add_argument("--workers", type=int, choices=(1, 2), default=1, help=f"2: measure how {scales} scale")
    return parser
