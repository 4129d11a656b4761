"""What a request's path names, for a Cache."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from haystack.errors import InvalidFid
from haystack.fid import MAX_ALTERNATE
from haystack.store.targets import Target, parse_target

_PHOTO: Final = re.compile(r"/photo/([0-9a-fA-F]{1,16})(?:/([0-9]{1,10}))?(?:\.[0-9A-Za-z]{1,10})?")

PHOTO_PREFIX: Final = "/photo/"


@dataclass(frozen=True, slots=True)
class PhotoTarget:
    """A photo by its id: the Directory says what its needle is called.

    Parameters
    ----------
    photo: 64-bit id.
    alternate: rendition; 0 is the original.
    """

    photo: int
    alternate: int


def parse_path(path: str) -> Target | PhotoTarget:
    """The needle or photo that a path names, as in docs/cache.md. Raises :class:`InvalidFid`.

    Parameters
    ----------
    path: percent-decoded, with its leading slash.
    """
    if not path.startswith(PHOTO_PREFIX):
        return parse_target(path)
    match = _PHOTO.fullmatch(path)
    if match is None or int(match[2] or 0) > MAX_ALTERNATE:
        raise InvalidFid(f"{path[:80]!r} is no photo; expected /photo/<id in hex>/<rendition>, as in /photo/1f5a/2")
    return PhotoTarget(int(match[1], 16), int(match[2] or 0))
