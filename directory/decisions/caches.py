"""Over how many Caches the reads of a photo go. To which ones: :mod:`haystack.rendezvous`."""

from __future__ import annotations

import math


def spread(nodes: int, reads_per_second: float, share_reads_per_second: float) -> int:
    """Return over how many of the first nodes of its order a photo's reads go.

    Parameters
    ----------
    nodes: how many there are.
    reads_per_second: of the photo, at all of them.
    share_reads_per_second: what one node is to take of one photo; 0: photos are never shared.
    """
    if share_reads_per_second <= 0 or nodes < 2:
        return min(nodes, 1)
    return max(1, math.ceil(min(float(nodes), reads_per_second / share_reads_per_second)))
