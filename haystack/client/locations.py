"""Where volumes are: believed for a while, and remembered for longer in case that no Directory answers."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from haystack.weighted import weighted_order

DEFAULT_LIFETIME_SECONDS = 60.0
DEFAULT_MAX_VOLUMES = 10_000

WITHOUT_DIRECTORY_SECONDS = 5.0
"""How long an old entry is believed once more when no Directory answered: not every read should wait for that."""


@dataclass(frozen=True, slots=True)
class Location:
    """One Store that has a volume.

    Parameters
    ----------
    url: ``host:port`` inside the cluster.
    public_url: where clients reach it: ``host:port``, or an address with ``http://`` or ``https://``.
    weight: its share of the reads, beside the weights of the others; 0: it is read when all others fail.
    primary: it takes uploads and deletes; others pass them on to it.
    """

    url: str
    public_url: str
    weight: float = 1.0
    primary: bool = False

    def base(self, *, internal: bool) -> str:
        """Return the address to put a path behind, with scheme and without a slash at the end."""
        return with_scheme(self.url if internal else self.public_url or self.url)


class LocationCache:
    """Volume → locations; bounded, the least recently used go first; each entry is believed for its lifetime.

    Parameters
    ----------
    lifetime_seconds: how long an entry is believed.
    max_volumes: how many entries are kept.
    now: a clock that never goes back, in seconds.
    """

    def __init__(
        self,
        *,
        lifetime_seconds: float = DEFAULT_LIFETIME_SECONDS,
        max_volumes: int = DEFAULT_MAX_VOLUMES,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lifetime_seconds = lifetime_seconds
        self._max_volumes = max_volumes
        self._now = now
        self._entries: OrderedDict[int, tuple[float, tuple[Location, ...]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, volume: int) -> tuple[Location, ...] | None:
        """Return the locations, or None when they are unknown or too old to be believed."""
        entry = self._entries.get(volume)
        if entry is None or self._now() >= entry[0]:
            return None
        self._entries.move_to_end(volume)
        return entry[1]

    def lately(self, volume: int, seconds: float) -> tuple[Location, ...] | None:
        """Return the locations unless it is longer ago than this that they were believed, or they are in doubt."""
        entry = self._entries.get(volume)
        return None if entry is None or self._now() >= entry[0] + seconds else entry[1]

    def remembered(self, volume: int) -> tuple[Location, ...] | None:
        """Return the locations as last known, however old."""
        entry = self._entries.get(volume)
        return entry[1] if entry is not None else None

    def put(self, volume: int, locations: tuple[Location, ...], *, lifetime_seconds: float | None = None) -> None:
        """Remember the locations from now on."""
        lifetime_seconds = self._lifetime_seconds if lifetime_seconds is None else lifetime_seconds
        self._entries[volume] = (self._now() + lifetime_seconds, locations)
        self._entries.move_to_end(volume)
        while len(self._entries) > self._max_volumes:
            self._entries.popitem(last=False)

    def doubt(self, volume: int) -> None:
        """Ask anew the next time; keep what is known for the case that nobody answers."""
        entry = self._entries.get(volume)
        if entry is not None:
            self._entries[volume] = (float("-inf"), entry[1])

    def forget(self, volume: int) -> None:
        """Drop what is known: the volume is gone."""
        self._entries.pop(volume, None)


def for_reading(locations: Sequence[Location], uniform: Callable[[], float]) -> list[Location]:
    """Return the locations in the order in which to try them for one read; ``uniform`` as of :func:`weighted_order`."""
    return weighted_order(locations, [one.weight for one in locations], uniform)


def for_writing(locations: Sequence[Location]) -> list[Location]:
    """Return the locations in the order in which to try them for an upload or a delete."""
    return sorted(locations, key=lambda one: not one.primary)


def with_scheme(address: str) -> str:
    """Return an address with a scheme and without a slash at the end."""
    address = address.rstrip("/")
    return address if address.startswith(("http://", "https://")) else f"http://{address}"
