"""A photo's record as it travels and as it is stored beside the photo, so that losing the database loses no library.

The record is a needle of its own, written in one multi-write with the pictures and given to signed URLs alone: it may
say where a photo was taken. Changed titles, captions and tags are stored there again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from frontend.visibility import Visibility
from haystack.errors import InvalidFid, InvalidRequest
from haystack.fid import Fid

RECORD = 99
"""Alternate key of the record's needle."""
RECORD_MIME = "application/vnd.haystack.photo+json"
_VERSION = 1
MAX_TITLE = 200
MAX_CAPTION = 2_000
MAX_TAGS = 30
MAX_TAG = 50


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a photo, apart from what people do with it.

    Parameters
    ----------
    fid: of its original; the photo's id is its key, unless ``original_id`` says another one: a photo that is stored
        anew, under another fid, keeps its id.
    owner_id, owner_name, owner_shown: who uploaded it: id, user name, and the name that is shown.
    created_ms: when it was published; taken_ms: when it was taken, if that is known.
    latitude, longitude: where, if that is known and may be kept.
    mime, width, height, size_bytes, name: of the upload.
    renditions: alternate keys of all its pictures.
    placeholder, exact_hash: hex; near_hash: 64 bits as hex.
    """

    fid: str
    owner_id: int
    owner_name: str
    owner_shown: str
    title: str
    caption: str
    tags: tuple[str, ...]
    visibility: int
    created_ms: int
    taken_ms: int | None
    latitude: float | None
    longitude: float | None
    camera: str
    name: str
    mime: str
    width: int
    height: int
    size_bytes: int
    animated: bool
    renditions: tuple[int, ...]
    placeholder: str
    exact_hash: str
    near_hash: str
    original_id: int | None = None

    @property
    def photo_id(self) -> int:
        return Fid.parse(self.fid).key if self.original_id is None else self.original_id


def dump(record: Record) -> str:
    """The record as JSON."""
    return json.dumps({"version": _VERSION, **asdict(record)}, ensure_ascii=False, separators=(",", ":"))


def load(text: str | bytes) -> Record:
    """A record that :func:`dump` wrote.

    Raises
    ------
    InvalidRequest: it is none, or of a later release.
    """
    try:
        found: Any = json.loads(text)
        version = found.pop("version")
        if version != _VERSION:
            raise InvalidRequest(f"the photo's record has version {version}; this release knows {_VERSION}")
        known = {field.name for field in fields(Record)}
        record = Record(**{name: value for name, value in found.items() if name in known})
        Fid.parse(record.fid)
        Visibility(record.visibility)
        bytes.fromhex(record.placeholder + record.exact_hash + record.near_hash)
        values = {"tags": tuple(map(str, record.tags)), "renditions": tuple(map(int, record.renditions))}
    except (ValueError, TypeError, KeyError, AttributeError, InvalidFid) as error:
        raise InvalidRequest(f"this is no photo's record: {type(error).__name__}: {error}") from error
    return Record(**{**asdict(record), **values})
