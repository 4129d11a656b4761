"""HTTP-dates (RFC 9110, section 5.6.7): seconds since 1970 to text and back. Pure, with a bounded cache."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache

_CACHE_ENTRIES = 4096
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MINUTES = tuple(f"{minute // 60:02d}:{minute % 60:02d}:" for minute in range(1440))
_SECONDS = tuple(f"{second:02d} GMT" for second in range(60))
"""Numbers ready as text: nearly every photo has a date of its own, so dates as a whole are not worth keeping."""
_TIME = r"(?P<hour>\d{2}):(?P<minute>\d{2}):(?P<second>\d{2})"
_MONTH = rf"(?P<month>{'|'.join(_MONTHS)})"
_IMF_FIXDATE = re.compile(rf"(?:{'|'.join(_DAYS)}), (?P<day>\d{{2}}) {_MONTH} (?P<year>\d{{4}}) {_TIME} GMT", re.ASCII)
_RFC_850 = re.compile(
    rf"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, (?P<day>\d{{2}})-{_MONTH}-(?P<year>\d{{2}}) {_TIME} GMT", re.ASCII
)
_ASCTIME = re.compile(rf"(?:{'|'.join(_DAYS)}) {_MONTH} (?P<day>[ \d]\d) {_TIME} (?P<year>\d{{4}})", re.ASCII)
_PIVOT_YEAR = 70
"""Two-digit years from here on are 19xx: no photo store has a date before 1970."""


def format_http_date(seconds: int) -> str:
    """``Sun, 06 Nov 1994 08:49:37 GMT`` for whole seconds since 1970."""
    day, second = divmod(seconds, 86_400)
    minute, second = divmod(second, 60)
    return f"{_format_day(day)} {_MINUTES[minute]}{_SECONDS[second]}"


@lru_cache(maxsize=_CACHE_ENTRIES)
def _format_day(day: int) -> str:
    moment = datetime.fromtimestamp(day * 86_400, UTC)
    return f"{_DAYS[moment.weekday()]}, {moment.day:02d} {_MONTHS[moment.month - 1]} {moment.year:04d}"


@lru_cache(maxsize=_CACHE_ENTRIES)
def parse_http_date(text: str) -> int | None:
    """Whole seconds since 1970, from any of the three forms of RFC 9110; None when it is not an HTTP-date."""
    match = _IMF_FIXDATE.fullmatch(text) or _RFC_850.fullmatch(text) or _ASCTIME.fullmatch(text)
    if match is None:
        return None
    year = int(match["year"])
    if len(match["year"]) == 2:
        year += 1900 if year >= _PIVOT_YEAR else 2000
    seconds = min(int(match["second"]), 59)  # A leap second is the one before it.
    try:
        moment = datetime(
            year,
            _MONTHS.index(match["month"]) + 1,
            int(match["day"]),
            int(match["hour"]),
            int(match["minute"]),
            seconds,
            tzinfo=UTC,
        )
    except ValueError:
        return None
    return int(moment.timestamp())
