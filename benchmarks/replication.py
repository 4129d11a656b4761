"""What copies cost: uploads with replication 001 beside uploads without, on the same two Stores of one machine.

A Directory and two Stores run on all cores, each Store with a data folder of its own. One wrk a Store PUTs new photos
into the volumes that this Store leads, 16 clients each; both kinds of volumes lie on the same Stores, and take turns
within each round. With replication 001 each photo is written and synced twice, and crosses a socket once more, so half
of the rate without is the most that one disk and one set of cores could give.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import procfs, wrk
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
    require_tools,
    settings_of,
    size_name,
)
from benchmarks.processes import Program, running
from tools.children import parse_ready

SIZES = [200 * 1024]
TARGETS = {200 * 1024: Target(at_least=0.45)}
STORES = 2
CONNECTIONS_PER_STORE = 16
COOKIE = "5eed5eed5eed5eed"
KEYS_PER_RUN = 2**32
THREAD_KEYS = 2**40
GROW_SECONDS = 30.0
SAMPLE = 20
TURN_BYTES = 16 * 2**20
"""What a volume gets before it is the next one's turn."""

ALONE, COPIED = "000", "001"


@dataclass(slots=True)
class Bench:
    """One measurement while it goes on.

    Parameters
    ----------
    led: for each replication and each Store's address, the volumes that this Store leads.
    first_key: of the run before.
    """

    options: argparse.Namespace
    folder: Path
    directory: str
    led: dict[str, dict[str, list[int]]]
    disk: Path
    first_key: int = 0


def measure(options: argparse.Namespace) -> Report:
    """Measure and report."""
    require_tools("wrk", "taskset")
    cores = require_cores(2)
    report = Report("Uploads with and without a second copy", settings_of(options))
    with tempfile.TemporaryDirectory(prefix="haystack-replication-", dir=options.folder) as name:
        folder = Path(name)
        with _cluster(folder, options, cores) as directory:
            led = {kind: _volumes(directory, kind, options.volumes) for kind in (ALONE, COPIED)}
            bench = Bench(options, folder, directory, led, procfs.disk_of(folder))
            for size_bytes in options.sizes:
                _compare(bench, report, size_bytes)
    return report


@contextlib.contextmanager
def _cluster(folder: Path, options: argparse.Namespace, cores: Sequence[int]) -> Iterator[str]:
    """Run a Directory and the Stores; yields the Directory's URL."""
    command = [sys.executable, "-m", "tools.cli"]
    with contextlib.ExitStack() as stack:
        argv = [*command, "directory", "--data", str(folder / "directory"), "--port", "0"]
        argv += ["--writable-volumes", str(options.volumes)]
        program = stack.enter_context(running(Program("the Directory", argv, cores, folder)))
        directory = program.wait_for_line(parse_ready).url
        for store in range(STORES):
            argv = [*command, "store", "--data", str(folder / f"store{store}"), "--port", "0", "--admin-port", "0"]
            argv += ["--workers", str(options.workers), "--directory", directory]
            program = stack.enter_context(running(Program(f"Store {store}", argv, cores, folder)))
            program.wait_for_line(parse_ready)
        yield directory


def _volumes(directory: str, replication: str, count: int) -> dict[str, list[int]]:
    """Have volumes made; returns those that each Store leads, the same number for each."""
    deadline = time.monotonic() + GROW_SECONDS
    while True:
        # The first assign has volumes of this replication made; the answer does not matter.
        with contextlib.suppress(OSError):
            _get(f"{directory}/dir/assign?replication={replication}")
        with contextlib.suppress(OSError):
            _get(f"{directory}/vol/grow?count=2&replication={replication}")
        status = _get(f"{directory}/dir/status")
        urls = {store["storeId"]: store["url"] for store in status["Stores"]}
        led: dict[str, list[int]] = {url: [] for url in urls.values()}
        for volume in status["Volumes"]:
            if volume["replication"] == replication and len(volume["inSync"]) == 1 + int(replication):
                led[urls[volume["primary"]]].append(volume["volume"])
        each = min((len(volumes) for volumes in led.values()), default=0)
        if len(led) == STORES and each * STORES >= count:
            return {url: volumes[: count // STORES] for url, volumes in led.items()}
        if time.monotonic() > deadline:
            raise CannotMeasure(f"the Directory made {led} with replication {replication}; {count} were wanted")
        time.sleep(0.5)


def _compare(bench: Bench, report: Report, size_bytes: int) -> None:
    body = random.Random(size_bytes).randbytes(size_bytes)
    (bench.folder / "body").write_bytes(body)
    rates: dict[str, list[float]] = {ALONE: [], COPIED: []}
    latencies: dict[str, list[float]] = {ALONE: [], COPIED: []}
    for kind in rates:
        _upload(bench, kind, body, seconds=1)  # the first one opens volumes and connections
    for _, kind in alternating(bench.options.rounds, [COPIED, ALONE]):
        os.sync()
        results = _upload(bench, kind, body, seconds=bench.options.seconds)
        rates[kind].append(sum(result.per_second for result in results))
        latencies[kind].append(max(result.p99_ms for result in results))
        busy = sum(result.busy for result in results)
        progress(
            f"  replication {kind} {size_name(size_bytes):>6}: {number(rates[kind][-1])}/s  "
            f"p99 {latencies[kind][-1]:.1f} ms  wrk {busy:.2f} busy"
        )
    what = size_name(size_bytes)
    peer = f"replication {ALONE}"
    target = TARGETS.get(size_bytes)
    report.add(f"{what}, {COPIED}", "photos/s", rates[COPIED], rates[ALONE], peer_name=peer, target=target)
    report.add(f"{what}, {COPIED}: p99", "ms", latencies[COPIED], latencies[ALONE], peer_name=peer)


def _upload(bench: Bench, kind: str, body: bytes, *, seconds: float) -> list[wrk.Result]:
    """Upload to both Stores at once."""
    bench.first_key += KEYS_PER_RUN
    turn = max(1, TURN_BYTES // len(body))
    results: dict[str, wrk.Result] = {}
    failures: list[BaseException] = []

    def upload(number_: int, url: str, volumes: Sequence[int]) -> None:
        first_key = bench.first_key + number_ * 2 * THREAD_KEYS
        try:
            results[url] = wrk.run(
                f"http://{url}",
                wrk.UPLOADS,
                [first_key, ",".join(map(str, volumes)), bench.folder / "body", COOKIE, turn],
                folder=bench.folder,
                seconds=seconds,
                connections=CONNECTIONS_PER_STORE,
                threads=1,
                cores=sorted(os.sched_getaffinity(0)),
            )
            _require_stored(url, volumes, first_key + THREAD_KEYS, turn, results[url], body)
        except BaseException as error:  # told by the thread that waits
            failures.append(error)

    threads = [
        threading.Thread(target=upload, args=(number_, url, volumes))
        for number_, (url, volumes) in enumerate(bench.led[kind].items())
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return list(results.values())


def _require_stored(
    url: str, volumes: Sequence[int], first_key: int, turn: int, result: wrk.Result, body: bytes
) -> None:
    """Raises CannotMeasure unless a sample of what was acknowledged can be read back."""
    last = result.requests - CONNECTIONS_PER_STORE
    for number_ in random.Random(1).sample(range(2, max(3, last)), min(SAMPLE, max(1, last - 2))):
        key = first_key + number_
        path = f"/{volumes[key // turn % len(volumes)]},{key:x}{COOKIE}"
        with urllib.request.urlopen(f"http://{url}{path}", timeout=30) as answer:
            if answer.read() != body:
                raise CannotMeasure(f"{path} was uploaded, but other bytes are read")


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


def _parser() -> argparse.ArgumentParser:
    parser = arguments(__doc__, seconds=5, rounds=7)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="BYTES", help="sizes of photos")
    parser.add_argument("--volumes", type=int, default=6, help="volumes of each replication [6]")
    parser.add_argument("--workers", type=int, default=1, help="workers of each Store [1]")
    return parser


if __name__ == "__main__":
    main(measure, _parser())
