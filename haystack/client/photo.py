"""What a client knows of a photo: after storing it, and from the head of an answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote, unquote

from haystack.client.errors import UnexpectedAnswer

MAX_NAME_BYTES = 1024
"""Longer names are cut before they are sent; a Store keeps at most 8 KiB of metadata."""

_EXTENDED = re.compile(r";\s*filename\*\s*=\s*UTF-8'[^']*'([^;\s]*)", re.IGNORECASE)
_PLAIN = re.compile(r';\s*filename\s*=\s*"((?:[^"\\]|\\.)*)"', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class StoredPhoto:
    """An upload that the cluster has acknowledged.

    Parameters
    ----------
    fid, locator: its names; the locator is empty when the Store gave none.
    size_bytes: as the Store counted it, compared with what was sent.
    etag: without quotes.
    url: where a browser finds it.
    """

    fid: str
    locator: str
    size_bytes: int
    etag: str
    url: str


@dataclass(frozen=True, slots=True)
class PhotoInfo:
    """What the head of an answer says of a photo.

    ``name`` and ``mime`` are empty when none was stored, ``expires`` is None when the photo has no end.
    """

    fid: str
    name: str
    mime: str
    size_bytes: int
    etag: str
    modified: datetime | None
    url: str
    expires: datetime | None = None


def disposition(name: str) -> str:
    """Return the Content-Disposition that carries a file name, whatever is in it."""
    raw = name.encode("utf-8", "replace")[:MAX_NAME_BYTES]
    clean = raw.decode("utf-8", "ignore")
    plain = "".join(one if " " <= one <= "~" and one not in '"\\%' else "_" for one in clean)
    if plain == clean:
        return f'inline; filename="{plain}"'
    return f"inline; filename=\"{plain}\"; filename*=UTF-8''{quote(clean, safe='')}"


def info_from(headers: Mapping[str, str], size_bytes: int | None, fid: str, url: str) -> PhotoInfo:
    """Read the head of a GET or HEAD.

    Parameters
    ----------
    size_bytes: the photo's whole size; None when the answer did not tell.

    Raises UnexpectedAnswer when it is none of a photo.
    """
    if size_bytes is None:
        raise UnexpectedAnswer(f"{url}: the answer does not tell the photo's size")
    return PhotoInfo(
        fid=fid,
        name=file_name(headers.get("Content-Disposition", "")),
        mime=headers.get("Content-Type", ""),
        size_bytes=size_bytes,
        etag=plain_etag(headers.get("ETag", "")),
        modified=_time(headers.get("Last-Modified")),
        url=url,
        expires=_time(headers.get("Expires")),
    )


def plain_etag(text: str) -> str:
    """Return an entity tag without ``W/`` and quotes."""
    return text.removeprefix("W/").strip('"')


def file_name(header: str) -> str:
    """Return the file name of a Content-Disposition: its extended form if there is one, else the plain one, else ''."""
    extended = _EXTENDED.search(header)
    if extended:
        return unquote(extended[1], errors="replace")
    plain = _PLAIN.search(header)
    return re.sub(r"\\(.)", r"\1", plain[1]) if plain else ""


def _time(header: str | None) -> datetime | None:
    if header is None:
        return None
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
