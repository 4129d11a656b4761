"""How times, counts, sizes and places stand on pages. Pure functions; what they return is escaped by the templates."""

from __future__ import annotations

import datetime

from haystack.units import MIB

_MINUTE_MS = 60_000
_HOUR_MS = 60 * _MINUTE_MS
_DAY_MS = 24 * _HOUR_MS
_WEEK_MS = 7 * _DAY_MS
_HUES = 8
_RATIO_STEP = 5
_LEAST_RATIO, _MOST_RATIO = 40, 300
"""Hundredths of width to height that style.css has classes for."""


def ago(time_ms: int, now_ms: int) -> str:
    """``3 h ago``; from a week on the day: ``31 July 2024``."""
    passed = now_ms - time_ms
    if passed < _MINUTE_MS:
        return "just now"
    if passed < _HOUR_MS:
        return f"{passed // _MINUTE_MS} min ago"
    if passed < _DAY_MS:
        return f"{passed // _HOUR_MS} h ago"
    if passed < _WEEK_MS:
        days = passed // _DAY_MS
        return "yesterday" if days == 1 else f"{days} days ago"
    return day(time_ms)


def day(time_ms: int) -> str:
    """``31 July 2024``."""
    moment = _moment(time_ms)
    return "" if moment is None else f"{moment.day} {moment:%B} {moment.year}"


def moment(time_ms: int) -> str:
    """``31 July 2024, 18:05``."""
    found = _moment(time_ms)
    return "" if found is None else f"{day(time_ms)}, {found:%H:%M}"


def machine_time(time_ms: int) -> str:
    """For ``<time datetime>``."""
    found = _moment(time_ms)
    return "" if found is None else f"{found:%Y-%m-%dT%H:%M:%SZ}"


def _moment(time_ms: int) -> datetime.datetime | None:
    try:
        return datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(milliseconds=time_ms)
    except OverflowError:
        return None


def count(number: int) -> str:
    """``987``, ``12.3K``, ``4M``."""
    for least, letter in ((1_000_000_000, "B"), (1_000_000, "M"), (10_000, "K")):
        if number >= least:
            short = number / (1000 if letter == "K" else least)
            return f"{short:.1f}".removesuffix(".0") + letter if short < 100 else f"{int(short)}{letter}"
    return f"{number:,}"


def counted(number: int, one: str, many: str | None = None) -> str:
    """``1 photo``, ``12 photos``."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def size(size_bytes: int) -> str:
    """``843 KB``, ``4.2 MB``."""
    if size_bytes >= 1_000_000:
        return f"{size_bytes / 1_000_000:.1f} MB"
    return f"{max(1, round(size_bytes / 1000))} KB"


def limit(limit_bytes: int) -> str:
    """``20 MiB`` for a limit that is so many exactly, else as :func:`size`."""
    return f"{limit_bytes // MIB} MiB" if limit_bytes % MIB == 0 else size(limit_bytes)


def place(latitude: float, longitude: float) -> str:
    """``43.4631° N, 11.8783° E``; a line breaks at the comma alone."""
    north, east = "N" if latitude >= 0 else "S", "E" if longitude >= 0 else "W"
    return f"{abs(latitude):.4f}°\N{NO-BREAK SPACE}{north}, {abs(longitude):.4f}°\N{NO-BREAK SPACE}{east}"


def hue_class(name: str) -> str:
    """The class in style.css of a name's colour: the same on all pages."""
    return f"hue{sum(map(ord, name)) % _HUES}"


def ratio_class(width: int, height: int) -> str:
    """The class in style.css that tells how wide a picture is for its height: ``r150`` for 3 to 2."""
    hundredths = round(100 * max(1, width) / max(1, height) / _RATIO_STEP) * _RATIO_STEP
    return f"r{min(_MOST_RATIO, max(_LEAST_RATIO, hundredths))}"
