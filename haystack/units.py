"""Sizes and durations as people write them: ``64MiB``, ``1.5GB``, ``10s``, ``500ms``; and back into text."""

from __future__ import annotations

import re
from decimal import Decimal

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

_SIZE_UNITS = {
    "": 1,
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "tb": 1000**4,
    "kib": KIB,
    "mib": MIB,
    "gib": GIB,
    "tib": TIB,
}
_DURATION_UNITS = {
    "": Decimal(1),
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "min": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}
# [0-9] and not \d, which also matches digits of other scripts; lengths are bounded so that no number gets absurd.
_NUMBER_AND_UNIT = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,20})?)[ ]?([A-Za-z]{0,3})")

SIZE_SYNTAX = "a number with B, KiB, MiB, GiB, TiB (powers of 1024) or KB, MB, GB, TB (powers of 1000)"
DURATION_SYNTAX = "a number with ms, s, m, h or d"


def parse_size(text: str) -> int:
    """Return the bytes that ``text`` means; without a unit they are bytes.

    Raises ValueError when it is no size or no whole number of bytes. ``64M`` is refused because it may mean either.
    :data:`SIZE_SYNTAX` tells a user what to write.
    """
    number, unit = _split(text)
    factor = _SIZE_UNITS.get(unit.lower())
    if factor is None:
        raise ValueError(f"unknown unit {unit!r}")
    size_bytes = number * factor
    if size_bytes != int(size_bytes):
        raise ValueError("not a whole number of bytes")
    return int(size_bytes)


def parse_duration(text: str) -> float:
    """Return the seconds that ``text`` means; without a unit they are seconds. Raises ValueError."""
    number, unit = _split(text)
    factor = _DURATION_UNITS.get(unit.lower())
    if factor is None:
        raise ValueError(f"unknown unit {unit!r}")
    return float(number * factor)


def format_size(size_bytes: int) -> str:
    """Return a size for people to read, with three to four digits: ``512 B``, ``1.50 GiB``."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1000 or unit == "TiB":
            break
        value /= 1024
    if unit == "B":
        return f"{size_bytes} B"
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:.{digits}f} {unit}"


def exact_size(size_bytes: int) -> str:
    """Return a size without rounding in the largest unit that fits: ``64MiB``, ``4294967295``. parse_size reads it."""
    for unit, factor in (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if size_bytes and size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return str(size_bytes)


def format_duration(seconds: float) -> str:
    """Return a duration for people to read: ``250 ms``, ``12 s``, ``3 min``, ``5.0 h``, ``12 d``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for limit, factor, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / factor:.{1 if unit == 'h' else 0}f} {unit}"
    return f"{seconds / 86400:.0f} d"


def _split(text: str) -> tuple[Decimal, str]:
    match = _NUMBER_AND_UNIT.fullmatch(text.strip())
    if match is None:
        raise ValueError("not a number with a unit")
    return Decimal(match[1]), match[2]
