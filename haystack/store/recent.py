"""Which photos were read from the disk lately: what is asked for a second time is worth a place in the page cache."""

from __future__ import annotations

MAX_PHOTOS = 65_536
"""Photos remembered in each of two generations, about 150 bytes each."""


class RecentReads:
    """Remembers reads, at least those of the last ``window_bytes`` and at most those of twice as many.

    A photo that comes back after more bytes than the page cache could hold meanwhile would not have stayed there, so it
    is not worth one either.

    Parameters
    ----------
    window_bytes: how far back it remembers, in bytes read.
    """

    def __init__(self, window_bytes: int) -> None:
        self._window_bytes = window_bytes
        self._now: set[tuple[int, int]] = set()
        self._before: set[tuple[int, int]] = set()
        self._bytes = 0

    def is_repeated(self, volume: int, offset: int, size_bytes: int) -> bool:
        """Note the read of what lies at ``offset`` of a volume; returns whether it was noted not long ago."""
        photo = (volume, offset)
        if photo in self._now:
            return True
        repeated = photo in self._before
        if self._bytes + size_bytes > self._window_bytes or len(self._now) >= MAX_PHOTOS:
            self._before, self._now = self._now, set()
            self._bytes = 0
        self._now.add(photo)
        self._bytes += size_bytes
        return repeated
