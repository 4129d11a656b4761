"""What Stores say of heat in their heartbeats, read from JSON and checked field by field."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from directory.settings import MAX_VOLUMES_PER_STORE
from haystack.fid import MAX_VOLUME_ID
from haystack.heat import ROW_NUMBERS, WINDOWS_SECONDS

if TYPE_CHECKING:  # at run time messages imports this module
    from directory.fields import Fields

MAX_PHOTOS = 1_000
MAX_HITS = 10_000
MAX_COUNT = 2**63 - 1
MAX_RATE = 1e15

_PHOTO_ID = re.compile(r"[0-9a-fA-F]{1,16}")


@dataclass(frozen=True, slots=True)
class VolumeRow:
    """The heat of one copy.

    Parameters
    ----------
    reads: since the start of its Store.
    known_seconds: for how long it is watched.
    row: see :meth:`haystack.heat.Heat.of_row`.
    """

    volume: int
    reads: int
    known_seconds: float
    row: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class HeatReport:
    """What changed at a Store since its last message.

    Parameters
    ----------
    known_seconds: for how long the Store watches its volumes.
    window_seconds: the shortest that its averages are taken over.
    photos: all that it is asked for most, with their reads a second; None when that has not changed.
    hits: reads by photo since the last message, about.
    """

    known_seconds: float = 0.0
    window_seconds: float = WINDOWS_SECONDS[0]
    volumes: tuple[VolumeRow, ...] = ()
    photos: dict[int, float] | None = None
    hits: tuple[tuple[int, int], ...] = ()


NO_REPORT = HeatReport()


def parse_heat(fields: Fields) -> HeatReport:
    """Read the field ``heat`` of a heartbeat. Raises InvalidRequest."""
    photos = None
    if fields.has("photos"):
        photos = dict(_photo(fields, row) for row in fields.items("photos", MAX_PHOTOS))
    return HeatReport(
        known_seconds=_seconds(fields, "knownSeconds", 0.0),
        window_seconds=_seconds(fields, "windowSeconds", WINDOWS_SECONDS[0]) or WINDOWS_SECONDS[0],
        volumes=tuple(_volume(fields, row) for row in fields.items("volumes", MAX_VOLUMES_PER_STORE)),
        photos=photos,
        hits=parse_hits(fields),
    )


def parse_hits(fields: Fields) -> tuple[tuple[int, int], ...]:
    """Read the field ``hits`` of a Store's or Cache's heartbeat. Raises InvalidRequest."""
    return tuple(_hits(fields, row) for row in fields.items("hits", MAX_HITS))


def _seconds(fields: Fields, name: str, default: float) -> float:
    value = fields.value(name, default)
    if not _is_rate(value):
        raise fields.wrong(name, "seconds", value)
    return float(value)


def _volume(fields: Fields, row: Any) -> VolumeRow:
    if (
        isinstance(row, list)
        and len(row) == 3 + ROW_NUMBERS
        and _is_count(row[0], MAX_VOLUME_ID)
        and _is_count(row[1], MAX_COUNT)
        and all(map(_is_rate, row[2:]))
    ):
        return VolumeRow(row[0], row[1], float(row[2]), tuple(map(float, row[3:])))
    raise fields.wrong("volumes", f"rows of volume, reads, seconds known and {ROW_NUMBERS} rates", row)


def _photo(fields: Fields, row: Any) -> tuple[int, float]:
    if isinstance(row, list) and len(row) == 2 and _is_photo(row[0]) and _is_rate(row[1]):
        return int(row[0], 16), float(row[1])
    raise fields.wrong("photos", "rows of a photo's id in hex and its reads a second", row)


def _hits(fields: Fields, row: Any) -> tuple[int, int]:
    if isinstance(row, list) and len(row) == 2 and _is_photo(row[0]) and _is_count(row[1], MAX_COUNT):
        return int(row[0], 16), row[1]
    raise fields.wrong("hits", "rows of a photo's id in hex and its reads", row)


def _is_photo(value: Any) -> bool:
    return isinstance(value, str) and _PHOTO_ID.fullmatch(value) is not None


def _is_count(value: Any, most: int) -> bool:
    return type(value) is int and 0 <= value <= most


def _is_rate(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and 0 <= value <= MAX_RATE
