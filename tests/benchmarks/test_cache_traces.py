"""The measurement of hit ratios: traces as described, the ideal ideal, Varnish's LRU as documented."""

from __future__ import annotations

import itertools
from array import array
from pathlib import Path

import pytest

from benchmarks import cache_policies
from benchmarks.cache_traces.plain_lru import PlainLru
from benchmarks.cache_traces.plot import plot
from benchmarks.cache_traces.replay import VARNISH_NUKE_LIMIT, Result, ideal, replay, varnish
from benchmarks.cache_traces.table import Row, markdown, recent_markdown
from benchmarks.cache_traces.traces import SCANNED_SHARE, Trace, photo_like, zipf
from cache.policies import POLICIES, make_policy


def trace(photos: list[int], sizes: list[int], requests_per_second: float = 1.0) -> Trace:
    return Trace("test", array("I", photos), array("I", sizes), sum(sizes), requests_per_second, bytearray())


def test_the_same_seed_gives_the_same_trace() -> None:
    one, same, other = (zipf(0.9, 100, 1000, seed, 10.0) for seed in (3, 3, 4))
    assert one == same
    assert one != other
    photos, same_photos = photo_like(200, 20, 2, 1), photo_like(200, 20, 2, 1)
    assert photos == same_photos


def test_zipf_is_zipf() -> None:
    asked = zipf(1.0, 1000, 100_000, 1, 10.0).photos
    first, tenth = asked.count(0), asked.count(9)
    assert first / tenth == pytest.approx(10, rel=0.15)


def test_young_photos_are_asked_for_most_and_albums_are_leafed_through() -> None:
    found = photo_like(500, 20, 2, 1)
    assert len(found.photos) == 20_000
    assert 0.25 < sum(found.recent) / len(found.photos) < 0.4  # 1 of 365 days, a third of the requests
    steps = sum(after - before == 1 for before, after in itertools.pairwise(found.photos))
    assert steps > 0  # numbers are given at the first request, so a scan counts up
    assert pytest.approx(0.1) == SCANNED_SHARE


def best_possible(photos: list[int], capacity: int) -> int:
    """Most hits with photos of one size, by trying everything."""
    states = {frozenset[int](): 0}
    for photo in photos:
        after: dict[frozenset[int], int] = {}
        for kept, hits in states.items():
            hits += photo in kept
            full = kept | {photo}
            choices = [full] if len(full) <= capacity else [full - {gone} for gone in full]
            for choice in choices:
                after[choice] = max(after.get(choice, 0), hits)
        states = after
    return max(states.values())


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_better_than_the_ideal(seed: int) -> None:
    asked = list(zipf(0.8, 8, 40, seed, 1.0).photos)
    others = list(range(8, 8 + len(asked) // 4))  # the requests that warm it up are not counted
    whole = trace(others + asked, [10] * (8 + len(others)))
    for capacity in (1, 3, 5):
        best = best_possible(asked, capacity)
        assert ideal(whole, capacity * 10).hits == best
        assert all(replay(whole, capacity * 10, make()).hits <= best for make in POLICIES.values())


def test_varnish_moves_an_object_to_the_front_every_two_seconds_at_most() -> None:
    """Photo 0 is asked for within the interval after it came: that does not save it. Later it does."""
    soon = trace([0, 1, 0, 2, 0, 0, 0], [10] * 3, requests_per_second=10.0)
    late = trace([0, 1, 0, 2, 0, 0, 0], [10] * 3, requests_per_second=0.4)
    assert [varnish(one, 20).hits for one in (soon, late)] == [3, 4]
    assert replay(soon, 20, PlainLru()).hits == 4


def test_varnish_gives_up_after_its_nuke_limit() -> None:
    small = VARNISH_NUKE_LIMIT * 2
    photos = [*range(small), small, small, small]
    found = varnish(trace(photos, [10] * small + [small * 10]), small * 10)
    assert found.hits == 1  # the second try finds enough room, and the third finds the photo


def test_admission_keeps_only_what_it_is_asked_to() -> None:
    one = trace([0, 0, 0, 1, 1, 1] * 10, [10, 10])
    kept = replay(one, 100, make_policy("lru"), keep=lambda request: one.photos[request] == 1)
    assert (kept.requests, kept.hits) == (48, 24)


def test_tables_and_plot(tmp_path: Path) -> None:
    rows = [
        Row("Zipf 1", 0.01, "lru", Result(100, 50, 1000, 400)),
        Row("Zipf 1", 0.2, "lru", Result(100, 90, 1000, 800)),
        Row("photo-like", 0.2, "lru", Result(100, 60, 1000, 500, 40, 30)),
    ]
    assert "| Zipf 1 | 20% | 90.0 / 80.0 |" in markdown(rows)
    assert recent_markdown(rows).splitlines()[-1] == "| lru | 75.0% |"
    pytest.importorskip("matplotlib")
    plot(rows, tmp_path / "images" / "plot.png")
    assert (tmp_path / "images" / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_whole_measurement_in_small() -> None:
    rows = list(cache_policies.rows_of(photo_like(100, 20, 2, 1)))
    assert {row.policy for row in rows} >= {"lru", "s3fifo", "Varnish's LRU", "Bélády", "lru, paper's admission"}
    best = {row.share: row.result.hit_ratio for row in rows if row.policy == "Bélády"}
    assert all(row.result.hit_ratio <= best[row.share] + 0.02 for row in rows)
