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
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import wrk
from benchmarks.common import Report, Target, main, progress, require_cores, require_tools, settings_of, size_name
from benchmarks.photos import PhotoMaker, write_files
from benchmarks.servers import Server, nginx, store
from benchmarks.side_by_side import (
    OURS,
    PHOTOS,
    SCALING_TARGET,
    Bench,
    Side,
    compare_at,
    headers_for,
    parser_for,
    prepare,
    scale,
    tell_scaled,
    warm_up,
)

TARGETS = {size: Target(at_least=1.1, aim=1.4) if size == 4096 else Target(at_least=0.95, aim=1.1) for size in PHOTOS}


def measure(options: argparse.Namespace) -> Report:
    """Measure and report."""
    require_tools("wrk", "nginx", "taskset")
    with tempfile.TemporaryDirectory(prefix="haystack-reads-", dir=options.folder) as name:
        bench = prepare(options, Path(name), copies=2)
        progress("writing them for nginx")
        (bench.folder / "files").mkdir()
        write_files(bench.folder / "files", [photo for group in bench.photos.values() for photo in group], PhotoMaker())
        if options.workers == 1:
            return _compare(bench)
        return _scale(bench)


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
        warm_up(bench, [side.server for side in sides])
        for size_bytes in bench.photos:
            for headers in headers_for(bench, size_bytes):
                compare_at(bench, report, sides, size_bytes, headers, TARGETS.get(size_bytes))
    return report


def _scale(bench: Bench) -> Report:
    """Everything on one core, then everything on two. One Store may use a data folder at a time."""
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
    def start(workers: int, used: Sequence[int]) -> contextlib.AbstractContextManager[Server]:
        if name == OURS:
            return store(bench.folder / "store", workers=workers, cores=used)
        return _nginx(bench, workers, used, nopush=True)

    def cores_had(run: wrk.Run) -> float:
        return run.busy + run.result.busy

    found = scale(bench, name, headers, cores, start)
    for size_bytes in found[1]:
        what = f"{name}, {size_name(size_bytes)}, {headers} headers: two cores"
        target = SCALING_TARGET if name == OURS else None
        tell_scaled(report, what, "requests/s", found, size_bytes, lambda run: run.result.per_second, target)
        a_second = f"{what}, a CPU second of the workers"
        tell_scaled(report, a_second, "requests", found, size_bytes, lambda run: run.per_cpu_second)
        tell_scaled(report, f"{what}, cores that workers and wrk had", "cores", found, size_bytes, cores_had)


def _nginx(
    bench: Bench, workers: int, cores: Sequence[int], *, nopush: bool
) -> contextlib.AbstractContextManager[Server]:
    files = sum(len(group) for group in bench.photos.values())
    folder = Path(tempfile.mkdtemp(prefix="nginx-", dir=bench.folder)) / "run"
    root = bench.folder / "files"
    return nginx(folder, root, workers=workers, cores=cores, open_files=files + 100, nopush=nopush)


if __name__ == "__main__":
    main(measure, parser_for(__doc__, seconds=5, rounds=5, scales="reads"))
