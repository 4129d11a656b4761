"""Response heads for stored photos."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import quote

from haystack.http.dates import format_http_date
from haystack.http.response import header_block
from haystack.volume.layout import LayoutError, NeedleMeta

IMMUTABLE = "public, max-age=31536000, immutable"
DEFAULT_TYPE = "application/octet-stream"
PAIR_PREFIX = "X-Haystack-Meta-"
"""Header fields with this prefix are kept with an upload and given back with every read."""


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
        format_http_date(time_ms // 1000).encode("ascii"),
    )


@lru_cache(maxsize=4096)
def _meta_headers(raw_meta: bytes, attachment: bool) -> bytes:
    try:
        meta = NeedleMeta.unpack(raw_meta)
    except LayoutError:
        meta = NeedleMeta()  # the checksum holds, so a later release wrote it: the photo itself is what was asked for
    fields = [
        ("Content-Type", _sendable(meta.mime) or DEFAULT_TYPE),
        ("Content-Disposition", _disposition(meta.name, attachment)),
        ("Cache-Control", IMMUTABLE),
        ("Accept-Ranges", "bytes"),
        ("X-Content-Type-Options", "nosniff"),
    ]
    fields += [(PAIR_PREFIX + name, _sendable(value)) for name, value in meta.pairs]
    return header_block((name, value) for name, value in fields if value)


def _disposition(name: str, attachment: bool) -> str:
    """RFC 6266, with the RFC 8187 form for names beyond ASCII."""
    kind = "attachment" if attachment else "inline"
    if not name:
        return kind if attachment else ""
    plain = "".join(char if " " <= char < "\x7f" and char not in '"\\' else "_" for char in name)
    text = f'{kind}; filename="{plain}"'
    return text if plain == name else f"{text}; filename*=UTF-8''{quote(name, safe='')}"


def _sendable(text: str) -> str:
    """The text without what no header field may hold."""
    return "".join(char for char in text if " " <= char <= "~").strip()
