"""Which reads count as views of a photo: those of its large picture.

Whoever looks at a photo is shown that one, in the format that his browser likes best; lists show smaller ones. Browsers
keep it, so one who looks again, or at the original as well, is counted once.
"""

from __future__ import annotations

from typing import Final

LOOKED_AT: Final = frozenset((4, 14, 24))
"""Alternate keys: the large rendition of the photo service in each format."""


def is_view(alternate: int) -> bool:
    """Whether a read of the needle with this alternate key is a view."""
    return alternate in LOOKED_AT
