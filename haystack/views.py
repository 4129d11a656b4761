"""Which reads count as views of a photo: those of what somebody looks at, not of the small pictures of a list."""

from __future__ import annotations

from typing import Final

LOOKED_AT: Final = frozenset((0, 3, 4, 13, 14, 23, 24))
"""Alternate keys: the original, and the medium and large renditions of the photo service in each format."""


def is_view(alternate: int) -> bool:
    """Whether a read of the needle with this alternate key is a view."""
    return alternate in LOOKED_AT
