"""File names from Content-Disposition (RFC 6266), read leniently: an odd name is no reason to refuse a photo."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

MAX_NAME_CHARACTERS: Final = 1024
"""Longer names are cut."""

_PARAMETER = re.compile(
    r";[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*(?:\"((?:[^\"\\]|\\.)*)\"|([^\";\s]*))", re.DOTALL
)
_EXTENDED = re.compile(r"(utf-8|iso-8859-1)'[^']*'(.*)", re.IGNORECASE | re.DOTALL)
_FOLDERS = re.compile(r".*[/\\]", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def name_in_disposition(disposition: str | None) -> str:
    """The file name, without folders; empty when there is none.

    Parameters
    ----------
    disposition: value of the header field, as latin-1 text. Bytes beyond ASCII are taken for UTF-8, as browsers and
        curl send them.
    """
    parameters: dict[str, str] = {}
    for name, quoted, plain in _PARAMETER.findall(disposition or ""):
        parameters.setdefault(name.lower(), re.sub(r"\\(.)", r"\1", quoted) if quoted else plain)
    extended = _EXTENDED.fullmatch(parameters.get("filename*", ""))
    if extended:
        name = unquote_to_bytes(extended[2].encode("latin-1")).decode(extended[1], "replace")
    else:
        name = parameters.get("filename", "").encode("latin-1").decode("utf-8", "replace")
    return clean_name(name)


def clean_name(name: str) -> str:
    """The last component of a path, as some clients send one, of bounded length and without control characters.

    Whoever writes files by the names of photos must not be led out of their folder.
    """
    last = _CONTROL.sub("_", _FOLDERS.sub("", name))[:MAX_NAME_CHARACTERS]
    return "" if last in (".", "..") else last
