"""The text names of needles: fid and locator.

fid:     ``<volume>,<key hex><cookie 16 hex>[_<alternate>]``
locator: ``<volume>@<offset hex>,<key hex><cookie 16 hex>[_<alternate>]``

The key is printed in lower-case hex without leading zeros, the cookie always as 16 digits. Parsing accepts upper-case
hex and leading zeros, and nothing else: no sign, space, underscore between digits or ``0x``, all of which ``int()``
would take.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from haystack.errors import InvalidFid

MAX_VOLUME_ID = 2**32 - 1
MAX_KEY = 2**64 - 1
MAX_COOKIE = 2**64 - 1
MAX_ALTERNATE = 2**32 - 1
MAX_OFFSET = 2**43 - 1
"""Offsets are below 8 TiB."""

MAX_FID_LENGTH = 80

_NEEDLE = r"([0-9a-fA-F]{1,16})([0-9a-fA-F]{16})(?:_([0-9]{1,10}))?"
_FID = re.compile(r"([0-9]{1,10})," + _NEEDLE)
_LOCATOR = re.compile(r"([0-9]{1,10})@([0-9a-fA-F]{1,11})," + _NEEDLE)


@dataclass(frozen=True, slots=True)
class Fid:
    """The name of one needle.

    Parameters
    ----------
    volume: logical volume, 1 … 2^32-1.
    key: photo id, 64 bits.
    cookie: 64 random bits.
    alternate: number of a rendition, 32 bits; 0 is the original.
    """

    volume: int
    key: int
    cookie: int
    alternate: int = 0

    def __str__(self) -> str:
        suffix = f"_{self.alternate}" if self.alternate else ""
        return f"{self.volume},{self.key:x}{self.cookie:016x}{suffix}"

    @classmethod
    def parse(cls, text: str) -> Fid:
        """Read a fid. Raises :class:`InvalidFid` with the reason."""
        match = _FID.fullmatch(text) if len(text) <= MAX_FID_LENGTH else None
        if match is None:
            raise InvalidFid(
                f"{text[:MAX_FID_LENGTH]!r} is not a fid; expected <volume>,<key hex><cookie 16 hex>[_<alternate>], "
                "as in 3,1f5a2c9e0b7d44e18a6"
            )
        volume, key, cookie, alternate = match.groups()
        return cls(_volume(volume), int(key, 16), int(cookie, 16), _alternate(alternate))


@dataclass(frozen=True, slots=True)
class Locator:
    """Where a needle was written: a fid with the byte offset inside its volume."""

    fid: Fid
    offset: int

    def __str__(self) -> str:
        volume, _, needle = str(self.fid).partition(",")
        return f"{volume}@{self.offset:x},{needle}"

    @classmethod
    def parse(cls, text: str) -> Locator:
        """Read a locator. Raises :class:`InvalidFid` with the reason."""
        match = _LOCATOR.fullmatch(text) if len(text) <= MAX_FID_LENGTH else None
        if match is None:
            raise InvalidFid(
                f"{text[:MAX_FID_LENGTH]!r} is not a locator; expected "
                "<volume>@<offset hex>,<key hex><cookie 16 hex>[_<alternate>]"
            )
        volume, offset_text, key, cookie, alternate = match.groups()
        offset = int(offset_text, 16)
        if offset > MAX_OFFSET or offset % 8:
            raise InvalidFid(f"offset {offset_text} is not a multiple of 8 below 8 TiB")
        return cls(Fid(_volume(volume), int(key, 16), int(cookie, 16), _alternate(alternate)), offset)


def _volume(text: str) -> int:
    volume = int(text)
    if not 1 <= volume <= MAX_VOLUME_ID:
        raise InvalidFid(f"volume {text} is outside 1 … {MAX_VOLUME_ID}")
    return volume


def _alternate(text: str | None) -> int:
    alternate = int(text) if text else 0
    if alternate > MAX_ALTERNATE:
        raise InvalidFid(f"alternate key {text} is larger than {MAX_ALTERNATE}")
    return alternate
