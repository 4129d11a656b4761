"""Uploads over HTTP, each acknowledged after fdatasync, beside what the disk does by itself.

32 clients (wrk) each PUT one new photo after the other to a Store with several volumes. Small photos are compared with
the disk's one-at-a-time rate: one program that writes as many bytes and calls fdatasync, again and again, into a file
that grows and into one that does not (whichever is faster). Large ones are compared with a plain sequential write of
as many bytes that ends with one sync. Photos that wrk has not had an answer for at the end do not count.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks import disk, procfs, wrk
from benchmarks.common import (
    CannotMeasure,
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
from benchmarks.photos import PhotoMaker, fill_store
from benchmarks.servers import Server, fetch, store

SMALL_BYTES = 64 * 1024
"""Photos below this size are compared with synced writes, larger ones with a sequential write."""

SIZES = [1024, 4096, 200 * 1024, 2**20]
TARGETS = {4096: Target(at_least=3.0), 2**20: Target(at_least=0.9)}
CONNECTIONS = 32
COOKIE = "5eed5eed5eed5eed"
KEYS_PER_RUN = 2**32
THREAD_KEYS = 2**40
"""The first thread of wrk counts from here; see the script."""

TURN_BYTES = 16 * 2**20
"""What a volume gets before it is the next one's turn: the Directory gives each a turn of 0.2 s."""

SAMPLE = 20
APPEND, OVERWRITE, SEQUENTIAL = "write+fdatasync, growing", "write+fdatasync, in place", "sequential write, one sync"


@dataclass(slots=True)
class Bench:
    """One measurement while it goes on.

    Parameters
    ----------
    first_key: of the next run; no key is used twice.
    """

    options: argparse.Namespace
    folder: Path
    server: Server
    disk: Path
    wrk_cores: tuple[int, ...]
    first_key: int = 0


@dataclass(frozen=True, slots=True)
class Uploads:
    """What one run of uploads found."""

    result: wrk.Result
    photos_per_flush: float
    cpu_microseconds: float
    """Processor time of the workers for one upload."""


def measure(options: argparse.Namespace) -> Report:
    """Measure and report."""
    require_tools("wrk", "taskset")
    cores = require_cores(2)
    report = Report("Uploads, acknowledged when durable", settings_of(options))
    with tempfile.TemporaryDirectory(prefix="haystack-writes-", dir=options.folder) as name:
        folder = Path(name)
        fill_store(folder / "store", [], PhotoMaker(), volumes=options.volumes)
        store_cores = cores if options.workers > 1 else cores[:1]
        with store(folder / "store", workers=options.workers, cores=store_cores) as server:
            bench = Bench(options, folder, server, procfs.disk_of(folder), cores if options.workers > 1 else cores[1:])
            for size_bytes in options.sizes:
                _compare(bench, report, size_bytes)
    return report


def _compare(bench: Bench, report: Report, size_bytes: int) -> None:
    body = random.Random(size_bytes).randbytes(size_bytes)
    (bench.folder / "body").write_bytes(body)
    peers = [APPEND, OVERWRITE] if size_bytes < SMALL_BYTES else [SEQUENTIAL]
    rates: dict[str, list[float]] = {peer: [] for peer in peers}
    uploads: list[Uploads] = []
    _upload(bench, size_bytes, seconds=1)  # the first one opens volumes and starts threads
    for _, side in alternating(bench.options.rounds, ["Haystack", *peers]):
        os.sync()
        if side == "Haystack":
            uploads.append(_upload(bench, size_bytes, seconds=bench.options.seconds))
            _require_stored(bench, uploads[-1].result, body, _turn(bench, size_bytes))
        else:
            rates[side].append(_peer_rate(bench, side, size_bytes, uploads))
            progress(f"  {side:<28} {size_name(size_bytes):>6}: {number(rates[side][-1])}/s")
    peer, peer_rates = best(rates)
    what = size_name(size_bytes)
    report.add(
        what,
        "photos/s",
        (one.result.per_second for one in uploads),
        peer_rates,
        peer_name=peer,
        target=TARGETS.get(size_bytes),
    )
    report.add(f"{what}: bytes", "MB/s", (one.result.per_second * size_bytes / 1e6 for one in uploads))
    report.add(f"{what}: p99", "ms", (one.result.p99_ms for one in uploads))
    report.add(f"{what}: processor time of the workers", "µs", (one.cpu_microseconds for one in uploads))
    report.add(f"{what}: photos of one flush of the disk", "photos", (one.photos_per_flush for one in uploads))


def _upload(bench: Bench, size_bytes: int, *, seconds: float) -> Uploads:
    bench.first_key += KEYS_PER_RUN
    before, cpu_before = procfs.disk_stat(bench.disk), procfs.cpu_seconds(bench.server.workers)
    result = wrk.run(
        bench.server.url,
        wrk.UPLOADS,
        [
            bench.first_key,
            ",".join(map(str, range(1, bench.options.volumes + 1))),
            bench.folder / "body",
            COOKIE,
            _turn(bench, size_bytes),
        ],
        folder=bench.folder,
        seconds=seconds,
        connections=CONNECTIONS,
        threads=1,
        cores=bench.wrk_cores,
    )
    used = procfs.disk_stat(bench.disk) - before
    cpu_seconds = procfs.cpu_seconds(bench.server.workers) - cpu_before
    progress(
        f"  {'Haystack':<28} {size_name(size_bytes):>6}: {number(result.per_second)}/s  p99 {result.p99_ms:.1f} ms"
        f"  workers {cpu_seconds / result.seconds:.2f} busy, wrk {result.busy:.2f}"
    )
    return Uploads(result, result.requests / max(1, used.flushes), cpu_seconds / result.requests * 1e6)


def _peer_rate(bench: Bench, peer: str, size_bytes: int, uploads: list[Uploads]) -> float:
    if peer == SEQUENTIAL:
        total_bytes = size_bytes * (uploads[-1].result.requests if uploads else 1)
        return disk.sequential_write(bench.folder, size_bytes, total_bytes) / size_bytes
    return disk.synced_writes(bench.folder, size_bytes, bench.options.seconds, overwrite=peer == OVERWRITE)


def _turn(bench: Bench, size_bytes: int) -> int:
    """Uploads in a row that go to the same volume."""
    return max(1, int(bench.options.turn_bytes // size_bytes))


def _require_stored(bench: Bench, result: wrk.Result, body: bytes, turn: int) -> None:
    """Raises CannotMeasure unless a sample of what was acknowledged can be read back.

    wrk asks the script once for a request that it does not send, and the last ones of all clients may not be stored.
    """
    last = result.requests - CONNECTIONS
    for number_ in random.Random(1).sample(range(2, max(3, last)), min(SAMPLE, max(1, last - 2))):
        key = bench.first_key + THREAD_KEYS + number_
        path = f"/{1 + key // turn % bench.options.volumes},{key:x}{COOKIE}"
        status, found = fetch(bench.server, path)
        if status != 200 or found != body:
            raise CannotMeasure(f"{path} was uploaded, but reading it gives {status} and {len(found)} bytes")


def _parser() -> argparse.ArgumentParser:
    parser = arguments(__doc__, seconds=5, rounds=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="BYTES", help="sizes of photos")
    parser.add_argument("--volumes", type=int, default=7, help="volumes that the uploads are spread over [7]")
    parser.add_argument("--workers", type=int, default=2, help="workers of the Store [2]; 1 has a core of its own")
    parser.add_argument(
        "--turn-bytes", type=int, default=TURN_BYTES, help="bytes in a row for one volume [what 0.2 s bring]"
    )
    return parser


if __name__ == "__main__":
    main(measure, _parser())
