"""Load on a shared memory: a keeper that keeps, overwrites, deletes and evicts, and processes that read."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from photo_memory import content, photo

from cache.memory import PhotoMemory
from cache.memory.limbo import GRACE_SECONDS

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
KEYS = 300
SIZES = ((100, 100), (3000, 3000), (20_000, 20_000), (150_000, 150_000))

_versions = iter(range(1, 2**32))


@contextlib.contextmanager
def reading(memory: PhotoMemory, worker: int, mode: str = "read") -> Iterator[subprocess.Popen[bytes]]:
    """A process that reads, see ``memory_worker.py``; killed at the end of the block."""
    fds = memory.open_worker(worker).fds
    command = [sys.executable, str(HERE / "memory_worker.py"), *map(str, fds), str(KEYS), str(worker), mode]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{HERE}"}
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, pass_fds=fds, stdin=pipe, stdout=pipe, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def churn(
    memory: PhotoMemory,
    seconds: float,
    seed: int,
    sizes: Sequence[tuple[int, int]] = SIZES,
    weights: Sequence[int] | None = None,
) -> int:
    """Keep, overwrite, delete and evict photos; returns how many were kept.

    Few keys are asked for all the time, by the readers too; as many others are only there to be evicted.
    """
    rng = random.Random(seed)
    end = time.monotonic() + seconds
    turns = kept = 0
    while time.monotonic() < end:
        turns += 1
        popular = rng.random() < 0.5
        key = min(int(rng.paretovariate(0.5)), KEYS) if popular else KEYS + rng.randrange(10**6)
        size_bytes = rng.randint(*rng.choices(sizes, weights)[0])
        version = next(_versions)
        filling = memory.begin(photo(key, version, size_bytes, meta=key.to_bytes(8, "little")))
        if filling is not None:
            filling.write(content(key, version, size_bytes))
            kept += filling.finish()
        else:
            time.sleep(GRACE_SECONDS)  # until what was evicted is out of use
            memory.reclaim()
        if turns % 7 == 0:
            memory.drop(1, min(int(rng.paretovariate(0.5)), KEYS))
        if turns % 20 == 0:
            memory.take_hits()
            memory.reclaim()
    return kept
