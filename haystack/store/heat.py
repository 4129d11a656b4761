"""The heat of this Store's volumes and photos: averages from the control block, and what each Directory is told.

Directories are told what has changed by more than a tenth, a bounded number of rows at a time. All of it is in the
supervisor's memory: after a restart of the Store the watching begins anew, and so do the averages.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import nlargest
from itertools import islice
from typing import Any, Final

from haystack.heat import LOAD_BYTES, ROW_NUMBERS, WINDOWS_SECONDS, Averages
from haystack.store.control import ControlBlock
from haystack.store.control_cells import VOLUME_CELLS, Header, VolumeCell
from haystack.store.hot_photos import HALVED_SECONDS, Hits, HotPhotos
from haystack.store.sampling import SampleReader

MAX_LOOKS: Final = 512
"""Volumes that are looked at in one tick, and for one heartbeat; with more, each has its turn less often."""

MAX_ROWS: Final = 128
"""Volumes that one heartbeat tells of, about 80 bytes each."""

MAX_PHOTOS: Final = 100
"""Photos that a Directory is told of as the hottest, about 30 bytes each."""

MAX_HITS: Final = 256
"""Photos whose hits one heartbeat tells."""

HITS_KEPT: Final = 8192
"""Photos whose hits wait to be told."""

PHOTOS_SECONDS: Final = 1.0
"""The hottest photos are told no more often."""

CHANGED_SHARE: Final = 0.1

COLD_READS: Final = 0.02
"""Reads a second below which a volume is told of as cold."""

_COLD = (COLD_READS, COLD_READS * LOAD_BYTES, COLD_READS / 1000) * (ROW_NUMBERS // 3)

Row = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class VolumeHeat:
    """One volume at one moment.

    Parameters
    ----------
    reads: since the start of the Store.
    known_seconds: for how long the volume is watched.
    row: see :meth:`haystack.heat.Heat.of_row`.
    """

    reads: int
    known_seconds: float
    row: Row


_NOTHING = VolumeHeat(0, 0.0, (0.0,) * ROW_NUMBERS)


@dataclass(slots=True)
class _Copy:
    """A volume in its slot of the control block; no averages as long as it was never read."""

    volume: int
    since_seconds: float
    averages: Averages | None = None


class StoreHeat:
    """Watches the control block.

    Parameters
    ----------
    now_seconds: the time now, by a clock that never goes back, as in all methods.
    window_seconds: the shortest of the windows of the averages.
    """

    def __init__(self, control: ControlBlock, now_seconds: float, window_seconds: float = WINDOWS_SECONDS[0]) -> None:
        self._windows_seconds = (window_seconds, 10 * window_seconds, 60 * window_seconds)
        self._control = control
        self._samples = SampleReader(control)
        self._photos = HotPhotos(now_seconds, HALVED_SECONDS * window_seconds / WINDOWS_SECONDS[0])
        self._reads: list[int] = []
        """Of each slot, as they are and not as they were taken over."""
        self._pending: dict[int, None] = {}
        self._copies: dict[int, _Copy] = {}
        self._catalog = -1
        self._started_seconds = now_seconds
        self._last_seconds = now_seconds
        self._reporters: list[HeatReporter] = []

    def reporter(self) -> HeatReporter:
        """Return what tells one Directory."""
        reporter = HeatReporter(self)
        self._reporters.append(reporter)
        return reporter

    def tick(self, now_seconds: float) -> None:
        """Take over what the workers have counted since the last time."""
        self._look_for_volumes()
        before, self._reads = self._reads, self._sums(VolumeCell.READS)
        before += [0] * (len(self._reads) - len(before))
        self._pending |= dict.fromkeys(
            slot for slot, (old, new) in enumerate(zip(before, self._reads, strict=False)) if old != new
        )
        self._count(list(islice(self._pending, MAX_LOOKS)), now_seconds)
        samples, views = self._samples.take_apart()
        self._photos.take(samples, now_seconds)
        for reporter in self._reporters:
            reporter.hits.take(views)
        self._last_seconds = now_seconds

    @property
    def window_seconds(self) -> float:
        """The shortest of the windows."""
        return self._windows_seconds[0]

    def known_seconds(self, now_seconds: float) -> float:
        """Return for how long this Store is watched."""
        return now_seconds - self._started_seconds

    def slots(self) -> list[int]:
        """Return the slots of volumes that were ever read."""
        return [slot for slot, copy in self._copies.items() if copy.averages is not None]

    def at(self, slot: int, now_seconds: float) -> tuple[int, VolumeHeat] | None:
        """Return volume and heat; None when there is no such volume any more."""
        copy = self._copies.get(slot)
        if copy is None or copy.averages is None:
            return None
        row = copy.averages.row(now_seconds)
        if row[0] < COLD_READS or row[3] < COLD_READS or row[6] < COLD_READS:
            row = tuple(value if value >= cold else 0.0 for value, cold in zip(row, _COLD, strict=True))
        return copy.volume, VolumeHeat(self._reads[slot], copy.averages.known_seconds(now_seconds), row)

    def photos(self) -> dict[int, float]:
        """Return the photos that are read most, with their reads a second."""
        return self._photos.rates(MAX_PHOTOS)

    def _look_for_volumes(self) -> None:
        if self._control.catalog == self._catalog:
            return
        self._catalog = self._control.catalog
        found = {view.slot: view.volume for view in self._control.slots()}
        for slot in [slot for slot, copy in self._copies.items() if found.get(slot) != copy.volume]:
            del self._copies[slot]
        for slot, volume in found.items():
            if slot not in self._copies:
                self._copies[slot] = _Copy(volume, self._last_seconds)

    def _count(self, slots: list[int], now_seconds: float) -> None:
        if not slots:
            return
        sizes, microseconds = self._sums(VolumeCell.BYTES_READ), self._sums(VolumeCell.READ_MICROSECONDS)
        for slot in slots:
            del self._pending[slot]
            copy = self._copies.get(slot)
            if copy is None:
                continue
            if copy.averages is None:
                if not self._reads[slot]:
                    continue
                copy.averages = Averages(copy.since_seconds, self._windows_seconds)
            copy.averages.count(now_seconds, self._reads[slot], sizes[slot], microseconds[slot] / 1e6)

    def _sums(self, cell: VolumeCell) -> list[int]:
        """Return a cell of all volumes by slot, summed over the workers."""
        cells, slots = self._control.cells, self._control.cells[Header.SLOTS]
        starts = [self._control.volume_base(worker, 0) for worker in range(self._control.workers)]
        columns = [cells[start + cell : start + slots * VOLUME_CELLS : VOLUME_CELLS].tolist() for start in starts]
        return columns[0] if len(columns) == 1 else [sum(row) for row in zip(*columns, strict=True)]


@dataclass(frozen=True, slots=True)
class HeatReport:
    """What one heartbeat tells of heat; ``volumes`` are those that changed; ``photos``: None when unchanged."""

    known_seconds: float
    window_seconds: float
    volumes: dict[int, VolumeHeat]
    photos: dict[int, float] | None
    hits: list[tuple[int, int]]

    def document(self) -> dict[str, Any]:
        """Return the field ``heat`` of the heartbeat."""
        document: dict[str, Any] = {
            "knownSeconds": round(self.known_seconds, 3),
            "windowSeconds": self.window_seconds,
        }
        if self.volumes:
            document["volumes"] = [
                [volume, one.reads, round(one.known_seconds, 1), *map(_short, one.row)]
                for volume, one in self.volumes.items()
            ]
        if self.photos is not None:
            document["photos"] = [[f"{key:x}", _short(rate)] for key, rate in self.photos.items()]
        if self.hits:
            document["hits"] = [[f"{key:x}", hits] for key, hits in self.hits]
        return document


class HeatReporter:
    """What one Directory knows, and what it is to be told next."""

    def __init__(self, heat: StoreHeat) -> None:
        self._heat = heat
        self.hits = Hits(HITS_KEPT)
        self._rows: dict[int, VolumeHeat] = {}
        """What was told of each volume; what was told last comes last."""
        self._photos: dict[int, float] = {}
        self._photos_seconds = float("-inf")
        self._turn: dict[int, None] = {}

    def forget(self) -> None:
        """The Directory knows nothing any more."""
        self._rows.clear()
        self._photos.clear()
        self._photos_seconds = float("-inf")

    def next(self, now_seconds: float) -> HeatReport:
        """Return what has changed since the last report that was :meth:`told`."""
        changed: dict[int, VolumeHeat] = {}
        for slot in self._next_slots():
            found = self._heat.at(slot, now_seconds)
            if found is not None and _has_changed(self._rows.get(found[0], _NOTHING), found[1]):
                changed[found[0]] = found[1]
        return HeatReport(
            self._heat.known_seconds(now_seconds),
            self._heat.window_seconds,
            self._most_urgent(changed),
            self._changed_photos(now_seconds),
            self.hits.peek(MAX_HITS),
        )

    def told(self, report: HeatReport, now_seconds: float) -> None:
        """Note that the Directory has taken a report in."""
        for volume, one in report.volumes.items():
            self._rows.pop(volume, None)
            self._rows[volume] = one
        if report.photos is not None:
            self._photos = report.photos
            self._photos_seconds = now_seconds
        self.hits.told(report.hits)

    def gone(self, volumes: list[int]) -> None:
        """Forget volumes that the Directory was told are not here any more."""
        for volume in volumes:
            self._rows.pop(volume, None)

    def _next_slots(self) -> list[int]:
        """Return the slots whose turn it is."""
        if not self._turn:
            self._turn = dict.fromkeys(self._heat.slots())
        slots = list(islice(self._turn, MAX_LOOKS))
        for slot in slots:
            del self._turn[slot]
        return slots

    def _most_urgent(self, changed: dict[int, VolumeHeat]) -> dict[int, VolumeHeat]:
        """Return as many as fit: half of them those that have changed most, then those that have waited longest."""
        if len(changed) <= MAX_ROWS:
            return changed

        def change(volume: int) -> float:
            row, before = changed[volume].row, self._rows.get(volume, _NOTHING).row
            return max(abs(_load(row, window) - _load(before, window)) for window in range(0, ROW_NUMBERS, 3))

        urgent = set(nlargest(MAX_ROWS // 2, changed, key=change))
        waiting = (*(one for one in changed if one not in self._rows), *self._rows)
        others = (volume for volume in waiting if volume in changed and volume not in urgent)
        return {volume: changed[volume] for volume in (*urgent, *islice(others, MAX_ROWS - len(urgent)))}

    def _changed_photos(self, now_seconds: float) -> dict[int, float] | None:
        if now_seconds - self._photos_seconds < PHOTOS_SECONDS:
            return None
        photos, before = self._heat.photos(), self._photos
        if photos.keys() == before.keys() and not any(_differs(before[key], rate) for key, rate in photos.items()):
            return None
        return photos


def _load(row: Row, window: int) -> float:
    return row[window] + row[window + 1] / LOAD_BYTES


def _has_changed(before: VolumeHeat, now: VolumeHeat) -> bool:
    if now.reads < before.reads or now.reads > before.reads * (1 + CHANGED_SHARE):
        return True
    return any(_differs(old, new) for old, new in zip(before.row, now.row, strict=True))


def _differs(old: float, new: float) -> bool:
    return abs(new - old) > CHANGED_SHARE * old


def _short(value: float) -> float:
    """Return it with three digits that count."""
    return float(f"{value:.3g}")
