"""How hot volumes, machines and photos are, as Stores and Caches report it. In memory only.

Heat counts where the read happened: a volume's is the sum over its copies, a machine's the sum over its volumes. After
a restart the Directory has all of it again with the first heartbeats after the Stores' registrations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from directory.heat.echo import Watched, without_echo
from directory.heat.messages import HeatReport
from haystack.heat import LOAD_BYTES, ROW_NUMBERS, WINDOWS_SECONDS, ZERO_HEAT, Heat
from haystack.heavy_hitters import SpaceSaving

MAX_COUNTED_PHOTOS = 65_536
"""Photos whose hits are counted until somebody takes them."""

_TEN_MINUTES = 3
"""Where the rates of the ten minutes begin in a row."""

CAME_LATER_SECONDS = 2.0
"""A copy that is watched for so much shorter than its Store has come there, or was not read before."""

SILENT_SECONDS = 15.0
"""What a source that was silent for so long has said of photos counts no more."""


@dataclass(frozen=True, slots=True)
class CopyHeat:
    """The heat of one copy.

    Parameters
    ----------
    reads: since the start of its Store.
    since_seconds: since when it is watched, by the clock of this Directory.
    row: see :meth:`haystack.heat.Heat.of_row`.
    """

    reads: int
    since_seconds: float
    row: tuple[float, ...]

    @property
    def heat(self) -> Heat:
        """The averages."""
        return Heat.of_row(self.row)

    def load(self, load_bytes: float = LOAD_BYTES) -> float:
        """Return the load, as that of ``heat``; cheaper, for whoever looks at all copies."""
        return self.row[_TEN_MINUTES] + self.row[_TEN_MINUTES + 1] / load_bytes


_COLD = CopyHeat(0, 0.0, (0.0,) * ROW_NUMBERS)


@dataclass(frozen=True, slots=True)
class HotPhoto:
    """A photo that is read much: reads a second, in all and by Store or Cache."""

    photo_id: int
    reads_per_second: float
    by_source: Mapping[str, float]


@dataclass(slots=True)
class _Source:
    """What one Store or Cache has said. ``total`` is the sum of its copies' rows."""

    copies: dict[int, CopyHeat] = field(default_factory=dict)
    total: list[float] = field(default_factory=lambda: [0.0] * ROW_NUMBERS)
    since_seconds: float | None = None
    window_seconds: float = WINDOWS_SECONDS[0]
    photos: dict[int, float] = field(default_factory=dict)
    heard_seconds: float = float("-inf")

    def put(self, volume: int, copy: CopyHeat) -> None:
        """Take over the heat of a copy."""
        before = self.copies.get(volume, _COLD)
        self.copies[volume] = copy
        self._add(before, copy)

    def drop(self, volume: int) -> None:
        """Forget a copy."""
        self._add(self.copies.pop(volume, _COLD), _COLD)

    def _add(self, before: CopyHeat, now: CopyHeat) -> None:
        # Kept up to date, since a Store may have thousands of volumes. What rounding leaves is nothing that is shown.
        for index, (old, new) in enumerate(zip(before.row, now.row, strict=True)):
            self.total[index] = max(0.0, self.total[index] + new - old)


class ClusterHeat:
    """All heat of the cluster.

    Parameters
    ----------
    load_bytes: bytes that weigh as much as a read.
    """

    def __init__(self, load_bytes: float = LOAD_BYTES) -> None:
        self.load_bytes = load_bytes
        self._sources: dict[str, _Source] = {}
        self._hits = SpaceSaving[int](MAX_COUNTED_PHOTOS)

    # -- what is reported

    def take(self, store_id: str, report: HeatReport, now_seconds: float) -> None:
        """Take over what a Store's heartbeat says."""
        source = self._source(store_id)
        source.heard_seconds = now_seconds
        source.since_seconds = now_seconds - report.known_seconds
        source.window_seconds = report.window_seconds
        for one in report.volumes:
            source.put(one.volume, CopyHeat(one.reads, now_seconds - one.known_seconds, one.row))
        if report.photos is not None:
            source.photos = report.photos
        self.count_hits(report.hits)

    def take_photos(self, source_id: str, photos: Iterable[tuple[int, float]], now_seconds: float) -> None:
        """Take over the photos, with their reads a second, that a Cache is asked for most."""
        source = self._source(source_id)
        source.heard_seconds = now_seconds
        source.photos = dict(photos)

    def count_hits(self, hits: Iterable[tuple[int, int]]) -> None:
        """Count reads by photo that a Store or a Cache has answered since it last said so."""
        for photo_id, count in hits:
            if count > 0:
                self._hits.add(photo_id, count)

    def forget(self, source_id: str) -> None:
        """Drop what a Store or Cache has said: it has begun anew, or is gone."""
        self._sources.pop(source_id, None)

    def drop(self, store_id: str, volumes: Iterable[int]) -> None:
        """Drop the copies that a Store does not have any more."""
        if source := self._sources.get(store_id):
            for volume in volumes:
                source.drop(volume)

    # -- what follows

    def copy(self, store_id: str, volume: int) -> CopyHeat | None:
        """Return the heat of one copy; None when it was not read since its Store's start."""
        source = self._sources.get(store_id)
        return source.copies.get(volume) if source else None

    def copies(self, volume: int) -> dict[str, Heat]:
        """Return the heat of a volume's copies by Store, as far as they were read."""
        return {
            store_id: copy.heat
            for store_id, source in self._sources.items()
            if (copy := source.copies.get(volume)) is not None
        }

    def volume(self, volume: int) -> Heat:
        """Return the heat of a volume, all copies together."""
        return sum(self.copies(volume).values(), ZERO_HEAT)

    def machine(self, store_id: str) -> Heat:
        """Return the heat of a Store, all its volumes together."""
        source = self._sources.get(store_id)
        return Heat.of_row(source.total) if source else ZERO_HEAT

    def rows(self) -> Iterator[tuple[str, int, CopyHeat]]:
        """Yield Store, volume and heat of all copies: for whoever needs all of it at once."""
        for store_id, source in self._sources.items():
            for volume, copy in source.copies.items():
                yield store_id, volume, copy

    def loads(self, volume: int, store_ids: Iterable[str], now_seconds: float) -> dict[str, float]:
        """Return the loads of a volume's copies on some Stores; the sum is the volume's, see directory.heat.echo."""
        watched = {}
        for store_id in store_ids:
            source = self._sources.get(store_id)
            copy = source.copies.get(volume) if source else None
            if source is not None and copy is not None:
                came_later = copy.since_seconds > (source.since_seconds or 0.0) + CAME_LATER_SECONDS
                known_seconds = now_seconds - copy.since_seconds
                watched[store_id] = Watched(
                    copy.load(self.load_bytes), known_seconds, source.window_seconds, came_later
                )
        return without_echo(watched)

    def known_seconds(self, store_id: str, now_seconds: float) -> float:
        """Return for how long a Store has watched its volumes; 0 while it has said nothing."""
        source = self._sources.get(store_id)
        if source is None or source.since_seconds is None:
            return 0.0
        return max(0.0, now_seconds - source.since_seconds)

    def photos(self, most: int, now_seconds: float) -> list[HotPhoto]:
        """Return the photos that are read most, hottest first, summed over the Stores and Caches that say so."""
        found: dict[int, dict[str, float]] = {}
        for source_id, source in self._sources.items():
            if now_seconds - source.heard_seconds <= SILENT_SECONDS:
                for photo_id, rate in source.photos.items():
                    found.setdefault(photo_id, {})[source_id] = rate
        photos = [HotPhoto(photo_id, sum(rates.values()), rates) for photo_id, rates in found.items()]
        return sorted(photos, key=lambda one: (-one.reads_per_second, one.photo_id))[:most]

    def take_hits(self) -> dict[int, int]:
        """Return the reads by photo since the last call, about, and begin anew: each read is told once."""
        found = {one.item: round(one.count) for one in self._hits}
        self._hits = SpaceSaving[int](MAX_COUNTED_PHOTOS)
        return found

    def _source(self, source_id: str) -> _Source:
        return self._sources.setdefault(source_id, _Source())
