"""Which Store a Cache reads from: drawn by the weights that the Directory names."""

from __future__ import annotations

import random
from math import exp

from cache.places import Place, Places

PLACE = Place(3, 1, True, ("a:1", "b:1", "c:1"), (10.0, 60.0, 30.0), 0.0)
DRAWS = 3000


def test_reads_are_drawn_by_weight_and_questions_are_not() -> None:
    places = Places([], None, uniform=random.Random(8).random)
    firsts = [places.for_reading(PLACE)[0] for _ in range(DRAWS)]
    for address, share in zip(PLACE.addresses, (0.1, 0.6, 0.3), strict=True):
        missed = firsts.count(address) / DRAWS - share
        assert 2 * exp(-2 * DRAWS * missed**2) > 1e-9  # Hoeffding
    assert places.in_order(PLACE) == ["a:1", "b:1", "c:1"]


def test_what_failed_lately_comes_last_whatever_its_weight() -> None:
    places = Places([], None)
    places.failed("b:1")
    assert {places.for_reading(PLACE)[-1] for _ in range(50)} == {"b:1"}
    assert places.in_order(PLACE) == ["a:1", "c:1", "b:1"]
