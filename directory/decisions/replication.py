"""What the three digits of ``replication`` promise, and how far a set of Stores keeps it.

``XYZ``, as in SeaweedFS: X copies in other data centers, Y in other racks of the data center, Z on other Stores of the
rack; each other data center and each other rack counts once. ``000`` is one copy, ``110`` three.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from haystack.errors import InvalidRequest

MAX_COPIES = 10
"""Copies of one volume: every upload waits for all of them."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where a Store stands. A rack is told from others by its name and the data center's."""

    store_id: str
    data_center: str
    rack: str


Home = tuple[str, str]
"""A data center and one of its racks, from which the others are "other" ones."""


def homes(sites: Iterable[Site]) -> set[Home]:
    """Return the racks in which these Stores stand."""
    return {(site.data_center, site.rack) for site in sites}


@dataclass(frozen=True, slots=True)
class Replication:
    """A parsed ``XYZ``."""

    centers: int
    racks: int
    stores: int

    @property
    def copies(self) -> int:
        """The promised number of copies."""
        return 1 + self.centers + self.racks + self.stores

    def kept(self, sites: Iterable[Site]) -> int:
        """Return how many of the promised copies these Stores are: the best way of counting them.

        A copy too many in one place counts for nothing: two of the same rack are one for ``010``.
        """
        distinct = list({site.store_id: site for site in sites}.values())
        return max((self.kept_around(home, distinct) for home in homes(distinct)), default=0)

    def kept_around(self, home: Home, sites: Iterable[Site]) -> int:
        """Return how many of the promised copies these Stores, each named once, are for a volume at home in a rack."""
        center, rack = home
        here, racks, centers = 0, set[str](), set[str]()
        for site in sites:
            if site.data_center != center:
                centers.add(site.data_center)
            elif site.rack != rack:
                racks.add(site.rack)
            else:
                here += 1
        return self.counted(here, len(racks), len(centers))

    def counted(self, here: int, racks: int, centers: int) -> int:
        """Return how many copies count, of so many Stores in the home rack, other racks, and other data centers."""
        return min(here, 1 + self.stores) + min(racks, self.racks) + min(centers, self.centers)

    def __str__(self) -> str:
        return f"{self.centers}{self.racks}{self.stores}"

    def in_words(self) -> str:
        """Return what is promised, for people."""
        parts = (
            (self.stores, "on another Store of the rack", "on other Stores of the rack"),
            (self.racks, "in another rack", "in other racks"),
            (self.centers, "in another data center", "in other data centers"),
        )
        told = [f"{count} {one if count == 1 else many}" for count, one, many in parts if count]
        return "one copy" if not told else "one copy, and " + ", ".join(told)


@lru_cache(maxsize=1000)
def parse_replication(text: str) -> Replication:
    """Read ``XYZ``. Raises InvalidRequest."""
    if not (text.isascii() and text.isdigit() and len(text) == 3):
        raise InvalidRequest(f"replication {text[:40]!r} is not three digits, such as 000 or 011")
    found = Replication(int(text[0]), int(text[1]), int(text[2]))
    if found.copies > MAX_COPIES:
        raise InvalidRequest(f"replication {text} means {found.copies} copies; at most {MAX_COPIES} are kept")
    return found


def promised_copies(text: str) -> int:
    """Return how many copies a replication means; what no release ever wrote counts as one copy."""
    try:
        return parse_replication(text).copies
    except InvalidRequest:
        return 1
