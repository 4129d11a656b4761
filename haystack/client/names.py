"""The ways to name a photo: fid, locator, photo id, or a URL that ends in one of them."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from haystack.errors import InvalidFid
from haystack.fid import Fid, Locator

MAX_NAME_LENGTH = 4096

_PHOTO_ID = re.compile(r"[0-9a-fA-F]{1,16}")
_EXTENSION = re.compile(r"\.[0-9A-Za-z]{1,10}")

PhotoName = Fid | Locator | int
"""An int is a photo id: the original of that photo, wherever the Directory says that it is."""


def parse_photo_name(text: str) -> PhotoName:
    """Read a fid, a locator, a photo id in hex, or the URL of a photo.

    Raises :class:`InvalidFid` saying what is wrong with it.
    """
    name = text.strip()
    if len(name) <= MAX_NAME_LENGTH and name.startswith(("http://", "https://")):
        name = _in_path(unquote(urlsplit(name).path))
    if "@" in name:
        return Locator.parse(name)
    if "," in name:
        return Fid.parse(name)
    if _PHOTO_ID.fullmatch(name):
        return int(name, 16)
    raise InvalidFid(
        f"{text[:200]!r} is neither a fid (<volume>,<key hex><cookie 16 hex>) nor a locator "
        "(<volume>@<offset hex>,<key hex><cookie 16 hex>) nor a photo id (1 to 16 hex digits) nor the URL of a photo"
    )


def fid_of(name: Fid | Locator) -> Fid:
    """Return the fid that a locator contains, or the fid itself."""
    return name.fid if isinstance(name, Locator) else name


def _in_path(path: str) -> str:
    for segment in path.split("/"):
        if "," in segment:
            stem, dot, extension = segment.partition(".")
            return stem if dot and _EXTENSION.fullmatch(dot + extension) else segment
    return path.rstrip("/").rpartition("/")[2]
