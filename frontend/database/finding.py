"""Searching for photos: what a query asks for, and the photos that answer it."""

from __future__ import annotations

import datetime
import math
import re
from dataclasses import dataclass

from sqlalchemy import Connection

from frontend.database import search
from frontend.database.paging import Page, Position
from frontend.database.photos import Photo, photo_of, photo_query, with_tags
from frontend.database.tables import photos
from frontend.visibility import Visibility
from haystack.errors import InvalidRequest

MAX_QUERY = 200
DAY_MS = 86_400_000
_TERM = re.compile(r"(?P<key>tag|from|before|after|on|near):(?P<value>\S+)|(?P<mark>[#@])(?P<name>\w+)", re.IGNORECASE)
_NEAR = re.compile(r"(-?\d+(?:\.\d+)?),(-?\d+(?:\.\d+)?)(?:,(\d+(?:\.\d+)?))?")
_KM_A_DEGREE = 111.2
DEFAULT_NEAR_KM = 10.0

_PUBLIC = "photos.visibility = :public"
_MAY_SEE = (
    "(photos.visibility = :public OR photos.owner_id = :viewer OR (photos.visibility = :followers AND EXISTS ("
    "SELECT 1 FROM follows WHERE follows.follower_id = :viewer AND follows.followee_id = photos.owner_id)))"
)
"""As :func:`frontend.database.access.may_see`, in words of SQL."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a query asks for.

    Parameters
    ----------
    words: all of them.
    tags: all of them.
    owner: user name; "" for anybody.
    from_ms, to_ms: when it was taken (published, where that is not known), from and before.
    near: latitude, longitude and km around it.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...] = ()
    owner: str = ""
    from_ms: int | None = None
    to_ms: int | None = None
    near: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """Photos that answer a query.

    Parameters
    ----------
    spelt: the words that were searched for instead, when nothing was found by those that were asked for.
    """

    page: Page[Photo]
    spelt: tuple[str, ...] | None = None


def parse_query(query: str) -> Asked:
    """``beach #summer @alice after:2024-06 near:43.46,11.88,5`` in parts.

    Raises
    ------
    InvalidRequest: a date or place that is none, or a query that asks for nothing or is too long.
    """
    if len(query) > MAX_QUERY:
        raise InvalidRequest(f"a query has at most {MAX_QUERY} characters")
    tags: list[str] = []
    found: dict[str, str] = {}
    for match in _TERM.finditer(query):
        key = (match["key"] or {"#": "tag", "@": "from"}[match["mark"]]).lower()
        value = (match["value"] or match["name"]).lower()
        if key == "tag":
            tags.append(value)
        else:
            found[key] = value
    words = search.words_of(_TERM.sub(" ", query))
    from_ms, to_ms = None, None
    if "on" in found:
        from_ms, to_ms = _period(found["on"])
    if "after" in found:
        from_ms = _period(found["after"])[0]
    if "before" in found:
        to_ms = _period(found["before"])[0]
    near = _near(found["near"]) if "near" in found else None
    asked = Asked(tuple(words), tuple(tags), found.get("from", ""), from_ms, to_ms, near)
    if asked == Asked(()):
        raise InvalidRequest("a query needs a word, a #tag, a @user, or before:, after:, on: or near:")
    return asked


def _period(value: str) -> tuple[int, int]:
    """Beginning and end of a year, a month or a day, ms since 1970."""
    parts = value.split("-")
    try:
        numbers = [int(part) for part in parts]
        year, month, day = (*numbers, 1, 1)[:3]
        start = datetime.date(year, month, day)
        if len(numbers) == 1:
            end = datetime.date(year + 1, 1, 1)
        elif len(numbers) == 2:
            end = datetime.date(year + month // 12, month % 12 + 1, 1)
        elif len(numbers) == 3:
            end = start + datetime.timedelta(days=1)
        else:
            raise ValueError
    except (ValueError, OverflowError):
        raise InvalidRequest(f"{value} is no date; write 2024, 2024-07 or 2024-07-31") from None
    epoch = datetime.date(1970, 1, 1)
    return (start - epoch).days * DAY_MS, (end - epoch).days * DAY_MS


def _near(value: str) -> tuple[float, float, float]:
    match = _NEAR.fullmatch(value)
    if match is None:
        raise InvalidRequest("near: takes latitude,longitude or latitude,longitude,km such as near:43.46,11.88,5")
    latitude, longitude, km = float(match[1]), float(match[2]), float(match[3] or DEFAULT_NEAR_KM)
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180 and 0 < km <= 20_000):
        raise InvalidRequest("near: takes degrees north (-90 to 90) and east (-180 to 180), and at most 20,000 km")
    return latitude, longitude, km


def find(connection: Connection, asked: Asked, viewer_id: int | None, after: Position | None, limit: int) -> Found:
    """A page of photos that the viewer may see: the best first when words are asked for, else the newest."""
    found, spelt = _ids(connection, asked, viewer_id), None
    if not found and asked.words:
        spelt = tuple(search.spelt_right(connection, word) or word for word in asked.words)
        if spelt == asked.words:
            spelt = None
        else:
            again = Asked(spelt, asked.tags, asked.owner, asked.from_ms, asked.to_ms, asked.near)
            found = _ids(connection, again, viewer_id)
    start = after.number if after is not None else 0
    wanted = found[start : start + limit]
    rows = connection.execute(photo_query().where(photos.c.id.in_(wanted)))
    by_id = {photo.id: photo for photo in with_tags(connection, [photo_of(row) for row in rows])}
    items = tuple(by_id[photo_id] for photo_id in wanted if photo_id in by_id)
    following = Position(start + limit, 0) if len(found) > start + limit else None
    return Found(Page(items, following), spelt if found else None)


def _ids(connection: Connection, asked: Asked, viewer_id: int | None) -> list[int]:
    condition, values = _condition(asked, viewer_id)
    if asked.words:
        return search.candidates(connection, asked.words, condition, values)
    return search.newest(connection, condition, values)


def _condition(asked: Asked, viewer_id: int | None) -> tuple[str, dict[str, object]]:
    """The filters as SQL of constants, and the values of its parameters."""
    parts = [_PUBLIC if viewer_id is None else _MAY_SEE]
    values: dict[str, object] = {"public": int(Visibility.PUBLIC)}
    if viewer_id is not None:
        values |= {"viewer": viewer_id, "followers": int(Visibility.FOLLOWERS)}
    if asked.owner:
        parts.append("photos.owner_id = (SELECT id FROM users WHERE username = :owner)")
        values["owner"] = asked.owner
    for number, tag in enumerate(asked.tags):
        parts.append(
            "EXISTS (SELECT 1 FROM photo_tags WHERE photo_tags.photo_id = photos.id"  # noqa: S608  # a number
            f" AND photo_tags.tag = :tag{number})"
        )
        values[f"tag{number}"] = tag
    if asked.from_ms is not None:
        parts.append("COALESCE(photos.taken_ms, photos.created_ms) >= :from_ms")
        values["from_ms"] = asked.from_ms
    if asked.to_ms is not None:
        parts.append("COALESCE(photos.taken_ms, photos.created_ms) < :to_ms")
        values["to_ms"] = asked.to_ms
    if asked.near is not None:
        latitude, longitude, km = asked.near
        across = km / _KM_A_DEGREE / max(0.01, math.cos(math.radians(latitude)))
        parts.append("photos.latitude BETWEEN :south AND :north AND photos.longitude BETWEEN :west AND :east")
        values |= {
            "south": latitude - km / _KM_A_DEGREE,
            "north": latitude + km / _KM_A_DEGREE,
            "west": longitude - across,
            "east": longitude + across,
        }
    return " AND ".join(parts), values
