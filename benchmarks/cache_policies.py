"""How often a Cache has what it is asked for: policies over made-up traces, beside the ideal and Varnish's LRU.

No node is started: the policies' own code is given the requests. The same seed gives the same figures on every machine.
Beside the two policies that a Cache has (lru, which is segmented, and s3fifo) there are those that were not taken, the
ideal (Bélády's rule, which knows the future), and a model of Varnish's LRU with its defaults.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks.cache_traces.plain_lru import PlainLru
from benchmarks.cache_traces.plot import plot
from benchmarks.cache_traces.replay import Result, ideal, replay, varnish
from benchmarks.cache_traces.sieve import Sieve
from benchmarks.cache_traces.table import Row, markdown, recent_markdown
from benchmarks.cache_traces.tinylfu import TinyLfu
from benchmarks.cache_traces.traces import ShareOf, Trace, photo_like, zipf
from benchmarks.cache_traces.two_levels import replay_two
from benchmarks.common import progress
from cache.policies import POLICIES, Policy

EXPONENTS = (0.8, 0.9, 1.0, 1.1)
SHARES = (0.01, 0.05, 0.2)
REQUESTS_PER_SECOND = 1000.0
READS_AN_UPLOAD = 20.0
DAYS = 5
LEVEL_MEMORY, LEVEL_SSD = 0.05, 0.2

OTHERS: tuple[type[Policy], ...] = (PlainLru, Sieve, TinyLfu)


def rows_of(trace: Trace) -> Iterator[Row]:
    """All policies and sizes over a trace."""
    for share in SHARES:
        capacity_bytes = int(trace.set_bytes * share)
        for name, run in _runs(trace):
            started = time.perf_counter()
            result = run(trace, capacity_bytes)
            progress(
                f"  {trace.name}, {share:.0%}, {name}: {result.hit_ratio:.3f} ({time.perf_counter() - started:.1f} s)"
            )
            yield Row(trace.name, share, name, result)


def _runs(trace: Trace) -> Iterator[tuple[str, Callable[[Trace, int], Result]]]:
    makers: dict[str, Callable[[], Policy]] = {**POLICIES, **{other.name: other for other in OTHERS}}
    for name, make in makers.items():
        yield name, partial(_replayed, make, None)
    if trace.recent:  # the paper's rule: only what comes from volumes that take writes
        for name, make in POLICIES.items():
            yield f"{name}, paper's admission", partial(_replayed, make, lambda request: bool(trace.recent[request]))
    yield "Varnish's LRU", varnish
    yield "Bélády", ideal


def measure_levels(photos: int, requests: int, seed: int) -> Iterator[str]:
    """A second level below memory: lines of a table, one for each trace and policy."""
    uploads_a_day = int(requests / READS_AN_UPLOAD / DAYS)
    yield "| trace | policy | memory alone | from memory | from memory and SSD | memory as large as both | written |"
    yield "|---|---|---|---|---|---|---|"
    for trace in (
        zipf(0.9, photos, requests, seed, REQUESTS_PER_SECOND),
        photo_like(uploads_a_day, READS_AN_UPLOAD, DAYS, seed),
    ):
        memory_bytes, ssd_bytes = (int(trace.set_bytes * share) for share in (LEVEL_MEMORY, LEVEL_SSD))
        for name, make in POLICIES.items():
            alone = replay(trace, memory_bytes, make()).hit_ratio
            large = replay(trace, memory_bytes + ssd_bytes, make()).hit_ratio
            both = replay_two(trace, memory_bytes, ssd_bytes, make())
            cells = (alone, both.memory_ratio, both.ratio, large, both.written_share)
            yield f"| {trace.name} | {name} | " + " | ".join(f"{cell:.1%}" for cell in cells) + " |"


def _replayed(
    make: Callable[[], Policy], keep: Callable[[int], bool] | None, trace: Trace, capacity_bytes: int
) -> Result:
    return replay(trace, capacity_bytes, make(), keep)


def measure(photos: int, requests: int, seed: int, processes: int) -> list[Row]:
    """All traces, each in a process of its own, ``processes`` at a time."""
    uploads_a_day = int(requests / READS_AN_UPLOAD / DAYS)
    makers: list[Callable[[], Trace]] = [
        *(partial(zipf, exponent, photos, requests, seed, REQUESTS_PER_SECOND) for exponent in EXPONENTS),
        *(partial(photo_like, uploads_a_day, READS_AN_UPLOAD, DAYS, seed, share_of) for share_of in ShareOf),
    ]
    with ProcessPoolExecutor(max_workers=processes) as pool:
        return [row for rows in pool.map(_measured, makers) for row in rows]


def _measured(make: Callable[[], Trace]) -> list[Row]:
    return list(rows_of(make()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=50_000, help="photos of the Zipf traces [50,000]")
    parser.add_argument("--requests", type=int, default=500_000, help="requests of each trace [500,000]")
    parser.add_argument("--seed", type=int, default=1, help="what the traces are drawn from [1]")
    parser.add_argument("--processes", type=int, default=1, help="traces at the same time [1]")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a picture there (PNG)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--levels", action="store_true", help="only memory with a second level on an SSD")
    options = parser.parse_args()
    if options.levels:
        for line in measure_levels(options.photos, options.requests, options.seed):
            print(line, flush=True)
        return
    rows = measure(options.photos, options.requests, options.seed, options.processes)
    print(markdown(rows))
    print()
    print(recent_markdown(rows))
    if options.json is not None:
        options.json.write_text(json.dumps([row.document() for row in rows], indent=1, ensure_ascii=False) + "\n")
    if options.plot is not None:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
