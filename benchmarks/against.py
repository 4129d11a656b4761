"""Reads of this source tree beside another one: what a change costs in processor time.

Both trees run a Store with one worker, on one core, over the same photos in the page cache; the same wrk on another
core asks them in turns, forwards in even rounds and backwards in odd ones, for the same photos in the same order. Told
is the processor time of the worker for one read, kernel included: other load on the machine moves rates far more.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks import procfs, wrk
from benchmarks.common import (
    CannotMeasure,
    Report,
    Target,
    alternating,
    arguments,
    main,
    progress,
    require_cores,
    require_tools,
    settings_of,
)
from benchmarks.photos import PhotoMaker, fill_store, photo_set
from benchmarks.servers import Server, read_all, require_same_bodies, store

VOLUMES = 7
CONNECTIONS = 32
SAMPLE = 20
TARGET = Target(at_most=1.01)


@dataclass(frozen=True, slots=True)
class Side:
    """One tree's Store."""

    label: str
    server: Server


def measure(options: argparse.Namespace) -> Report:
    """Measure and report."""
    require_tools("wrk", "taskset")
    if not (options.other / "haystack" / "store").is_dir():
        raise CannotMeasure(
            f"{options.other} is no source tree of Haystack; make one with: git worktree add DIR COMMIT"
        )
    server_core, wrk_core = require_cores(2)
    report = Report("Reads of two source trees, one worker on one core", settings_of(options))
    with tempfile.TemporaryDirectory(prefix="haystack-against-", dir=options.folder) as name:
        folder = Path(name)
        photos = photo_set(1, options.photos, options.size, VOLUMES)
        procfs.require_room(folder, 2 * sum(photo.size_bytes for photo in photos))
        progress(f"writing {len(photos):,} photos twice")
        maker = PhotoMaker()
        fill_store(folder / "ours" / "data", photos, maker, volumes=VOLUMES)
        shutil.copytree(folder / "ours", folder / "other")
        (folder / "paths").write_text("".join(f"{photo.path}\n" for photo in photos))
        (folder / "headers").write_text("")
        with contextlib.ExitStack() as stack:
            trees = (("this", folder / "ours", None), ("the other", folder / "other", options.other.resolve()))
            sides = [
                Side(label, stack.enter_context(store(data / "data", workers=1, cores=[server_core], tree=tree)))
                for label, data, tree in trees
            ]
            for side in sides:
                require_same_bodies(side.server, random.Random(1).sample(photos, min(SAMPLE, len(photos))), maker)
                read_all(side.server, photos, times=2)
            found: dict[str, list[float]] = {side.label: [] for side in sides}
            for round_number, side in alternating(options.rounds, sides):
                found[side.label].append(_run(options, folder, side, round_number, wrk_core))
    ours, other = found["this"], found["the other"]
    what = f"{options.size:,} bytes, {options.photos:,} photos: processor time of a read"
    report.add(what, "µs", ours, other, peer_name="the other tree", target=TARGET)
    ratios = [mine / theirs for mine, theirs in zip(ours, other, strict=True)]
    report.note(
        f"round by round the ratio is {statistics.median(ratios):.4f} (median of {len(ratios)}, quartiles "
        f"{statistics.quantiles(ratios, n=4)[0]:.4f} and {statistics.quantiles(ratios, n=4)[2]:.4f})"
    )
    return report


def _run(options: argparse.Namespace, folder: Path, side: Side, round_number: int, core: int) -> float:
    """Microseconds of processor time for a read in one run of wrk, whose seed depends on the round alone."""
    before = procfs.cpu_seconds(side.server.workers)
    result = wrk.run(
        side.server.url,
        wrk.RANDOM_PATHS,
        [folder / "paths", folder / "headers", 1000 + round_number],
        folder=folder,
        seconds=options.seconds,
        connections=CONNECTIONS,
        threads=1,
        cores=(core,),
    )
    microseconds = (procfs.cpu_seconds(side.server.workers) - before) * 1e6 / result.requests
    progress(f"  {side.label:<10} {microseconds:6.2f} µs a read, {result.per_second:>8,.0f}/s")
    return microseconds


def _parser() -> argparse.ArgumentParser:
    parser = arguments(__doc__, seconds=3, rounds=21)
    parser.add_argument("other", type=Path, metavar="TREE", help="the other source tree")
    parser.add_argument("--size", type=int, default=4096, metavar="BYTES", help="size of the photos [4096]")
    parser.add_argument(
        "--photos",
        type=int,
        default=10_000,
        metavar="N",
        help="photos [10,000: all have prepared answers; 200,000: most reads are the first of their photo]",
    )
    return parser


if __name__ == "__main__":
    main(measure, _parser())
