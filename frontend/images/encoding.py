"""From pixels to files: renditions, and an original that has at most the bytes that the settings allow."""

from __future__ import annotations

import io
import math
from typing import Any

from PIL import Image

from frontend.images.decoding import contained, on_white
from frontend.images.renditions import ORIGINAL, Encoded, Format

_OPTIONS: dict[Format, dict[str, Any]] = {
    Format.JPEG: {"quality": 82, "progressive": True, "subsampling": "4:2:0"},
    Format.WEBP: {"quality": 78, "method": 2},
    Format.AVIF: {"quality": 60, "speed": 8},
}
"""Method 2 of WebP takes less than half the time of 4, for the same bytes within a hundredth."""

ORIGINAL_QUALITIES = (88, 82, 74, 66)
_LEAST_EDGE = 320
_PNG_PIXELS = 1_000_000
"""Larger pictures are tried as PNG for nothing: they have more than a megabyte unless they are nearly empty."""


def encode(image: Image.Image, alternate: int, format_: Format) -> Encoded:
    """One rendition of pixels in mode RGB or RGBA, as :func:`~frontend.images.decoding.decode` makes them."""
    pixels = on_white(image) if format_ is Format.JPEG else image
    return Encoded(alternate, format_.mime, *pixels.size, _file(pixels, format_.pillow, **_OPTIONS[format_]))


def encode_original(image: Image.Image, max_bytes: int) -> Encoded:
    """The picture in at most ``max_bytes``: quality is given up before size; transparency is kept (PNG, else WebP)."""
    while True:
        found = _original_of_this_size(image, max_bytes)
        if len(found.data) <= max_bytes:
            return found
        edge = max(image.size)
        # Bytes go with the area; a little larger than that, because quality may be given up, too.
        part = min(0.8, 1.2 * math.sqrt(max_bytes / len(found.data)))
        smaller = max(_LEAST_EDGE, math.floor(edge * part))
        if smaller >= edge:  # cannot be: such a picture has some 100 KB
            raise ValueError(f"a picture of {image.size} pixels does not fit into {max_bytes} bytes")
        image = contained(image, smaller)


def _original_of_this_size(image: Image.Image, max_bytes: int) -> Encoded:
    """The first quality that fits; the last that was tried when none does."""
    if image.mode == "RGBA":
        if image.width * image.height <= _PNG_PIXELS:
            data = _file(image, "PNG")
            if len(data) <= max_bytes:
                return Encoded(ORIGINAL, "image/png", *image.size, data)
        options: dict[str, Any] = {"method": 2}
        format_ = Format.WEBP
    else:
        options = {"progressive": True, "subsampling": "4:2:0"}
        format_ = Format.JPEG
    for quality in ORIGINAL_QUALITIES:
        data = _file(image, format_.pillow, quality=quality, **options)
        if len(data) <= max_bytes or len(data) > 2 * max_bytes:  # the least quality halves it at most
            break
    return Encoded(ORIGINAL, format_.mime, *image.size, data)


def encode_animation(frames: list[Image.Image], durations_ms: list[int], loop: int, alternate: int) -> Encoded:
    """An animated WebP of frames that all have the size of the first."""
    target = io.BytesIO()
    frames[0].save(
        target,
        "WEBP",
        save_all=True,
        append_images=frames[1:],
        duration=durations_ms,
        loop=loop,
        quality=70,
        method=1,
    )
    return Encoded(alternate, "image/webp", *frames[0].size, target.getvalue())


def _file(image: Image.Image, format_: str, **options: Any) -> bytes:
    target = io.BytesIO()
    image.save(target, format_, **options)
    return target.getvalue()
