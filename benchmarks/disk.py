"""What the disk can do by itself: fio's random reads, one-at-a-time synced writes, a plain sequential write."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import CannotMeasure

PREALLOCATED_BLOCKS = 4096
SPARE_SECONDS = 60.0


def fio_command(files: Sequence[Path], block_bytes: int, depth: int, seconds: float, seed: int) -> list[str]:
    """fio's command line for random reads without repetition, past the page cache, ``depth`` of them at a time."""
    return [
        "fio",
        "--name=random-reads",
        "--readonly",
        "--filename=" + ":".join(str(path).replace(":", r"\:") for path in files),
        "--file_service_type=random",
        "--rw=randread",
        f"--bs={block_bytes}",
        "--direct=1",
        "--ioengine=libaio",
        f"--iodepth={depth}",
        f"--runtime={seconds:g}",
        f"--randseed={seed}",
        "--output-format=json",
    ]


def parse_fio(output: str) -> float:
    """Reads a second out of fio's JSON. Raises CannotMeasure when fio met an error."""
    try:
        job = json.loads(output[output.index("{") :])["jobs"][0]
        error, reads_per_second = int(job["error"]), float(job["read"]["iops"])
    except (ValueError, KeyError, IndexError) as problem:
        raise CannotMeasure(f"fio gave no result:\n{output}") from problem
    if error or not reads_per_second:
        raise CannotMeasure(f"fio failed: {os.strerror(error)}")
    return reads_per_second


def fio_random_reads(files: Sequence[Path], block_bytes: int, depth: int, seconds: float, seed: int) -> float:
    """Reads a second that fio reaches on these files."""
    argv = fio_command(files, block_bytes, depth, seconds, seed)
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=seconds + SPARE_SECONDS, check=False, start_new_session=True
    )
    return parse_fio(done.stdout or done.stderr)


def synced_writes(folder: Path, block_bytes: int, seconds: float, *, overwrite: bool) -> float:
    """Writes a second, one at a time, each followed by fdatasync.

    Parameters
    ----------
    overwrite: write into blocks that are there already, in turn, so that the file system has nothing to note down;
        otherwise the file grows, as that of a store does.
    """
    block = random.Random(7).randbytes(block_bytes)
    path = folder / "synced"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        if overwrite:
            for number in range(PREALLOCATED_BLOCKS):
                os.pwrite(fd, block, number * block_bytes)
        os.fsync(fd)
        count = 0
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            os.pwrite(fd, block, (count % PREALLOCATED_BLOCKS if overwrite else count) * block_bytes)
            os.fdatasync(fd)
            count += 1
        return count / (time.perf_counter() - started)
    finally:
        os.close(fd)
        path.unlink()


def sequential_write(folder: Path, block_bytes: int, total_bytes: int) -> float:
    """Bytes a second of writing ``total_bytes`` into a new file, block after block, with one sync at the end."""
    block = random.Random(7).randbytes(block_bytes)
    path = folder / "sequential"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        count = max(1, total_bytes // block_bytes)
        started = time.perf_counter()
        for number in range(count):
            os.pwrite(fd, block, number * block_bytes)
        os.fdatasync(fd)
        return count * block_bytes / (time.perf_counter() - started)
    finally:
        os.close(fd)
        path.unlink()
