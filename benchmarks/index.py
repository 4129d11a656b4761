"""What ten million needles cost beside ten thousand: bytes of index, time to open, memory, and speed of reads.

Two Stores with one volume each, one worker each, the same small photos; both volumes are in the page cache. The
volumes are made through the engine (some minutes for the large one); with --keep they stay in a folder for next time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import procfs, wrk
from benchmarks.common import (
    Report,
    Target,
    alternating,
    arguments,
    main,
    number,
    progress,
    require_cores,
    require_tools,
    settings_of,
)
from benchmarks.photos import BATCH_NEEDLES, TIME_MS, append
from benchmarks.servers import Server, store
from haystack.store.folder_opening import open_folders
from haystack.volume import NeedleMeta, NewNeedle, Volume

FIRST_KEY = 65_536
COOKIE = 0x5EED5EED5EED5EED
CONNECTIONS = 32
NEEDLE_OVERHEAD_BYTES = 128
FILL_FILE = "filled.json"
PROGRESS_NEEDLES = 1_000_000
MIN_WARM_UP_SECONDS = 2.0

INDEX_TARGET = Target(at_most=40.0, of_ratio=False)
OPEN_TARGET = Target(at_most=1.0, of_ratio=False)
MEMORY_TARGET = Target(at_most=1.0, of_ratio=False)
READS_TARGET = Target(at_least=0.9)


@dataclass(frozen=True, slots=True)
class Filled:
    """A data folder with one volume of so many needles."""

    folder: Path
    needles: int

    @property
    def volume(self) -> Path:
        return self.folder / "1.vol"

    def __str__(self) -> str:
        return f"{self.needles:,} needles"


def measure(options: argparse.Namespace) -> Report:
    """Measure and report."""
    require_tools("wrk", "taskset")
    report = Report("Many needles", settings_of(options))
    with _folder(options) as folder:
        small, large = (filled(folder, count, options.size) for count in (options.few, options.many))
        _index_bytes(report, small, large)
        _opening(report, options.rounds, small, large)
        _reads(report, options, folder, small, large)
    return report


def filled(folder: Path, needles: int, size_bytes: int) -> Filled:
    """A data folder with that many needles; made unless it is there from an earlier time."""
    data = folder / f"{needles}x{size_bytes}"
    note = folder / f"{needles}x{size_bytes}-{FILL_FILE}"
    if note.exists():
        return Filled(data, needles)
    procfs.require_room(folder, needles * (size_bytes + NEEDLE_OVERHEAD_BYTES))
    progress(f"filling a volume with {needles:,} needles")
    for data_folder in open_folders([data]):
        try:
            _fill(data / "1.vol", needles, size_bytes)
        finally:
            data_folder.close()
    note.write_text(json.dumps({"needles": needles, "size_bytes": size_bytes}))
    return Filled(data, needles)


def _fill(path: Path, needles: int, size_bytes: int) -> None:
    meta = NeedleMeta("", "image/jpeg").pack()
    body = bytes(range(256)) * (size_bytes // 256 + 1)
    with Volume.create(path, 1) as volume:
        for start in range(0, needles, BATCH_NEEDLES):
            keys = range(FIRST_KEY + start, FIRST_KEY + min(start + BATCH_NEEDLES, needles))
            append(
                volume,
                [
                    NewNeedle(key, COOKIE, (key.to_bytes(8, "big") + body[: size_bytes - 8],), TIME_MS, 0, meta)
                    for key in keys
                ],
            )
            if start // PROGRESS_NEEDLES != (start + BATCH_NEEDLES) // PROGRESS_NEEDLES:
                progress(f"  {start + BATCH_NEEDLES:,}")


def _index_bytes(report: Report, small: Filled, large: Filled) -> None:
    both = [one.volume.with_suffix(".idx").stat().st_blocks * 512 / one.needles for one in (large, small)]
    report.add("index, on disk", "bytes a needle", both[:1], both[1:], peer_name=str(small), target=INDEX_TARGET)


def _opening(report: Report, rounds: int, small: Filled, large: Filled) -> None:
    opened: dict[int, list[float]] = {small.needles: [], large.needles: []}
    started: dict[int, list[float]] = {small.needles: [], large.needles: []}
    for _, one in alternating(rounds, [small, large]):
        began = time.perf_counter()
        volume = Volume.open(one.volume)
        opened[one.needles].append(time.perf_counter() - began)
        volume.close()
        with store(one.folder, workers=1, cores=require_cores(1)) as server:
            started[one.needles].append(server.ready_seconds)
        progress(f"  {one}: opened in {opened[one.needles][-1]:.4f} s, Store ready in {started[one.needles][-1]:.2f} s")
    for what, found in (("open the volume", opened), ("start the Store, to ready", started)):
        report.add(what, "s", found[large.needles], found[small.needles], peer_name=str(small), target=OPEN_TARGET)


def _reads(report: Report, options: argparse.Namespace, folder: Path, small: Filled, large: Filled) -> None:
    server_core, wrk_core = require_cores(2)
    found: dict[tuple[int, bool], list[wrk.Run]] = defaultdict(list)
    memory: dict[int, int] = {}
    with contextlib.ExitStack() as stack:
        servers: dict[int, Server] = {}
        for one in (small, large):
            procfs.read_into_page_cache(one.volume)
            procfs.read_into_page_cache(one.volume.with_suffix(".idx"))
            servers[one.needles] = stack.enter_context(store(one.folder, workers=1, cores=[server_core]))
            seconds = max(MIN_WARM_UP_SECONDS, options.seconds)
            _random_reads(servers[one.needles], one, one.needles, folder, wrk_core, seconds, seed=0)
        for everything in (True, False):
            for round_number, one in alternating(options.rounds, [small, large]):
                distinct = one.needles if everything else small.needles
                server = servers[one.needles]
                run = _random_reads(server, one, distinct, folder, wrk_core, options.seconds, seed=1 + round_number)
                found[one.needles, everything].append(run)
        for count, server in servers.items():
            memory[count] = sum(procfs.memory(pid)["Anonymous"] for pid in server.pids)
            _note_memory(report, count, server)
    name = str(small)
    for everything in (True, False):
        what = "random reads" if everything else f"random reads of {small.needles:,} photos among all"
        both = [found[one.needles, everything] for one in (large, small)]
        rates = [[run.result.per_second for run in runs] for runs in both]
        p99s = [[run.result.p99_ms for run in runs] for runs in both]
        dear = [[run.per_cpu_second for run in runs] for runs in both]
        target = READS_TARGET if everything else None
        report.add(what, "requests/s", rates[0], rates[1], peer_name=name, target=target)
        report.add(f"{what}: p99", "ms", p99s[0], p99s[1], peer_name=name)
        report.add(f"{what}: a CPU second of the worker", "requests", dear[0], dear[1], peer_name=name)
    report.add(
        "private memory, all processes",
        "MB",
        [memory[large.needles] / 1e6],
        [memory[small.needles] / 1e6],
        peer_name=name,
    )
    growth = (memory[large.needles] - memory[small.needles]) / (large.needles - small.needles)
    report.add("growth of private memory", "bytes a needle", [growth], target=MEMORY_TARGET)


def _random_reads(
    server: Server, one: Filled, distinct: int, folder: Path, wrk_core: int, seconds: float, *, seed: int
) -> wrk.Run:
    cpu_before = procfs.cpu_seconds(server.workers)
    result = wrk.run(
        server.url,
        wrk.RANDOM_KEYS,
        [FIRST_KEY, one.needles, 1, f"{COOKIE:016x}", seed, distinct],
        folder=folder,
        seconds=seconds,
        connections=CONNECTIONS,
        threads=1,
        cores=[wrk_core],
    )
    busy = (procfs.cpu_seconds(server.workers) - cpu_before) / result.seconds
    progress(
        f"  {one!s:<20}: {distinct:,} asked for, {number(result.per_second):>8}/s  p99 {result.p99_ms:.2f} ms  "
        f"worker {busy:.2f} busy, wrk {result.busy:.2f}"
    )
    return wrk.Run(result, busy)


def _note_memory(report: Report, needles: int, server: Server) -> None:
    parts = []
    for pid in server.pids:
        role = "worker" if pid in server.workers else "supervisor"
        found = procfs.memory(pid)
        mapped_bytes = found["Rss"] - found["Anonymous"]
        parts.append(
            f"{role} {found['Anonymous'] / 1e6:.1f} MB (and {mapped_bytes / 1e6:,.0f} MB of mapped page cache)"
        )
    report.note(f"private memory at {needles:,} needles: {', '.join(parts)}")


@contextlib.contextmanager
def _folder(options: argparse.Namespace) -> Iterator[Path]:
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
        yield options.keep
        return
    with tempfile.TemporaryDirectory(prefix="haystack-index-", dir=options.folder) as name:
        yield Path(name)


def _parser() -> argparse.ArgumentParser:
    parser = arguments(__doc__, seconds=5, rounds=5)
    parser.add_argument("--few", type=int, default=10_000, help="needles of the small volume [10,000]")
    parser.add_argument("--many", type=int, default=10_000_000, help="needles of the large volume [10,000,000]")
    parser.add_argument("--size", type=int, default=512, metavar="BYTES", help="size of a photo [512]")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="make the volumes there, or use those from last time")
    return parser


if __name__ == "__main__":
    main(measure, _parser())
