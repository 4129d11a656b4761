"""Bars of text, for tables."""

from __future__ import annotations

_EIGHTHS = " ▏▎▍▌▋▊▉"

DEFAULT_WIDTH = 20


def bar(value: float, most: float, width: int = DEFAULT_WIDTH) -> str:
    """Return a bar of block characters, ``width`` long for ``most``; what is more than nothing is seen."""
    if value <= 0 or most <= 0:
        return ""
    eighths = max(1, round(min(value / most, 1.0) * width * 8))
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
