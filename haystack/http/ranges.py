"""Range requests (RFC 9110, section 14). Pure.

A server may ignore Range, and that is what happens to everything that is not one well-formed byte range: other units,
several ranges, syntax errors all get the whole representation.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Final

from haystack.http.dates import parse_http_date

_ONE_RANGE = re.compile(r"bytes[ \t]*=[ \t,]*(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))[ \t,]*", re.ASCII | re.IGNORECASE)


class RangeOutcome(enum.Enum):
    """What a Range header comes to when it is not a part to send."""

    WHOLE = enum.auto()
    """Send everything, 200."""
    UNSATISFIABLE = enum.auto()
    """Nothing of the range is there: 416 with :func:`unsatisfied_content_range`."""


@dataclass(frozen=True, slots=True)
class ByteRange:
    """A part to send with 206. ``start`` is the offset of its first byte, ``end`` the offset behind its last."""

    start: int
    end: int

    @property
    def length_bytes(self) -> int:
        return self.end - self.start

    def content_range(self, size_bytes: int) -> str:
        """Value of the Content-Range field of the 206."""
        return f"bytes {self.start}-{self.end - 1}/{size_bytes}"


WHOLE: Final = RangeOutcome.WHOLE
UNSATISFIABLE: Final = RangeOutcome.UNSATISFIABLE


def parse_range(value: str | None, size_bytes: int) -> ByteRange | RangeOutcome:
    """What to send of ``size_bytes`` bytes for this Range header."""
    match = _ONE_RANGE.fullmatch(value) if value else None
    if match is None:
        return WHOLE
    first, last, suffix = match.groups()
    if suffix is not None:
        length = min(int(suffix), size_bytes)
        return ByteRange(size_bytes - length, size_bytes) if length else UNSATISFIABLE
    start = int(first)
    if last and int(last) < start:
        return WHOLE
    if start >= size_bytes:
        return UNSATISFIABLE
    return ByteRange(start, min(int(last) + 1, size_bytes) if last else size_bytes)


def unsatisfied_content_range(size_bytes: int) -> str:
    """Value of the Content-Range field of a 416."""
    return f"bytes */{size_bytes}"


def if_range_matches(value: str | None, etag: str, last_modified_seconds: int | None) -> bool:
    """Whether Range is to be honoured (RFC 9110, 13.1.5): no If-Range, or it names what we have.

    Parameters
    ----------
    etag: of the current representation, with its quotes; strong. A weak tag in If-Range never matches.
    last_modified_seconds: of the current representation; None when unknown. It has to be the same second.
    """
    if value is None:
        return True
    if '"' in value:
        return value == etag and not etag.startswith("W/")
    return last_modified_seconds is not None and parse_http_date(value) == last_modified_seconds


def select_range(
    range_value: str | None,
    if_range_value: str | None,
    *,
    etag: str,
    last_modified_seconds: int | None,
    size_bytes: int,
) -> ByteRange | RangeOutcome:
    """What to send for these two headers."""
    if range_value is None or not if_range_matches(if_range_value, etag, last_modified_seconds):
        return WHOLE
    return parse_range(range_value, size_bytes)
