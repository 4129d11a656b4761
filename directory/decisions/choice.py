"""Which volume takes the next photo.

The choice is random, weighted by the room that a volume really has: its own limit, or its share of what its data folder
has left, whichever is smaller. So volumes and disks fill up evenly in proportion, without any state between choices. A
Store with more than the average load gets less of the new photos, but at least a quarter of its share.

Photos go to all data folders at the same time, but within one folder the volumes take turns: for the life of a
:class:`WriteTable` one of them, chosen by the same weights, takes them all. Uploads that reach a Store together are
then appended and made durable together; spread over seven volumes they would cost seven appends and seven syncs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

CROWDED_FRACTION = 0.9
"""A volume filled up to here takes photos only while there is no emptier one, and is replaced by a new one."""

MAX_LOAD_RATIO = 3.0
"""A Store's load counts at most as this many times the average: one busy moment must not shut it out."""


@dataclass(frozen=True, slots=True)
class CopyPlace:
    """Where one more copy of a candidate is."""

    store_id: str
    folder: str
    folder_free_bytes: int
    store_writes_per_second: float = 0.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A volume that takes photos now, on Stores that are alive. Sizes in bytes.

    The Store named is the primary's; ``others`` are where the other copies are.
    """

    volume: int
    store_id: str
    url: str
    public_url: str
    data_center: str
    rack: str
    folder: str
    size_bytes: int
    max_bytes: int
    folder_free_bytes: int
    store_writes_per_second: float = 0.0
    others: tuple[CopyPlace, ...] = ()

    @property
    def places(self) -> tuple[CopyPlace, ...]:
        """Where all copies are, the primary first."""
        return (
            CopyPlace(self.store_id, self.folder, self.folder_free_bytes, self.store_writes_per_second),
            *self.others,
        )

    @property
    def crowded(self) -> bool:
        """Whether the volume is nearly full."""
        return self.size_bytes >= self.max_bytes * CROWDED_FRACTION


@dataclass(frozen=True, slots=True)
class Where:
    """Where a photo should go, as the caller asks; an empty text leaves it open."""

    data_center: str = ""
    rack: str = ""
    data_node: str = ""
    """A Store's address, as in SeaweedFS."""

    def admits(self, data_center: str, rack: str, url: str) -> bool:
        """Say whether a Store is one of those asked for."""
        return (
            (not self.data_center or self.data_center == data_center)
            and (not self.rack or self.rack == rack)
            and (not self.data_node or self.data_node == url)
        )

    def __str__(self) -> str:
        named = (("data center", self.data_center), ("rack", self.rack), ("Store", self.data_node))
        return " ".join(f"{kind} {name!r}" for kind, name in named if name)


ANYWHERE = Where()


def weights(candidates: Sequence[Candidate]) -> list[float]:
    """Return the weight of each candidate, above 0."""
    places = [c.places for c in candidates]
    sharing = Counter((place.store_id, place.folder) for copies in places for place in copies)
    load = {place.store_id: place.store_writes_per_second for copies in places for place in copies}
    mean_load = sum(load.values()) / len(load) if load else 0.0
    return [
        # The fullest disk and the busiest Store decide: a photo is stored when the last copy is.
        _room(c, min(place.folder_free_bytes / sharing[place.store_id, place.folder] for place in copies))
        / _slowdown(max(load[place.store_id] for place in copies), mean_load)
        for c, copies in zip(candidates, places, strict=True)
    ]


def _room(candidate: Candidate, share_bytes: float) -> float:
    room_bytes = min(candidate.max_bytes - candidate.size_bytes, share_bytes)
    return max(1.0, room_bytes)  # the Store says when it is full, not we: what is writable can be chosen


def _slowdown(load: float, mean_load: float) -> float:
    return 1.0 + min(load / mean_load, MAX_LOAD_RATIO) if mean_load > 0 else 1.0


class WriteTable:
    """The candidates with their weights added up, made once for many choices.

    A choice costs a binary search among the candidates.

    Parameters
    ----------
    turn: a random number, evenly distributed in 0 ≤ turn < 1, which says whose turn it is in each data folder; None:
        all volumes take photos.
    """

    def __init__(self, candidates: Sequence[Candidate], where: Where = ANYWHERE, *, turn: float | None = None) -> None:
        admitted = [c for c in candidates if where.admits(c.data_center, c.rack, c.url)]
        roomy = [c for c in admitted if not c.crowded]
        weighted = list(zip(roomy or admitted, weights(roomy or admitted), strict=True))
        if turn is not None:
            weighted = take_turns(weighted, turn)
        self._candidates = [candidate for candidate, _ in weighted]
        self._bounds = list(accumulate(weight for _, weight in weighted))

    def __len__(self) -> int:
        return len(self._candidates)

    def shares(self) -> Iterator[tuple[Candidate, float]]:
        """Yield each candidate with the part of the photos that it gets, as is to be expected of many choices."""
        before = 0.0
        for candidate, bound in zip(self._candidates, self._bounds, strict=True):
            yield candidate, (bound - before) / self._bounds[-1]
            before = bound

    def choose(self, fraction: float) -> Candidate | None:
        """Return a candidate, None when there is none.

        Parameters
        ----------
        fraction: a random number, evenly distributed in 0 ≤ fraction < 1.
        """
        if not self._candidates:
            return None
        return self._candidates[_place(self._bounds, fraction)]


def take_turns(weighted: Sequence[tuple[Candidate, float]], turn: float) -> list[tuple[Candidate, float]]:
    """Return one candidate of each data folder, chosen by weight, with the weight of all that have their primary there.

    Parameters
    ----------
    turn: a random number, evenly distributed in 0 ≤ turn < 1.
    """
    folders: dict[tuple[str, str], list[tuple[Candidate, float]]] = {}
    for one in weighted:
        folders.setdefault((one[0].store_id, one[0].folder), []).append(one)
    chosen = []
    for members in folders.values():
        bounds = list(accumulate(weight for _, weight in members))
        chosen.append((members[_place(bounds, turn)][0], bounds[-1]))
    return chosen


def _place(bounds: Sequence[float], fraction: float) -> int:
    return min(bisect_right(bounds, fraction * bounds[-1]), len(bounds) - 1)
