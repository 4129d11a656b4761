"""A random order by weight, the same for everybody who spreads reads over copies: Directory, clients, Caches. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def weighted_order(items: Sequence[T], weights: Sequence[float], uniform: Callable[[], float]) -> list[T]:
    """Return the items in an order drawn at random: the first one in proportion to the weights, so the next among the
    others, and so on.

    Items of weight 0 come last, in the order given: they are for the case that all others fail.

    Parameters
    ----------
    weights: one for each item, 0 or more.
    uniform: random numbers in 0 ≤ x < 1.
    """
    if len(items) != len(weights):
        raise ValueError(f"{len(items)} items cannot be drawn by {len(weights)} weights")
    if len(items) < 2:
        return list(items)
    left = [(item, weight) for item, weight in zip(items, weights, strict=True) if weight > 0.0]
    drawn = []
    while len(left) > 1:
        drawn.append(left.pop(_drawn([weight for _, weight in left], uniform()))[0])
    drawn += [item for item, _ in left]
    return drawn + [item for item, weight in zip(items, weights, strict=True) if not weight > 0.0]


def _drawn(weights: Sequence[float], chance: float) -> int:
    """Return which of the weights, laid end to end, has this part of their sum."""
    point = chance * sum(weights)
    for index, weight in enumerate(weights):
        point -= weight
        if point < 0.0:
            return index
    return len(weights) - 1  # rounding
