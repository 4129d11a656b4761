"""A Cache's memory through churn, as the kernel counts it: the processes' proportional set sizes and page tables.

``pytest tests/campaigns/test_cache_memory.py -s --minutes 3``: readers ask for far more than fits, with sizes that
change every few seconds from thumbnails to large photos and back, and others read slowly enough to hold on to what is
evicted. Every answer is compared with what was uploaded. Printed: how often the memory was filled anew, and the
highest sum.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "cache"))
sys.path.insert(0, str(Path(__file__).parents[1] / "store"))

from cache_harness import Behind, CacheNode, one_store
from memory_load import churn, reading

from benchmarks import procfs
from cache.memory import PhotoMemory, plan_memory
from cache.policies import make_policy
from haystack.fid import Fid
from haystack.units import KIB, MIB

MEMORY_BYTES = 256 * MIB
SSD_BYTES = 128 * MIB
UPLOADERS = 16
READERS = 6
SLOW_READERS = 6
PHASE_SECONDS = 6.0
PHASES = {
    "thumbnails": (1, 0, 0),
    "photos": (0, 1, 0),
    "large photos": (0, 0, 1),
    "all sizes": (20, 5, 1),
}
"""Weights of the three kinds of photos."""

KINDS = ((9_000, 2 * KIB, 6 * KIB), (1_000, 40 * KIB, 300 * KIB), (50, 1 * MIB, 4 * MIB))
"""How many of each kind there are, and from what size to what."""

ROUNDS = 3
TOLERANCE = 1.05
REFUSED_SHARE = 0.01


class Photos:
    """What was uploaded, by kind: fid and hash."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.kinds: list[list[tuple[Fid, bytes]]] = []

    def upload(self, behind: Behind) -> None:
        """Make them and put them into the Store, on several connections since each upload waits for the disk."""
        first = itertools.count(1)
        plan = [(next(first), least, most) for count, least, most in KINDS for _ in range(count)]
        parts = [plan[number::UPLOADERS] for number in range(UPLOADERS)]
        with ThreadPoolExecutor(UPLOADERS) as pool:
            uploaded = dict(itertools.chain.from_iterable(pool.map(lambda part: self._upload(behind, part), parts)))
        keys = iter(sorted(uploaded))
        self.kinds = [[uploaded[key] for key in itertools.islice(keys, count)] for count, _, _ in KINDS]

    def _upload(self, behind: Behind, plan: list[tuple[int, int, int]]) -> list[tuple[int, tuple[Fid, bytes]]]:
        uploaded = []
        with behind.store.client() as client:
            for key, least, most in plan:
                rng = random.Random(self._seed * 1_000_003 + key)
                fid, body = Fid(1, key, key * 7919), rng.randbytes(rng.randint(least, most))
                assert client.put(f"/{fid}", body).status == 201
                uploaded.append((key, (fid, hashlib.blake2b(body).digest())))
        return uploaded


class Load:
    """Reads until it is stopped; :attr:`wrong` is what should never have happened."""

    def __init__(self, node: CacheNode, photos: Photos) -> None:
        self._node = node
        self._photos = photos
        self.weights = PHASES["all sizes"]
        self.stopped = threading.Event()
        self.answers = 0
        self.refused = 0
        """503, which a Cache whose processes get no processor for a second says; clients have other ways."""
        self.wrong: list[str] = []

    def read(self, seed: int) -> None:
        rng = random.Random(seed)
        with self._node.client() as client:
            while not self.stopped.is_set():
                fid, digest = rng.choice(rng.choices(self._photos.kinds, self.weights)[0])
                answer = client.get(f"/{fid}")
                if answer.status == 503:
                    self.refused += 1
                elif answer.status != 200 or hashlib.blake2b(answer.body).digest() != digest:
                    self.wrong.append(f"{fid}: {answer.status}, {len(answer.body)} bytes")
                self.answers += 1

    def read_slowly(self, seed: int) -> None:
        """Ask for large photos and take some seconds to read each."""
        rng = random.Random(seed)
        while not self.stopped.is_set():
            fid, digest = rng.choice(self._photos.kinds[2])
            with self._node.client(receive_buffer_bytes=16 * KIB) as client:
                client.send(f"GET /{fid} HTTP/1.1\r\nHost: cache\r\n\r\n".encode())
                received = bytearray()
                while b"\r\n\r\n" not in received:
                    received += client.sock.recv(16 * KIB)
                head, _, body = bytes(received).partition(b"\r\n\r\n")
                if head.startswith(b"HTTP/1.1 503 "):
                    self.refused += 1
                    continue
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                pause_seconds = rng.uniform(0.5, 4.0) / (length / (64 * KIB))
                received = bytearray(body)
                while len(received) < length and not self.stopped.is_set():
                    received += client.sock.recv(min(64 * KIB, length - len(received)))
                    self.stopped.wait(pause_seconds)
                if len(received) == length and hashlib.blake2b(received).digest() != digest:
                    self.wrong.append(f"{fid}: read slowly, {len(received)} bytes")


def seen_from_outside(pids: list[int]) -> dict[str, int]:
    """Bytes of all processes together: what is theirs, what they share, and their page tables."""
    total = dict.fromkeys(("Pss_Anon", "Pss_Shmem", "Pss_File", "VmPTE"), 0)
    for pid in pids:
        for line in itertools.chain(_lines(pid, "smaps_rollup"), _lines(pid, "status")):
            name, _, rest = line.partition(":")
            if name in total:
                total[name] += int(rest.split()[0]) * KIB
    return total


def _lines(pid: int, name: str) -> Iterator[str]:
    yield from Path(f"/proc/{pid}/{name}").read_text().splitlines()


@pytest.mark.timeout(7200)
def test_the_shared_memory_alone(pytestconfig: pytest.Config) -> None:
    """Without HTTP and Stores, so faster than any node: an hour's worth in minutes, read by two processes."""
    plan = plan_memory(MEMORY_BYTES, 2)
    memory = PhotoMemory(plan, make_policy("lru"))
    sizes = [(least, most) for _, least, most in KINDS]
    phase_seconds = pytestconfig.getoption("--minutes") * 60 / ROUNDS / len(PHASES)
    highest = 0
    with reading(memory, 0) as one, reading(memory, 1) as other:
        for name, weights in itertools.chain.from_iterable(itertools.repeat(PHASES.items(), ROUNDS)):
            end = time.monotonic() + phase_seconds
            while time.monotonic() < end:
                churn(memory, 0.3, random.randrange(2**32), sizes, weights)
                highest = max(highest, memory.allocated_bytes)
            usage = memory.usage()
            print(
                f"\n{name}: {usage.entries:,} photos, filled anew {usage.evicted_bytes / usage.arena_bytes:.1f} times, "
                f"{usage.holes:,} holes, {usage.arena_used_bytes / usage.arena_bytes:.1%} of the arena in use, "
                f"{usage.refused:,} found no room, shared {memory.allocated_bytes / MIB:.1f} MiB",
                end="",
            )
        reports = [json.loads(worker.communicate(b"\n", timeout=60)[0]) for worker in (one, other)]
    planned = plan.limit_bytes - plan.processes_bytes
    print(f"\n{reports}; highest {highest / MIB:.1f} MiB, planned {planned / MIB:.1f}")
    assert all(report["wrong"] == [] and report["found"] for report in reports)
    assert highest <= planned
    assert usage.evicted_bytes > usage.arena_bytes


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("how", ["lru", "s3fifo", "lru, SSD"])
def test_memory_stays_within_its_limit(tmp_path: Path, pytestconfig: pytest.Config, how: str) -> None:
    seconds = pytestconfig.getoption("--minutes") * 60
    photos = Photos(pytestconfig.getoption("--seed"))
    options: dict[str, object] = {"memory_bytes": MEMORY_BYTES, "policy": how.partition(",")[0]}
    if how.endswith("SSD"):
        options |= {"ssd": str(tmp_path / "level"), "ssd_size_bytes": SSD_BYTES, "ssd_write_bytes_per_second": 0}
    with one_store(tmp_path, workers=2, **options) as behind:
        photos.upload(behind)
        node = behind.node
        load = Load(node, photos)
        threads = [threading.Thread(target=load.read, args=(number,)) for number in range(READERS)]
        threads += [threading.Thread(target=load.read_slowly, args=(100 + n,)) for n in range(SLOW_READERS)]
        for thread in threads:
            thread.start()
        highest: dict[str, int] = {}
        try:
            phases = itertools.cycle(PHASES.items())
            end = time.monotonic() + seconds
            while time.monotonic() < end and not load.wrong:
                name, load.weights = next(phases)
                phase_end = min(end, time.monotonic() + PHASE_SECONDS)
                while time.monotonic() < phase_end:
                    found = seen_from_outside([node.process.pid, *procfs.children(node.process.pid)])
                    highest = max(highest, found, key=lambda one: sum(one.values()))
                    time.sleep(0.25)
                counters = node.status()["counters"]
                print(f"\n{how}, {name}: {_text(found)}; {counters['entries']:,} photos", end="")
        finally:
            load.stopped.set()
            for thread in threads:
                thread.join()
        counters = node.status()["counters"]
    turned = counters["evictedBytes"] / MEMORY_BYTES
    print(f"\n{how}: {load.answers:,} answers, {load.refused:,} refused, filled anew {turned:.1f} times", end="")
    print(f"; highest {_text(highest)}")
    print({name: counters[name] for name in ("hits", "misses", "evictions", "entries", "usedBytes", "ssdHits")})
    assert not load.wrong, load.wrong[:5]
    assert load.refused <= REFUSED_SHARE * load.answers
    assert sum(highest.values()) <= TOLERANCE * MEMORY_BYTES
    assert sum(highest.values()) >= 0.8 * MEMORY_BYTES
    assert turned > 1


def _text(found: dict[str, int]) -> str:
    parts = ", ".join(f"{name} {size_bytes / MIB:.1f}" for name, size_bytes in found.items())
    total_bytes = sum(found.values())
    return f"{total_bytes / MIB:.1f} MiB ({total_bytes / MEMORY_BYTES:.1%} of the limit): {parts}"
