"""What was promised to clients, and what went wrong: the memory that a cluster is held against."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum

from xxhash import xxh3_128_hexdigest

from haystack.fid import Fid


class Fate(Enum):
    """STORED and DELETED were acknowledged; while DELETING either is right."""

    STORED = "stored"
    DELETING = "deleting"
    DELETED = "deleted"


@dataclass(slots=True)
class Photo:
    """A photo whose upload was acknowledged."""

    fid: str
    size_bytes: int
    digest: str
    fate: Fate = Fate.STORED
    volume: int = field(init=False)

    def __post_init__(self) -> None:
        self.volume = Fid.parse(self.fid).volume

    def is_content(self, body: bytes | memoryview) -> bool:
        return len(body) == self.size_bytes and xxh3_128_hexdigest(body) == self.digest


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to upload under one name; times by the monotonic clock."""

    started_seconds: float
    ended_seconds: float
    problem: str = ""


@dataclass(slots=True)
class Recorder:
    """All that happened under load."""

    photos: dict[str, Photo] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """What must never happen, told for the reader."""
    failed: list[str] = field(default_factory=list)
    """Reads that no location served."""
    _places: dict[str, str] = field(default_factory=dict)
    _readable: list[str] = field(default_factory=list)
    _deleted: list[str] = field(default_factory=list)

    def stored(self, fid: str, content: bytes, locator: str = "") -> None:
        """Note an acknowledged upload. Two at one offset of a volume were acknowledged by two primaries."""
        if fid in self.photos:
            self.wrong.append(f"{fid}: given out twice")
            return
        place = locator.partition(",")[0]
        if place and self._places.setdefault(place, fid) != fid:
            self.wrong.append(f"{fid} and {self._places[place]} were both acknowledged at {place}")
        self.photos[fid] = Photo(fid, len(content), xxh3_128_hexdigest(content))
        self._readable.append(fid)

    def deleting(self, photo: Photo) -> None:
        photo.fate = Fate.DELETING

    def deleted(self, photo: Photo) -> None:
        """Note an acknowledged delete."""
        photo.fate = Fate.DELETED
        self._deleted.append(photo.fid)

    def any_stored(self, dice: random.Random) -> Photo | None:
        """Return a photo that is there, at random."""
        while self._readable:
            at = dice.randrange(len(self._readable))
            photo = self.photos[self._readable[at]]
            if photo.fate is Fate.STORED:
                return photo
            self._readable[at] = self._readable[-1]
            self._readable.pop()
        return None

    def any_deleted(self, dice: random.Random) -> Photo | None:
        return self.photos[dice.choice(self._deleted)] if self._deleted else None

    def of_fate(self, fate: Fate) -> list[Photo]:
        return [photo for photo in self.photos.values() if photo.fate is fate]

    def refused_seconds(self, since_seconds: float, until_seconds: float) -> float:
        """Return how long after ``since`` the last upload was begun that did not succeed at its first name.

        Parameters
        ----------
        since_seconds, until_seconds: only uploads that were begun between these.
        """
        late = [
            one.started_seconds - since_seconds
            for one in self.attempts
            if one.problem and since_seconds <= one.started_seconds < until_seconds
        ]
        return max(late, default=0.0)

    def gap_seconds(self, since_seconds: float, until_seconds: float) -> float:
        """Return the longest time between two acknowledged uploads, or from the edges to the next one."""
        ends = sorted(
            one.ended_seconds
            for one in self.attempts
            if not one.problem and since_seconds <= one.ended_seconds < until_seconds
        )
        edges = [since_seconds, *ends, until_seconds]
        return max(later - earlier for earlier, later in itertools.pairwise(edges))
