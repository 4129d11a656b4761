"""Compaction: its speed beside a plain sequential copy of as many bytes, and what those who read notice of it.

A volume of photos of which a share was deleted is compacted through the engine. The peer reads a file of as many bytes
as are alive, writes them to another one, and syncs it. Both begin with the page cache as making the volume left it, or
with an empty one (--cold, as root). Then a Store with the same volume is asked for photos at a fixed pace, at rest and
while its volume is compacted again and again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import procfs
from benchmarks.client import latencies_at_pace, percentile
from benchmarks.common import (
    CannotMeasure,
    Report,
    Target,
    alternating,
    arguments,
    main,
    progress,
    require_cores,
    settings_of,
    size_name,
)
from benchmarks.photos import Photo, PhotoMaker, fill_store, photo_set
from benchmarks.processes import free_port
from benchmarks.servers import store
from haystack.errors import HaystackError
from haystack.volume import Delete, Volume
from haystack.volume.compaction import Compacted, Compaction
from haystack.volume.live import CompactionOrder

COPY_BYTES = 2**20
DELETED_MS = 1
MIB = 2**20
WARM_SECONDS = 2.0

SPEED_TARGET = Target(at_least=0.8)
READS_TARGET = Target(at_most=2.0)
PAUSE_TARGET = Target(at_most=50.0, of_ratio=False)


def measure(options: argparse.Namespace) -> Report:
    """Measure and report."""
    cores = require_cores(2)
    if options.cold and os.geteuid() != 0:
        raise CannotMeasure("--cold has to empty the page cache: run this as root")
    report = Report("Compaction of one volume", settings_of(options))
    with tempfile.TemporaryDirectory(prefix="haystack-compaction-", dir=options.folder) as name:
        folder = Path(name)
        procfs.require_room(folder, 4 * options.bytes)
        for size_bytes in options.sizes:
            _measure_speed(report, folder, size_bytes, options)
        _measure_reads(report, folder, options, cores)
    return report


def _measure_speed(report: Report, folder: Path, size_bytes: int, options: argparse.Namespace) -> None:
    ours: list[float] = []
    peer: list[float] = []
    pauses: list[float] = []
    progress(f"photos of {size_name(size_bytes)}: making a volume")
    made = folder / "made"
    photos = photo_set(1, options.bytes // size_bytes, size_bytes, 1)
    fill_store(made, photos, PhotoMaker(), volumes=1)
    live_bytes = _delete_some(made / "1.vol", photos, options.garbage)
    plain = folder / "plain"
    _copy(made / "1.vol", plain, live_bytes)
    for round_, side in alternating(options.rounds, ("compaction", "copy")):
        source = folder / "round"
        shutil.copytree(made, source)  # for both: a disk may tire
        os.sync()
        if options.cold:
            procfs.drop_page_cache()
        progress(f"round {round_ + 1} of {options.rounds}: {side}")
        if side == "copy":
            peer.append(live_bytes / MIB / _seconds(lambda: _copy(plain, folder / "copied", live_bytes)))
            (folder / "copied").unlink()
            shutil.rmtree(source)
            continue
        seconds, done = _compact(source / "1.vol")
        if done.new_bytes < live_bytes:
            raise CannotMeasure(f"{done.new_bytes} bytes are left of {live_bytes} that are alive")
        ours.append(done.new_bytes / MIB / seconds)
        pauses.append(done.pause_seconds * 1000)
        shutil.rmtree(source)
    name = f"{size_name(size_bytes)}, {options.garbage:.0%} deleted"
    report.add(f"live bytes, {name}", "MiB/s", ours, peer, peer_name="copy", target=SPEED_TARGET)
    report.add(f"nobody can append, {name}", "ms", pauses, target=PAUSE_TARGET)
    shutil.rmtree(made)
    plain.unlink()


def _delete_some(path: Path, photos: Sequence[Photo], share: float) -> int:
    """Delete every so manieth photo; returns the bytes of those that are left."""
    with Volume.open(path) as volume:
        step = 1 / share if share else 0
        chosen = [photos[int(at * step)] for at in range(int(len(photos) * share))]
        for start in range(0, len(chosen), 1000):
            deletes = [Delete(one.fid.key, one.fid.cookie, DELETED_MS) for one in chosen[start : start + 1000]]
            for outcome in volume.append(deletes).outcomes:
                if isinstance(outcome, HaystackError):
                    raise outcome
        return volume.state().live_bytes


def _compact(path: Path) -> tuple[float, Compacted]:
    """Compact a volume; returns how long that took."""
    with Volume.open(path) as volume:
        began = time.perf_counter()
        done = Compaction(volume, CompactionOrder(now_ms=time.time_ns() // 1_000_000, trash_ms=0)).run()
        seconds = time.perf_counter() - began
    done.volume.close()
    return seconds, done


def _seconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def _copy(source: Path, target: Path, size_bytes: int) -> None:
    """A plain sequential copy, durable."""
    buffer = memoryview(bytearray(COPY_BYTES))
    with source.open("rb", buffering=0) as reader, target.open("wb", buffering=0) as writer:
        os.posix_fadvise(reader.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        left = size_bytes
        while left:
            count = reader.readinto(buffer[: min(left, COPY_BYTES)])
            if not count:
                raise CannotMeasure(f"{source} ends too early")
            writer.write(buffer[:count])
            left -= count
        os.fsync(writer.fileno())


def _measure_reads(report: Report, folder: Path, options: argparse.Namespace, cores: Sequence[int]) -> None:
    """Latency of reads at a fixed pace, at rest and during compactions."""
    size_bytes = options.sizes[0]
    data = folder / "store"
    photos = photo_set(1, options.bytes // size_bytes, size_bytes, 1)
    fill_store(data, photos, PhotoMaker(), volumes=1)
    _delete_some(data / "1.vol", photos, options.garbage)
    kept = [photo.path for at, photo in enumerate(photos) if not _is_deleted(at, len(photos), options.garbage)]
    rest: list[float] = []
    busy: list[float] = []
    pauses: list[float] = []
    admin_port = options.admin_port or free_port()
    with store(data, workers=1, cores=cores, admin_port=admin_port) as server:
        progress("reads: warming up")
        _read(server.port, kept, options.reads, WARM_SECONDS)
        for round_, side in alternating(options.rounds, ("at rest", "compacting")):
            progress(f"round {round_ + 1} of {options.rounds}: reads {side}")
            if side == "at rest":
                rest.append(percentile(_read(server.port, kept, options.reads, options.seconds), 99) * 1000)
                continue
            compacting = _Compacting(admin_port, options.rate)
            found = _read(server.port, kept, options.reads, options.seconds)
            pauses += compacting.stop()
            busy.append(percentile(found, 99) * 1000)
    report.add(
        f"99 of 100 reads of {size_name(size_bytes)}, {options.reads:g}/s",
        "ms",
        busy,
        rest,
        peer_name="at rest",
        target=READS_TARGET,
    )
    report.add("nobody can append, longest in a Store", "ms", [max(pauses)], target=PAUSE_TARGET)
    report.note(f"{len(pauses)} compactions while reads were measured")


def _is_deleted(at: int, count: int, share: float) -> bool:
    return share > 0 and at in {int(place / share) for place in range(max(0, int(at * share) - 1), int(at * share) + 2)}


def _read(port: int, paths: Sequence[str], per_second: float, seconds: float) -> list[float]:
    until = time.perf_counter() + seconds
    return latencies_at_pace(port, paths, per_second=per_second, stop=lambda: time.perf_counter() >= until)


class _Compacting:
    """Compacts volume 1 of a Store again and again, until it is stopped."""

    def __init__(self, admin_port: int, rate: int | None) -> None:
        self._rate = rate
        self._url = f"http://127.0.0.1:{admin_port}/admin/volumes/1/compact"
        self._stopped = threading.Event()
        self._pauses: list[float] = []
        self._problem: Exception | None = None
        self._thread = threading.Thread(target=self._guarded)
        self._thread.start()

    def stop(self) -> list[float]:
        """Wait for the last one; returns the pause of each, in milliseconds. Raises what went wrong."""
        self._stopped.set()
        self._thread.join()
        if self._problem is not None:
            raise CannotMeasure(f"a compaction failed: {self._problem}") from self._problem
        return self._pauses

    def _guarded(self) -> None:
        try:
            while not self._stopped.is_set():
                self._pauses.append(self._compact())
        except (OSError, HaystackError, KeyError, ValueError) as error:
            self._problem = error

    def _compact(self) -> float:
        order = {"nowMs": time.time_ns() // 1_000_000, "trashMs": 0, "bytesPerSecond": self._rate}
        self._call(order)
        while True:
            job = self._call(None)
            if job["state"] == "done":
                return float(job["pauseSeconds"]) * 1000
            if job["state"] == "failed":
                raise CannotMeasure(str(job["error"]))
            time.sleep(0.05)

    def _call(self, document: object) -> Any:
        body = None if document is None else json.dumps(document).encode()
        with urllib.request.urlopen(urllib.request.Request(self._url, body), timeout=30) as answer:
            return json.load(answer)


def _parser() -> argparse.ArgumentParser:
    parser = arguments(__doc__, seconds=10, rounds=3)
    parser.add_argument("--bytes", type=int, default=2**30, help="size of the volume [1 GiB]")
    parser.add_argument("--sizes", type=int, nargs="+", default=[200 * 1024, 64 * 1024, 4 * 1024], help="of the photos")
    parser.add_argument("--garbage", type=float, default=0.3, help="share of the photos that is deleted [0.3]")
    parser.add_argument("--reads", type=float, default=500.0, help="reads a second while compacting [500]")
    parser.add_argument("--rate", type=int, help="bytes a second while reads are measured [the Store's default]")
    parser.add_argument("--cold", action="store_true", help="begin each run with an empty page cache")
    parser.add_argument("--admin-port", type=int, default=0, help="of the Store [any free one]")
    return parser


if __name__ == "__main__":
    main(measure, _parser())
