"""The renditions of a photo: their sizes, formats, and the alternate keys that they are stored under."""

from __future__ import annotations

import enum
from dataclasses import dataclass

ORIGINAL = 0
"""Alternate key of what is shown as the original: upright, at most a megabyte, without metadata."""

UNTOUCHED = 100
"""Alternate key of the upload as it came, when that is kept. Never public: it has its metadata."""


class Format(enum.Enum):
    """A format that renditions are made in: its MIME type and Pillow's name of it."""

    JPEG = "image/jpeg", "JPEG"
    WEBP = "image/webp", "WEBP"
    AVIF = "image/avif", "AVIF"

    @property
    def mime(self) -> str:
        return self.value[0]

    @property
    def pillow(self) -> str:
        return self.value[1]


@dataclass(frozen=True, slots=True)
class Size:
    """A size of rendition.

    Parameters
    ----------
    name: as it stands in URLs.
    edge: most pixels of the longer edge. Smaller photos are not enlarged.
    """

    name: str
    edge: int


SIZES = (Size("thumbnail", 160), Size("small", 320), Size("medium", 640), Size("large", 1080))
_FIRST_KEYS = {Format.JPEG: 1, Format.WEBP: 11, Format.AVIF: 21}
KEYS = {
    (size.name, format_): first + number for format_, first in _FIRST_KEYS.items() for number, size in enumerate(SIZES)
}
"""Size name and format → alternate key."""

ALTERNATES = 32
"""Alternate keys below this are a photo's renditions, so many are assigned with its fid."""


def alternate_key(size: str, format_: Format) -> int:
    """The alternate key of a rendition. Raises KeyError for an unknown size."""
    return KEYS[size, format_]


@dataclass(frozen=True, slots=True)
class Encoded:
    """One picture as it is stored.

    Parameters
    ----------
    alternate: alternate key.
    mime: its type.
    width, height: pixels.
    data: the file.
    """

    alternate: int
    mime: str
    width: int
    height: int
    data: bytes
