"""The load of a photo service, 20 reads to 1 upload by Zipf's law, with and without a Cache in front of the Store.

Readers on one core ask for photos at a fixed pace, the popular ones more often; with every 20th read a new photo is
uploaded, which becomes the most popular one. The Cache has memory for a fifth of the photos of the beginning.
Both sides take turns and get the same requests. The page cache is emptied before each run (as root), so that the Store
has to read from its disk what nobody has asked for. Told are the Store's reads for each read of a client, and the
latencies of all reads by percentile.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import tempfile
import threading
import time
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

from benchmarks import procfs
from benchmarks.cache_servers import Backend, backend, cache, wait_until_vouched
from benchmarks.client import Client, percentile
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
    settings_of,
)
from benchmarks.photos import Photo, PhotoMaker, fill_store, photo_set
from benchmarks.servers import Server, fetch
from benchmarks.side_by_side import VOLUMES
from cache.memory import plan_memory

READS_PER_UPLOAD = 20
READERS = 8
FIRST_NEW_KEY = 10**9
MEMORY_SHARE = 0.2
PERCENTILES = (50.0, 90.0, 99.0)
SAVED_TARGET = Target(at_most=0.4, of_ratio=True)
WITH, WITHOUT = "with a Cache", "without"

_STORE_READS = re.compile(rb'^haystack_store_requests_total\{method="GET"\} ([0-9]+)$', re.MULTILINE)


@dataclass(slots=True)
class Run:
    """What was seen of one side in one round."""

    latencies_ms: list[float] = field(default_factory=list)
    reads: int = 0
    uploads: int = 0
    store_reads: int = 0
    problems: list[Exception] = field(default_factory=list)


class Readers:
    """Threads that read and upload at a fixed pace.

    Parameters
    ----------
    photos: the most popular first.
    """

    def __init__(self, photos: Sequence[Photo], maker: PhotoMaker, exponent: float, size_bytes: int) -> None:
        self._photos = list(photos)
        self._maker = maker
        self._size_bytes = size_bytes
        self._weights = list(accumulate(1 / rank**exponent for rank in range(1, len(photos) + 1)))
        self._new = FIRST_NEW_KEY
        self._lock = threading.Lock()

    def run(self, reads_from: int, uploads_to: int, *, seconds: float, per_second: float, seed: int) -> Run:
        """One run.

        Parameters
        ----------
        reads_from, uploads_to: ports.
        """
        found = Run()
        threads = [
            threading.Thread(
                target=self._try, args=(found, reads_from, uploads_to, seconds, per_second / READERS, seed * 100 + one)
            )
            for one in range(READERS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if found.problems:
            raise found.problems[0]
        return found

    def _try(self, found: Run, *how: object) -> None:
        try:
            self._work(found, *how)  # type: ignore[arg-type]  # as they come from run
        except (CannotMeasure, OSError) as problem:
            found.problems.append(problem)

    def _work(self, found: Run, reads_from: int, uploads_to: int, seconds: float, per_second: float, seed: int) -> None:
        dice = random.Random(seed)
        began = time.perf_counter()
        with Client(reads_from) as reader, Client(uploads_to) as uploader:
            for turn in range(int(seconds * per_second)):
                due = began + turn / per_second
                wait_seconds = due - time.perf_counter()
                if wait_seconds > 0:
                    time.sleep(wait_seconds)
                if turn % READS_PER_UPLOAD == READS_PER_UPLOAD - 1:
                    self._upload(uploader)
                    found.uploads += 1
                photo = self._photos[bisect(self._weights, dice.random() * self._weights[-1])]
                if reader.get_size(photo.path) != photo.size_bytes:
                    raise CannotMeasure(f"{photo.path} came with another size")
                found.latencies_ms.append((time.perf_counter() - due) * 1000)
                found.reads += 1

    def _upload(self, uploader: Client) -> None:
        with self._lock:
            self._new += 1
            (photo,) = photo_set(self._new, 1, self._size_bytes, VOLUMES)
        uploader.put(photo.path, self._maker.body(photo))
        with self._lock:
            self._photos.insert(0, photo)


def measure(options: argparse.Namespace) -> Report:
    """Measure and report."""
    server_core, load_core = require_cores(2)
    os.sched_setaffinity(0, {load_core})
    photos = photo_set(1, options.photos, options.size, VOLUMES)
    report = Report("20 reads to 1 upload by Zipf's law, with and without a Cache", settings_of(options))
    with tempfile.TemporaryDirectory(prefix="haystack-load-", dir=options.folder) as name:
        folder = Path(name)
        procfs.require_room(folder, 2 * options.photos * options.size)
        progress(f"writing {len(photos):,} photos")
        fill_store(folder / "store", photos, PhotoMaker(), volumes=VOLUMES)
        random.Random(1).shuffle(photos)
        with backend(folder, folder / "store", volumes=VOLUMES, cores=[server_core]) as behind:
            found = _rounds(options, folder, behind, photos, server_core)
    _tell(report, found)
    return report


def _rounds(
    options: argparse.Namespace, folder: Path, behind: Backend, photos: Sequence[Photo], server_core: int
) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {WITH: [], WITHOUT: []}
    readers = Readers(photos, PhotoMaker(), options.exponent, options.size)
    memory_bytes = _memory_for(int(options.photos * options.size * MEMORY_SHARE))
    for round_number, side in alternating(options.rounds, [WITH, WITHOUT]):
        with contextlib.ExitStack() as stack:
            port = behind.store.port
            if side == WITH:
                place = Path(tempfile.mkdtemp(prefix="cache-", dir=folder))
                node = stack.enter_context(
                    cache(place, behind, memory_bytes=memory_bytes, workers=1, cores=[server_core])
                )
                port = node.port
                wait_until_vouched(node, photos[-1].path)
            if os.geteuid() == 0:
                procfs.drop_page_cache()
            before = _store_reads(behind.store)
            run = readers.run(
                port, behind.store.port, seconds=options.seconds, per_second=options.pace, seed=round_number
            )
            run.store_reads = _store_reads(behind.store) - before - 1  # the page with the figures is a read, too
        found[side].append(run)
        p99_ms = percentile(run.latencies_ms, 99)
        progress(f"  {side:<13} {number(run.store_reads / run.reads)} Store reads a read, p99 {p99_ms:.2f} ms")
    return found


def _memory_for(photo_bytes: int) -> int:
    """The limit of a Cache that has so much for photos."""
    memory_bytes = photo_bytes
    while (missing := photo_bytes - plan_memory(max(memory_bytes, 2**27), 1).arena_bytes) > 0:
        memory_bytes = max(memory_bytes, 2**27) + missing
    return max(memory_bytes, 2**27)


def _store_reads(store: Server) -> int:
    match = _STORE_READS.search(fetch(store, "/metrics")[1])
    if match is None:
        raise CannotMeasure("the Store's metrics do not say how much was read")
    return int(match[1])


def _tell(report: Report, found: dict[str, list[Run]]) -> None:
    ours, others = found[WITH], found[WITHOUT]
    report.add(
        "Store reads for a client's read",
        "",
        (run.store_reads / run.reads for run in ours),
        (run.store_reads / run.reads for run in others),
        peer_name=WITHOUT,
        target=SAVED_TARGET,
    )
    for share in PERCENTILES:
        report.add(
            f"p{share:g} of reads",
            "ms",
            (percentile(run.latencies_ms, share) for run in ours),
            (percentile(run.latencies_ms, share) for run in others),
            peer_name=WITHOUT,
        )
    reads, uploads = sum(run.reads for run in ours), sum(run.uploads for run in ours)
    report.note(f"{reads:,} reads and {uploads:,} uploads with a Cache")
    report.note("a latency counts from when its request was due, so one stall counts for all that it holds up")


def _parser() -> argparse.ArgumentParser:
    parser = arguments(__doc__, seconds=20, rounds=3)
    parser.add_argument("--photos", type=int, default=20_000, help="photos at the begin [20,000]")
    parser.add_argument("--size", type=int, default=65_536, metavar="BYTES", help="size of each [65,536]")
    parser.add_argument("--exponent", type=float, default=1.0, help="of Zipf's law [1.0]")
    parser.add_argument("--pace", type=float, default=1500.0, help="reads in a second [1,500]")
    return parser


if __name__ == "__main__":
    main(measure, _parser())
