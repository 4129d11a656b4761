"""Under what a photo is found: its words, and marks for its tags, owner, visibility, days and places. Pure functions.

Everything that a query can ask for is a token of the index, so that any combination is answered by the index alone,
newest first, however common each part of it is. Marks begin with a character that no word has.
"""

from __future__ import annotations

import datetime
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MAX_WORDS = 8
"""Words of one query that count."""
MAX_CELLS = 40
"""Cells of the map that a query asks for; when more are needed, larger ones are taken."""
DAY_MS = 86_400_000
_MAX_WORD = 40
_WORD = re.compile(r"[^\W_]+")
_EPOCH = datetime.date(1970, 1, 1)
_FIRST_YEAR, _LAST_YEAR = 1800, 2200
"""Of times that are looked for: from before there were photos on, far enough for clocks that are wrong."""
_SPANS = {"c": 2, "e": 3, "y": 4, "m": 6, "d": 8}
"""Century, decade, year, month, day: by how many digits of the date they are told."""
_CELL_DEGREES = (0.02, 0.1, 0.5, 2.5, 12.5)
_KM_A_DEGREE = 111.2


@dataclass(frozen=True, slots=True)
class Near:
    """Degrees north and east, and how far around it in km."""

    latitude: float
    longitude: float
    km: float


@dataclass(frozen=True, slots=True)
class Box:
    """Degrees that a place must lie between. ``west`` is larger than ``east`` where the 180th meridian lies between."""

    south: float
    north: float
    west: float
    east: float


def words_of(some_text: str) -> list[str]:
    """The words of a text without case and accents, without repetitions."""
    plain = some_text.casefold()
    if not plain.isascii():
        # Letters of mathematicians have a case, too, once they are plain ones.
        plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", plain).casefold())
        plain = "".join(one for one in plain if not unicodedata.combining(one))
    return list(dict.fromkeys(word[:_MAX_WORD] for word in _WORD.findall(plain)))


def tag_mark(tag: str) -> str:
    return "#" + tag


def owner_mark(username: str) -> str:
    return "@" + username


def visibility_mark(visibility: int) -> str:
    return f":v{visibility}"


def day_marks(when_ms: int) -> list[str]:
    """Of the century, the decade, the year, the month and the day of a time; none of one that no calendar has."""
    try:
        day = _EPOCH + datetime.timedelta(days=when_ms // DAY_MS)
    except OverflowError:
        return []
    return [_mark(day, letter) for letter in _SPANS]


def period_marks(from_ms: int | None, to_ms: int | None) -> list[str]:
    """The fewest marks of which each time in a period has one: days at its ends, and the longer the farther inside.

    Parameters
    ----------
    from_ms, to_ms: midnights; None: since ever, for ever.
    """
    day = max(datetime.date(_FIRST_YEAR, 1, 1), datetime.date.min if from_ms is None else _day(from_ms))
    end = datetime.date(_LAST_YEAR, 1, 1)
    if to_ms is not None:
        end = min(end, _day(to_ms))
    found = []
    while day < end:
        letter, after = next((one, then) for one, then in _spans_from(day) if then <= end or one == "d")
        found.append(_mark(day, letter))
        day = after
    return found


def _spans_from(day: datetime.date) -> Iterator[tuple[str, datetime.date]]:
    """The spans that begin with a day (the longest first), and where each ends."""
    if (day.month, day.day) == (1, 1):
        if day.year % 100 == 0 or day.year == 1:
            yield "c", datetime.date(day.year // 100 * 100 + 100, 1, 1)
        if day.year % 10 == 0 or day.year == 1:
            yield "e", datetime.date(day.year // 10 * 10 + 10, 1, 1)
        yield "y", datetime.date(day.year + 1, 1, 1)
    if day.day == 1:
        yield "m", datetime.date(day.year + day.month // 12, day.month % 12 + 1, 1)
    yield "d", day + datetime.timedelta(days=1)


def _mark(day: datetime.date, letter: str) -> str:
    return f":{letter}{f'{day.year:04}{day.month:02}{day.day:02}'[: _SPANS[letter]]}"


def _day(when_ms: int) -> datetime.date:
    try:
        return _EPOCH + datetime.timedelta(days=when_ms // DAY_MS)
    except OverflowError:
        return datetime.date.max if when_ms > 0 else datetime.date.min


def place_marks(latitude: float, longitude: float) -> list[str]:
    """Of the cells of the map, of each size, that a place lies in."""
    return [
        _cell(size, math.floor((latitude + 90) / degrees), math.floor((longitude + 180) / degrees))
        for size, degrees in enumerate(_CELL_DEGREES)
    ]


def near_marks(box: Box) -> list[str]:
    """Of the smallest cells of which at most ``MAX_CELLS`` cover a box; none when that needs larger ones than exist."""
    for size, degrees in enumerate(_CELL_DEGREES):
        rows = _range(box.south + 90, box.north + 90, degrees)
        if box.west <= box.east:
            columns = [*_range(box.west + 180, box.east + 180, degrees)]
        else:
            columns = [*_range(box.west + 180, 360, degrees), *_range(0, box.east + 180, degrees)]
        if len(rows) * len(columns) <= MAX_CELLS:
            return [_cell(size, row, column) for row in rows for column in columns]
    return []


def box_around(near: Near) -> Box:
    """The degrees around a place."""
    up = near.km / _KM_A_DEGREE
    south, north = max(-90.0, near.latitude - up), min(90.0, near.latitude + up)
    # Nearer to a pole a degree east is shorter; around the pole itself all are near.
    narrowest = math.cos(math.radians(max(abs(south), abs(north))))
    across = up / narrowest if narrowest > 1e-6 else 360.0
    if across >= 180:
        return Box(south, north, -180.0, 180.0)
    return Box(south, north, _turned(near.longitude - across), _turned(near.longitude + across))


def _turned(longitude: float) -> float:
    return longitude + 360 if longitude < -180 else longitude - 360 if longitude > 180 else longitude


def _range(low: float, high: float, degrees: float) -> range:
    return range(math.floor(low / degrees), math.floor(high / degrees) + 1)


def _cell(size: int, row: int, column: int) -> str:
    return f":g{size}_{row}_{column}"


def marks_of(
    *,
    tags: Iterable[str],
    owner: str,
    visibility: int,
    when_ms: int,
    latitude: float | None,
    longitude: float | None,
) -> list[str]:
    """All marks of a photo."""
    found = [*map(tag_mark, tags), owner_mark(owner), visibility_mark(visibility), *day_marks(when_ms)]
    if latitude is not None and longitude is not None:
        found += place_marks(latitude, longitude)
    return found
