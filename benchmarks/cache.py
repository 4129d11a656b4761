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
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cache_servers import Backend, backend, cache, nginx_cache, varnish
from benchmarks.common import PACKAGES, Report, Target, main, require_cores, require_tools, settings_of, size_name
from benchmarks.servers import Server
from benchmarks.side_by_side import (
    OURS,
    SCALING_TARGET,
    VOLUMES,
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

TARGETS = {
    4096: Target(at_least=1.4, aim=1.8),
    65_536: Target(at_least=1.2, aim=1.4),
    200 * 1024: Target(at_least=1.0, aim=1.2),
    2**20: Target(at_least=1.0, aim=1.2),
}
MEMORY_BYTES = 4 * 2**30

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
        bench = prepare(options, Path(name), copies=3)
        with backend(bench.folder, bench.folder / "store", volumes=VOLUMES, cores=[wrk_core]) as behind:
            front = Front(bench, behind)
            if options.workers == 1:
                return _compare(front, server_core, wrk_core)
            return _scale(front, (server_core, wrk_core))


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
        warm_up(bench, peers)
        for size_bytes in bench.photos:
            for headers in headers_for(bench, size_bytes):
                _compare_at(bench, report, sides, size_bytes, headers)
    return report


def _compare_at(bench: Bench, report: Report, sides: Sequence[Side], size_bytes: int, headers: str) -> None:
    found = compare_at(bench, report, sides, size_bytes, headers, TARGETS.get(size_bytes))
    per_second = {label: [run.result.per_second for run in runs] for label, runs in found.items()}
    ours = per_second.pop(OURS)
    for label, values in per_second.items():
        what = f"{size_name(size_bytes)}, {headers} headers: beside {label}"
        report.add(what, "requests/s", ours, values, peer_name=label)


def _scale(front: Front, cores: tuple[int, int]) -> Report:
    """Everything on one core, then everything on two."""
    report = Report("Hits of a cache, one and two cores shared with wrk", settings_of(front.bench.options))
    report.note(
        "one worker and one wrk thread share one core; two workers and two wrk threads share two. 2.0 is perfect"
    )
    for headers in front.bench.options.headers:
        found = scale(front.bench, OURS, headers, cores, lambda workers, used: _ours(front, workers, used))
        for size_bytes in found[1]:
            what = f"{size_name(size_bytes)}, {headers} headers: two cores"
            tell_scaled(
                report, what, "requests/s", found, size_bytes, lambda run: run.result.per_second, SCALING_TARGET
            )
    return report


if __name__ == "__main__":
    main(measure, parser_for(__doc__, seconds=2, rounds=5, scales="hits"))
