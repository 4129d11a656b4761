"""What every policy must do, and what each of the two is for. Those that were only measured are held to the same."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable

import pytest

from benchmarks.cache_traces.plain_lru import PlainLru
from benchmarks.cache_traces.sieve import Sieve
from benchmarks.cache_traces.tinylfu import TinyLfu
from cache.policies import POLICIES, Policy, make_policy
from haystack.errors import ConfigError

ALL: dict[str, Callable[[], Policy]] = {**POLICIES, "plain LRU": PlainLru, "SIEVE": Sieve, "W-TinyLFU": TinyLfu}
make_any = pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())
make_ours = pytest.mark.parametrize("make", POLICIES.values(), ids=POLICIES.keys())


class Cache:
    """A cache of so many bytes with a policy; photos are numbers, of sizes that follow from them."""

    def __init__(self, policy: Policy, capacity_bytes: int, size_bytes: int = 100) -> None:
        self.policy = policy
        self.capacity_bytes = capacity_bytes
        self.size_bytes = size_bytes
        self.entries: dict[int, int] = {}
        self.photos: dict[int, int] = {}
        self.free = list(range(capacity_bytes // size_bytes + 10, -1, -1))
        policy.resize(capacity_bytes)

    def ask(self, photo: int) -> bool:
        entry = self.entries.get(photo)
        if entry is not None:
            self.policy.hits([entry])
            return True
        while self.policy.total_bytes + self.size_bytes > self.capacity_bytes:
            gone = self.policy.victim()
            assert gone is not None
            del self.entries[self.photos.pop(gone)]
            self.free.append(gone)
        entry = self.free.pop()
        self.policy.add(entry, hash((1, photo, 0)), self.size_bytes)
        self.entries[photo], self.photos[entry] = entry, photo
        return False


@make_any
def test_nothing_is_given_up_of_nothing(make: Callable[[], Policy]) -> None:
    policy = make()
    policy.resize(1000)
    assert policy.victim() is None
    policy.hits([0, 5, 100_000])
    policy.remove(7)
    assert (len(policy), policy.total_bytes, policy.victim()) == (0, 0, None)


@make_any
@pytest.mark.parametrize("seed", range(5))
def test_it_gives_up_what_it_has_each_once(make: Callable[[], Policy], seed: int) -> None:
    rng = random.Random(seed)
    policy = make()
    policy.resize(10_000)
    sizes: dict[int, int] = {}
    for step in range(3000):
        action = rng.random()
        if action < 0.4:
            entry = rng.choice([number for number in range(200) if number not in sizes])
            sizes[entry] = rng.randint(1, 400)
            policy.add(entry, hash((step, seed)), sizes[entry])
        elif action < 0.8:
            policy.hits([rng.randrange(300) for _ in range(5)])
        elif action < 0.9:
            entry = rng.randrange(300)
            policy.remove(entry)
            sizes.pop(entry, None)
        if sum(sizes.values()) > 10_000 or action >= 0.97:
            gone = policy.victim()
            assert (gone is None) == (not sizes)
            if gone is not None:
                del sizes[gone]
        if step % 500 == 499:
            policy.resize(rng.randint(5_000, 15_000))
        assert len(policy) == len(sizes)
        assert policy.total_bytes == sum(sizes.values())
    given_up = [policy.victim() for _ in range(len(sizes))]
    assert sorted(map(str, given_up)) == sorted(map(str, sizes))
    assert policy.victim() is None
    assert (len(policy), policy.total_bytes) == (0, 0)


@make_ours
def test_what_is_asked_for_often_stays_whatever_else_comes(make: Callable[[], Policy]) -> None:
    cache = Cache(make(), 10_000)
    rng = random.Random(1)
    misses = 0
    for step in range(20_000):
        misses += not cache.ask(rng.randrange(20))  # a fifth of the memory
        cache.ask(1000 + step)
    assert misses < 60


@make_any
def test_a_new_photo_has_a_chance_against_old_favourites(make: Callable[[], Policy]) -> None:
    """Popularity moves on: what was asked for a thousand times before must give way."""
    cache = Cache(make(), 10_000)
    rng = random.Random(1)
    for _ in range(20_000):
        cache.ask(rng.randrange(150))
    hits = [cache.ask(1000 + rng.randrange(60)) for _ in range(20_000)]
    assert sum(hits[10_000:]) > 9_900


@make_ours
def test_a_scan_does_not_push_out_what_was_asked_for_twice(make: Callable[[], Policy]) -> None:
    cache = Cache(make(), 10_000)
    for photo in list(range(60)) * 5:
        cache.ask(photo)
    for photo in range(5000, 6000):
        cache.ask(photo)
    assert sum(cache.ask(photo) for photo in range(60)) >= 55


def test_plain_lru_loses_all_to_a_scan() -> None:
    """What the test above is worth: the policy that was not taken fails it."""
    cache = Cache(PlainLru(), 10_000)
    for photo in list(range(60)) * 5:
        cache.ask(photo)
    for photo in range(5000, 6000):
        cache.ask(photo)
    assert sum(cache.ask(photo) for photo in range(60)) < 60 * 0.1


@make_ours
def test_it_weighs_by_bytes(make: Callable[[], Policy]) -> None:
    """Parts are shares of the bytes: one large new photo takes the place of many small new ones, no more."""
    policy = make()
    policy.resize(100_000)
    for entry in range(80):
        policy.add(entry, hash((entry, 1)), 1000)
    for _ in range(3):
        policy.hits(range(80))
    policy.add(90, hash((90, 1)), 20_000)
    gone = []
    while policy.total_bytes > 80_000:
        victim = policy.victim()
        assert victim is not None
        gone.append(victim)
    assert gone == [90]


def test_s3fifo_remembers_what_went() -> None:
    """What comes again soon after it went is not new: a scan behind it does not push it out again."""
    cache = Cache(make_policy("s3fifo"), 1_000_000, 10_000)
    for photo in range(150):
        cache.ask(photo)
    assert not any(photo in cache.entries for photo in range(20))
    for photo in range(20):
        cache.ask(photo)
    for photo in range(1000, 1150):
        cache.ask(photo)
    assert sum(photo in cache.entries for photo in range(20)) >= 10  # some ghosts lost their place to others


def test_lru_always_has_room_for_what_is_new() -> None:
    """Though all that is kept was asked for again, a new photo stays until it is asked for again."""
    cache = Cache(make_policy("lru"), 10_000)
    for photo in list(range(100)) * 3:
        cache.ask(photo)
    for photo in range(1000, 1010):
        cache.ask(photo)
    assert all(cache.ask(photo) for photo in range(1000, 1010))


@make_ours
def test_memory_an_entry_is_what_it_says(make: Callable[[], Policy]) -> None:
    policy = make()
    policy.resize(60_000 * 64)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for entry in range(60_000):
            policy.add(entry, hash((entry, 0)), 64)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown / 60_000 <= policy.entry_bytes


def test_unknown_policies_are_named() -> None:
    with pytest.raises(ConfigError, match="'fifo' is unknown; expected one of lru, s3fifo"):
        make_policy("fifo")
