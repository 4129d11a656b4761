"""Reads of photos that are not in the page cache: a Store beside fio on the same disk, on the same files.

Before every run the Store is stopped, the page cache of the machine is emptied (needs root), and the Store is started
again; then every photo is asked for at most once, in random order. fio reads blocks of the same size at the same depth
from the Store's own volume files, past the page cache (O_DIRECT): the disk's raw rate, without the copy that every
server has to make. Disk reads are the kernel's count for the whole disk, so nothing else should use it meanwhile.

In the same runs, at the largest depth, another client asks at a fixed pace for photos that are in the page cache; its
latencies count from when each request was due.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks import disk, procfs, wrk
from benchmarks.client import latencies_at_pace, percentile
from benchmarks.common import (
    CannotMeasure,
    Report,
    Target,
    alternating,
    arguments,
    main,
    number,
    progress,
    require_cores,
    require_root,
    require_tools,
    settings_of,
    size_name,
)
from benchmarks.photos import Photo, PhotoMaker, fill_store, photo_set
from benchmarks.servers import Server, read_all, store

VOLUMES = 4
CACHED_PHOTOS = 64
CACHED_CLIENTS = 4
CACHED_PER_SECOND = 100.0
"""Pace of each client of cached photos."""

RATE_TARGET = Target(at_least=0.9)
READS_TARGET = Target(at_most=1.05, of_ratio=False)
CACHED_TARGET = Target(at_most=10.0, of_ratio=False)


@dataclass(frozen=True, slots=True)
class Data:
    """The Store's folder and what is in it."""

    folder: Path
    cold: Sequence[Photo]
    cached: Sequence[Photo]
    disk: Path

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def volumes(self) -> list[Path]:
        return [self.store / f"{number_}.vol" for number_ in range(1, VOLUMES + 1)]


@dataclass(frozen=True, slots=True)
class ColdRun:
    """What one run of cold reads found.

    ``cached_p99_ms`` is the 99th percentile of the other client's latencies. ``cpu_micros`` is processor time of the
    workers for each photo of either client.
    """

    per_second: float
    disk_reads_per_photo: float
    disk_bytes_per_byte: float
    p99_ms: float
    cpu_micros: float
    cached_p99_ms: float | None


def measure(options: argparse.Namespace) -> Report:
    """Measure and report."""
    require_tools("wrk", "fio", "taskset")
    require_root("the page cache has to be emptied")
    cores = require_cores(2)
    report = Report("Reads from the disk", settings_of(options))
    with tempfile.TemporaryDirectory(prefix="haystack-cold-", dir=options.folder) as name:
        data = _prepare(options, Path(name))
        size = size_name(options.size)
        for depth in options.depths:
            runs, rates = _compare(options, data, cores, depth, with_cached=depth == max(options.depths))
            what = f"{size}, {depth} at a time"
            report.add(what, "photos/s", (run.per_second for run in runs), rates, peer_name="fio", target=RATE_TARGET)
            report.add(
                f"{what}: disk reads", "a photo", (run.disk_reads_per_photo for run in runs), target=READS_TARGET
            )
            report.add(f"{what}: bytes from disk", "a byte", (run.disk_bytes_per_byte for run in runs))
            report.add(f"{what}: p99", "ms", (run.p99_ms for run in runs))
            report.add(f"{what}: processor time of the workers", "µs a photo", (run.cpu_micros for run in runs))
            cached = [run.cached_p99_ms for run in runs if run.cached_p99_ms is not None]
            if cached:
                report.add(f"{what}: p99 of cached photos meanwhile", "ms", cached, target=CACHED_TARGET)
    return report


def _prepare(options: argparse.Namespace, folder: Path) -> Data:
    photos = photo_set(1, options.photos + CACHED_PHOTOS, options.size, VOLUMES)
    procfs.require_room(folder, len(photos) * options.size)
    progress(f"writing {len(photos):,} photos of {size_name(options.size)}")
    fill_store(folder / "store", photos, PhotoMaker(), volumes=VOLUMES)
    return Data(folder, photos[CACHED_PHOTOS:], photos[:CACHED_PHOTOS], procfs.disk_of(folder))


def _compare(
    options: argparse.Namespace, data: Data, cores: Sequence[int], depth: int, *, with_cached: bool
) -> tuple[list[ColdRun], list[float]]:
    runs: list[ColdRun] = []
    rates: list[float] = []
    for round_number, side in alternating(options.rounds, ["Haystack", "fio"]):
        procfs.drop_page_cache()
        seed = 100 * depth + round_number
        if side == "fio":
            rate = disk.fio_random_reads(data.volumes, options.size, depth, options.seconds, seed)
            progress(f"  fio      {depth:>3} at a time: {number(rate)}/s")
            rates.append(rate)
            continue
        with store(data.store, workers=options.workers, cores=cores) as server:
            run = _cold_run(options, data, server, cores, depth, seed, with_cached=with_cached)
            progress(
                f"  Haystack {depth:>3} at a time: {number(run.per_second)}/s, "
                f"{run.disk_reads_per_photo:.3f} disk reads a photo"
            )
            runs.append(run)
    return runs, rates


def _cold_run(
    options: argparse.Namespace,
    data: Data,
    server: Server,
    cores: Sequence[int],
    depth: int,
    seed: int,
    *,
    with_cached: bool,
) -> ColdRun:
    order = random.Random(seed).sample(data.cold, len(data.cold))
    paths = data.folder / "paths"
    paths.write_text("".join(f"{photo.path}\n" for photo in order))
    ended = threading.Event()
    with ThreadPoolExecutor(CACHED_CLIENTS) as pool:
        others = []
        if with_cached:
            read_all(server, data.cached, times=4)
            cached_paths = [photo.path for photo in data.cached]
            others = [
                pool.submit(
                    latencies_at_pace, server.port, cached_paths, per_second=CACHED_PER_SECOND, stop=ended.is_set
                )
                for _ in range(CACHED_CLIENTS)
            ]
        try:
            before = procfs.disk_stat(data.disk)
            cpu_before = procfs.cpu_seconds(server.workers)
            result = wrk.run(
                server.url,
                wrk.EACH_PATH_ONCE,
                [paths],
                folder=data.folder,
                seconds=options.seconds,
                connections=depth,
                threads=1,
                cores=cores,
            )
            used = procfs.disk_stat(data.disk) - before
            cpu_seconds = procfs.cpu_seconds(server.workers) - cpu_before
        finally:
            ended.set()
        latencies = [seconds for other in others for seconds in other.result()]
    if result.asked >= len(order):
        raise CannotMeasure(f"all {len(order):,} photos were read before the time was over; use more --photos")
    return ColdRun(
        result.per_second,
        used.reads / result.asked,
        used.read_bytes / (result.asked * options.size),
        result.p99_ms,
        cpu_seconds * 1e6 / (result.asked + len(latencies)),
        percentile(latencies, 99) * 1e3 if latencies else None,
    )


def _parser() -> argparse.ArgumentParser:
    parser = arguments(__doc__, seconds=3, rounds=5)
    parser.add_argument("--photos", type=int, default=40_000, help="photos on the disk [40,000]")
    parser.add_argument("--size", type=int, default=200 * 1024, metavar="BYTES", help="size of a photo [200 KB]")
    parser.add_argument("--depths", type=int, nargs="+", default=[8, 16, 32], help="reads at a time [8 16 32]")
    parser.add_argument("--workers", type=int, default=2, help="workers of the Store [2]")
    return parser


if __name__ == "__main__":
    main(measure, _parser())
