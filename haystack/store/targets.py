"""Request paths of the Store and the needles that they name.

- ``/3,01ab…`` a fid, with or without an ending such as ``.jpg``
- ``/3/01ab…`` and ``/3/01ab…/name.jpg`` the same, as a path
- ``/3@1f40,01ab…`` a locator: volume and byte offset
- ``/3/multi`` several needles at once
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from haystack.errors import InvalidFid, NeedleNotFound
from haystack.fid import Fid, Locator

_ENDING = re.compile(r"\.[0-9A-Za-z]{1,10}$")
_MULTI = re.compile(r"/([0-9]{1,10})/multi")
_AS_PATH = re.compile(r"/([0-9]{1,10})/([^/]+)(?:/[^/]*)?")


@dataclass(frozen=True, slots=True)
class Target:
    """What a request names.

    Parameters
    ----------
    fid: the needle.
    offset: where the client says that it is; None: ask the index.
    signed_until: until when a valid signature of the URL lets it be seen, seconds since 1970; 0 without one.
    """

    fid: Fid
    offset: int | None = None
    signed_until: int = 0


def parse_target(path: str) -> Target:
    """The needle that a path names. Raises :class:`InvalidFid`.

    Parameters
    ----------
    path: percent-decoded, with its leading slash.
    """
    text = path[1:]
    if "/" in text:
        match = _AS_PATH.fullmatch(path)
        text = f"{match[1]},{match[2]}" if match else text
    if "." in text:
        text = _ENDING.sub("", text)
    if "@" in text:
        locator = Locator.parse(text)
        return Target(locator.fid, locator.offset)
    return Target(Fid.parse(text))


def not_here(fid: Fid) -> NeedleNotFound:
    """The answer to all requests for what is not to be seen: they must not differ."""
    return NeedleNotFound(f"{fid} is not here: unknown, deleted, expired, the cookie or the signature is wrong")


def parse_multi(path: str) -> int | None:
    """The volume of a ``/<volume>/multi`` path, or None. Raises :class:`InvalidFid`."""
    match = _MULTI.fullmatch(path) if path.endswith("/multi") else None
    if match is None:
        return None
    volume = int(match[1])
    if not 1 <= volume < 2**32:
        raise InvalidFid(f"volume {match[1]} is outside 1 … {2**32 - 1}")
    return volume
