"""To which of several nodes something belongs: weighted rendezvous hashing.

Every node draws a number for every photo, out of a hash of both, larger on average for a node with more weight; the
photo belongs to the node with the largest. So all who know the same nodes agree without a word, a node that joins takes
its share from all others alike, and one that leaves gives its share back to them; nothing else moves.

Source: Schindelhauer and Schomaker, "Weighted distributed hash tables", SPAA 2005 (the logarithmic method).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from xxhash import xxh3_64_intdigest

_SPAN = float(2**64)


class Node(NamedTuple):
    """A node that takes part, with what it weighs (in any unit that all share; more than 0)."""

    id: str
    weight: float


def order(photo_id: int, nodes: Iterable[Node], most: int | None = None) -> list[Node]:
    """Return the nodes in the order in which they are to be asked for a photo.

    Parameters
    ----------
    most: how many at most; None for all.
    """
    key = photo_id.to_bytes(8, "big")
    ranked = [(_draw(key, node), node) for node in nodes]
    chosen = sorted(ranked, reverse=True) if most is None else heapq.nlargest(most, ranked)
    return [node for _, node in chosen]


def turned(ordered: Sequence[Node], sharing: int, dice: float) -> list[Node]:
    """Return the order for one reader of what the first ``sharing`` nodes share: it begins with one of these.

    Parameters
    ----------
    dice: a random number in 0 ≤ x < 1.
    """
    if sharing < 2:
        return list(ordered)
    first = min(int(dice * sharing), len(ordered) - 1)
    return [ordered[first], *ordered[:first], *ordered[first + 1 :]]


def _draw(key: bytes, node: Node) -> float:
    """Return a number that is distributed as the largest of ``weight`` uniform ones: that makes shares fair."""
    uniform = (xxh3_64_intdigest(key + node.id.encode()) + 0.5) / _SPAN
    return -node.weight / math.log(uniform) if uniform < 1.0 else math.inf
