"""Taking the metadata out of a file without touching its pixels, so that a good photo is not compressed twice."""

from __future__ import annotations

import struct

from frontend.images.errors import ImageRefused

_SOI = b"\xff\xd8"
_EOI = 0xD9
_SOS = 0xDA
_STANDALONE = frozenset((0x01, *range(0xD0, 0xD8)))
"""Markers without a length: TEM and the restart markers."""
_JFIF, _ADOBE = 0xE0, 0xEE
"""Pixel density, and how colours are to be read. Other segments hold metadata, previews, or unknown things; these two
may have a preview, too, and anything behind what they should have."""
_APPS = range(0xE0, 0xF0)
_COMMENT = 0xFE
_RARE_FRAMES = frozenset((0xC3, 0xC5, 0xC6, 0xC7, *range(0xC9, 0xCC), *range(0xCD, 0xD0)))
"""Lossless, hierarchical and arithmetic JPEGs: browsers show none of them."""
_MAX_SEGMENTS = 10_000


def strip_jpeg(data: bytes) -> bytes:
    """A JPEG without EXIF, XMP, IPTC, profile, comments, and whatever follows the end of its first picture.

    Its pixels must mean the same without them (upright, sRGB): the caller looks.

    Raises
    ------
    ImageRefused: the segments make no sense, or are of a kind that browsers do not show.
    """
    if not data.startswith(_SOI):
        raise ImageRefused("the picture is damaged: a JPEG does not begin as one")
    kept = [_SOI]
    at = len(_SOI)
    for _ in range(_MAX_SEGMENTS):
        while data[at : at + 2] == b"\xff\xff":  # fill bytes
            at += 1
        if len(data) < at + 2 or data[at] != 0xFF:
            raise ImageRefused("the picture is damaged: a JPEG segment is not where it should be")
        marker = data[at + 1]
        if marker == _EOI:
            kept.append(data[at : at + 2])
            return b"".join(kept)
        end = at + 2 if marker in _STANDALONE else _segment_end(data, at)
        if marker == _SOS:
            end = _scan_end(data, end)
        if marker in _RARE_FRAMES:
            raise ImageRefused("the picture is a JPEG of a rare kind")
        if marker in _APPS:
            kept.append(_known_app(marker, data[at + 4 : end]))
        elif marker != _COMMENT:
            kept.append(data[at:end])
        at = end
    raise ImageRefused("the picture is damaged: a JPEG has too many segments")


def _known_app(marker: int, body: bytes) -> bytes:
    """What is kept of an application's segment: what decoders need, and nothing else."""
    if marker == _JFIF and body.startswith(b"JFIF\0") and len(body) >= 14:
        body = body[:12] + b"\0\0"  # no preview
    elif marker == _ADOBE and body.startswith(b"Adobe") and len(body) >= 12:
        body = body[:12]
    else:
        return b""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _segment_end(data: bytes, at: int) -> int:
    if len(data) < at + 4:
        raise ImageRefused("the picture is damaged: a JPEG segment is cut off")
    (length,) = struct.unpack_from(">H", data, at + 2)
    end = at + 2 + int(length)
    if length < 2 or end > len(data):
        raise ImageRefused("the picture is damaged: a JPEG segment is cut off")
    return end


def _scan_end(data: bytes, at: int) -> int:
    """Where the compressed pixels of a scan end: at a marker that is neither a stuffed byte nor a restart."""
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 1 >= len(data):
            raise ImageRefused("the picture is damaged: the pixels of a JPEG are cut off")
        following = data[at + 1]
        if following == 0xFF:
            at += 1
        elif following == 0 or following in _STANDALONE:
            at += 2
        else:
            return at
