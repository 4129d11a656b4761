"""Response heads for stored photos."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import quote

from haystack.http.dates import format_http_date
from haystack.http.response import STATUS_LINES, header_block
from haystack.volume.layout import LayoutError, NeedleMeta

MAX_AGE_SECONDS = 31_536_000
IMMUTABLE = f"public, max-age={MAX_AGE_SECONDS}, immutable"
_OK = STATUS_LINES[200]
MAX_PRIVATE_SECONDS = 3600
"""How long a browser may keep a photo that only its user may see."""
DEFAULT_TYPE = "application/octet-stream"
PAIR_PREFIX = "X-Haystack-Meta-"
"""Header fields with this prefix are kept with an upload and given back with every read."""

PAIR_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
"""What can stand behind the prefix in a header field's name."""

_LAST_SECOND = 253_402_300_799
"""The end of the year 9999, the last that an HTTP-date can name."""

_UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def etag(checksum: int) -> str:
    """The strong entity tag of a needle: its checksum."""
    return f'"{checksum:016x}"'


def photo_headers(raw_meta: bytes, checksum: int, time_ms: int, *, attachment: bool = False) -> bytes:
    """Header lines of a 200 or 206 for a needle.

    Parameters
    ----------
    raw_meta: packed metadata.
    time_ms: when it was stored, milliseconds since 1970.
    attachment: tell the browser to save the photo rather than to show it.
    """
    return b'%sETag: "%016x"\r\nLast-Modified: %s\r\n' % (
        _meta_headers(raw_meta, attachment),
        checksum,
        format_http_date(modified_seconds(time_ms)).encode("ascii"),
    )


def expiring_headers(
    raw_meta: bytes, checksum: int, time_ms: int, expires: int, now_seconds: float, *, attachment: bool = False
) -> bytes:
    """As :func:`photo_headers`, for a needle that has an end, which no cache may outlive.

    Parameters
    ----------
    expires: when, seconds since 1970; ``now_seconds`` is before it.
    """
    left_seconds = max(0, min(int(expires - now_seconds), MAX_AGE_SECONDS))
    return b'%sCache-Control: public, max-age=%d\r\nExpires: %s\r\nETag: "%016x"\r\nLast-Modified: %s\r\n' % (
        _meta_headers(raw_meta, attachment, False),
        left_seconds,
        format_http_date(expires).encode("ascii"),
        checksum,
        format_http_date(modified_seconds(time_ms)).encode("ascii"),
    )


def private_headers(
    raw_meta: bytes, checksum: int, time_ms: int, until: int, now_seconds: float, *, attachment: bool = False
) -> bytes:
    """As :func:`photo_headers`, for a photo that only the one who asks may see: for his own browser's cache alone.

    Parameters
    ----------
    until: the end of the signature, seconds since 1970; ``now_seconds`` is before it.
    """
    left_seconds = max(0, min(int(until - now_seconds), MAX_PRIVATE_SECONDS))
    return b'%sCache-Control: private, max-age=%d\r\nETag: "%016x"\r\nLast-Modified: %s\r\n' % (
        _meta_headers(raw_meta, attachment, False),
        left_seconds,
        checksum,
        format_http_date(modified_seconds(time_ms)).encode("ascii"),
    )


def photo_head(raw_meta: bytes, checksum: int, time_ms: int, data_bytes: int) -> bytes:
    """The head of a 200 for a whole needle without its last lines (see ``haystack.http.response.Tails``).

    The same as ``prepared_head`` with :func:`photo_headers` makes, at half its price: most reads need a new one.
    """
    return b'%s%sETag: "%016x"\r\nLast-Modified: %s\r\nContent-Length: %d\r\n' % (
        _OK,
        _meta_headers(raw_meta, False),
        checksum,
        format_http_date(min(time_ms // 1000, _LAST_SECOND)).encode("ascii"),
        data_bytes,
    )


def modified_seconds(time_ms: int) -> int:
    """Last-Modified in seconds since 1970."""
    return min(time_ms // 1000, _LAST_SECOND)


@lru_cache(maxsize=4096)
def _meta_headers(raw_meta: bytes, attachment: bool, lasting: bool = True) -> bytes:
    try:
        meta = NeedleMeta.unpack(raw_meta)
    except LayoutError:
        meta = NeedleMeta()  # the checksum holds, so a later release wrote it: the photo itself is what was asked for
    fields = [
        ("Content-Type", _sendable(meta.mime) or DEFAULT_TYPE),
        ("Content-Disposition", _disposition(meta.name, attachment)),
        ("Cache-Control", IMMUTABLE if lasting else ""),
        ("Accept-Ranges", "bytes"),
        ("X-Content-Type-Options", "nosniff"),
    ]
    lines = header_block((name, value) for name, value in fields if value)
    # Metadata is whatever somebody stored once: what no header can hold is left out, so that the photo can be read.
    pairs = {name.lower(): _as_utf8(value) for name, value in meta.pairs if PAIR_NAME.fullmatch(name)}
    return lines + header_block((PAIR_PREFIX + name, value) for name, value in pairs.items())


def _disposition(name: str, attachment: bool) -> str:
    """RFC 6266, with the RFC 8187 form for names beyond ASCII."""
    kind = "attachment" if attachment else "inline"
    if not name:
        return kind if attachment else ""
    plain = "".join(char if " " <= char < "\x7f" and char not in '"\\' else "_" for char in name)
    text = f'{kind}; filename="{plain}"'
    return text if plain == name else f"{text}; filename*=UTF-8''{quote(name, safe='')}"


def _sendable(text: str) -> str:
    """The text without what a MIME type does not have."""
    return "".join(char for char in text if " " <= char <= "~").strip()


def _as_utf8(text: str) -> str:
    """The text as a field value: its UTF-8 bytes, each as one latin-1 character, without control characters."""
    return _UNSENDABLE.sub("", text).encode("utf-8", "replace").decode("latin-1").strip(" \t")
