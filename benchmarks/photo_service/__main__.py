"""Pages and calls of the photo service at 100,000 users and a million photos: p50, p90 and p99 of each kind.

A database is filled in bulk: five accounts with 50,000 followers, people who follow from one to 7,500 others, words,
tags, places, views and likes as unevenly spread as they are. Then the front end runs on it as it does in production
(`haystack frontend`), and is asked over HTTP on loopback: one request at a time, and eight at once. Nothing is asked
for twice in a row, and nothing is left out of the figures but the first few requests of a kind.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import postgres, procfs
from benchmarks.common import CannotMeasure, Report, Target, arguments, main, progress, settings_of
from benchmarks.photo_service.asking import ask_all
from benchmarks.photo_service.cluster import directory
from benchmarks.photo_service.filling import fill
from benchmarks.photo_service.population import Population
from benchmarks.photo_service.questions import kinds
from benchmarks.processes import Program, running
from tools.children import parse_ready

TARGET = Target(at_most=50, of_ratio=False)
AT_ONCE = 8
WARM_UP = 10
DATABASES = ("sqlite", "postgresql")
POSTGRES_SETTINGS = ("shared_buffers=1GB", "effective_cache_size=4GB", "random_page_cost=1.1")
"""What anybody sets who runs PostgreSQL on a machine with a few GB and an SSD."""
BYTES_A_PHOTO = 4096
"""Of database, all in all, about."""


def measure(options: argparse.Namespace) -> Report:
    """Measure and report."""
    report = Report(
        f"The photo service with {options.users:,} users and {options.photos:,} photos: p99 of each kind",
        settings_of(options),
    )
    population = Population(options.users, options.photos, time.time_ns() // 1_000_000)
    if options.url is not None:
        _measure_on(report, options, options.url, population)
        return report
    for name in options.database:
        if options.keep is not None:
            with _kept(name, options.keep / f"{name}-{options.users}-{options.photos}", population) as (url, filled):
                _measure_on(report, options, url, filled)
            continue
        with _folder(options, population) as folder, _database(name, folder, population) as url:
            _measure_on(report, options, url, population)
    return report


@contextlib.contextmanager
def _kept(name: str, folder: Path, population: Population) -> Iterator[tuple[str, Population]]:
    """A database that stays in a folder, filled unless it is there, and the population that it was filled with."""
    filled = folder / "filled"
    if not filled.exists():
        if folder.exists():
            raise CannotMeasure(f"{folder} has no database that was filled to the end; remove it first")
        folder.mkdir(parents=True)
        procfs.require_room(folder, population.photos * BYTES_A_PHOTO)
    with contextlib.ExitStack() as stack:
        url = f"sqlite:///{folder.absolute()}/photos.db"
        if name != "sqlite":
            socket = stack.enter_context(postgres.private_server(POSTGRES_SETTINGS, kept=folder.absolute() / "server"))
            url = postgres.url_of(socket, "photos") if filled.exists() else postgres.new_database(socket, "photos")
        if not filled.exists():
            _fill(name, url, population)
            filled.write_text(str(population.now_ms))
        yield url, dataclasses.replace(population, now_ms=int(filled.read_text()))


@contextlib.contextmanager
def _folder(options: argparse.Namespace, population: Population) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="haystack-photos-", dir=options.folder) as name:
        procfs.require_room(Path(name), population.photos * BYTES_A_PHOTO)
        yield Path(name)


@contextlib.contextmanager
def _database(name: str, folder: Path, population: Population) -> Iterator[str]:
    with contextlib.ExitStack() as stack:
        if name == "sqlite":
            url = f"sqlite:///{folder}/photos.db"
        else:
            url = postgres.new_database(stack.enter_context(postgres.private_server(POSTGRES_SETTINGS)), "photos")
        _fill(name, url, population)
        yield url


def _fill(name: str, url: str, population: Population) -> None:
    started = time.monotonic()
    fill(url, population)
    progress(f"{name}: filled in {time.monotonic() - started:.0f} s")


def _measure_on(report: Report, options: argparse.Namespace, url: str, population: Population) -> None:
    name = url.partition(":")[0].partition("+")[0]
    chosen = [kind for kind in kinds(population) if options.only in kind.name]
    with _front_end(url) as (front, pid):
        for kind in chosen:
            ask_all(front, kind, WARM_UP, 1, seed=3)
            before = procfs.cpu_seconds([pid])
            alone = ask_all(front, kind, options.requests, 1, seed=1)
            cpu_ms = (procfs.cpu_seconds([pid]) - before) * 1000 / options.requests
            together = ask_all(front, kind, options.requests * 2, AT_ONCE, seed=2)
            progress(
                f"{name}: {kind.name}: {alone.words()}; {AT_ONCE} at once: {together.words()}; {cpu_ms:.1f} ms CPU"
            )
            for what, found in (("one at a time", alone), (f"{AT_ONCE} at once", together)):
                report.add(f"{name}: {kind.name}, {what}", "ms", [found.percentile(99)], target=TARGET)


@contextlib.contextmanager
def _front_end(url: str) -> Iterator[tuple[str, int]]:
    """A front end on a database: its URL and process id."""
    with tempfile.TemporaryDirectory(prefix="haystack-front-") as name, directory() as address:
        secret = Path(name) / "secret"
        secret.write_text("a secret of at least so many characters")
        secret.chmod(0o600)
        command = [sys.executable, "-P", "-m", "tools.cli", "frontend", "--port", "0", "--database", url]
        command += ["--directory", address, "--secret-file", str(secret), "--rate-limits", "off"]
        program = Program("front end", command, sorted(os.sched_getaffinity(0)), Path(name))
        with running(program):
            yield program.wait_for_line(parse_ready).url, program.pid


def _parser() -> argparse.ArgumentParser:
    parser = arguments(__doc__, seconds=1, rounds=1)
    parser.add_argument("--database", nargs="+", choices=DATABASES, default=list(DATABASES), help="[both]")
    parser.add_argument("--users", type=int, default=100_000, metavar="N", help="[100000]")
    parser.add_argument("--photos", type=int, default=1_000_000, metavar="N", help="[1000000]")
    parser.add_argument("--requests", type=int, default=300, metavar="N", help="of each kind, one at a time [300]")
    parser.add_argument("--only", default="", metavar="TEXT", help="measure kinds with this in their names")
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="DIR",
        help="keep the filled databases here, and use those that an earlier run kept",
    )
    parser.add_argument("--url", help="measure on this database, which an earlier run or another tool has filled")
    return parser


if __name__ == "__main__":
    main(measure, _parser())
