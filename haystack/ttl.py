"""How long a photo is to live, as clients say it: in the notation of SeaweedFS, or in seconds. Pure."""

from __future__ import annotations

import re
from typing import Final

from haystack.errors import InvalidRequest

MINUTE_SECONDS: Final = 60
HOUR_SECONDS: Final = 60 * MINUTE_SECONDS
DAY_SECONDS: Final = 24 * HOUR_SECONDS

UNIT_SECONDS: Final = {
    "": 1,
    "m": MINUTE_SECONDS,
    "h": HOUR_SECONDS,
    "d": DAY_SECONDS,
    "w": 7 * DAY_SECONDS,
    "M": 31 * DAY_SECONDS,
    "y": 365 * DAY_SECONDS,
}
"""Months and years are as long as they are to SeaweedFS."""

LAST_SECOND: Final = 2**32 - 1
"""The last second since 1970 that a needle can name as its end, in February 2106."""

SYNTAX: Final = "a number with m, h, d, w, M (31 days) or y (365 days) behind it, such as 3m or 2w, or of seconds"

_TTL = re.compile(r"([0-9]{1,10})([mhdwMy]?)")


def parse_ttl(text: str) -> int:
    """Seconds to live; 0, for ever, when the text is empty or the number is 0.

    Raises InvalidRequest for another text, and for more than a needle could ever name.
    """
    if not text:
        return 0
    match = _TTL.fullmatch(text)
    if match is None:
        raise InvalidRequest(f"ttl {text[:40]!r} is no time to live: expected {SYNTAX}")
    seconds = int(match[1]) * UNIT_SECONDS[match[2]]
    if seconds > LAST_SECOND:
        raise _too_long(text)
    return seconds


def expiry(ttl_seconds: int, now_ms: int) -> int:
    """The second since 1970 from which on a photo is not served any more; 0, never, for a ``ttl_seconds`` of 0.

    It lives for the whole time: a part of a second now counts as a second more. Raises InvalidRequest beyond 2106.
    """
    if not ttl_seconds:
        return 0
    expires = -(-now_ms // 1000) + ttl_seconds
    if expires > LAST_SECOND:
        raise _too_long(f"{ttl_seconds} s")
    return expires


def _too_long(text: str) -> InvalidRequest:
    return InvalidRequest(f"ttl {text[:40]} ends after the year 2105; store the photo without one to keep it for ever")
