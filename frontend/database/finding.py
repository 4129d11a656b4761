"""Searching for photos: what a query asks for, and the photos that answer it."""

from __future__ import annotations

import datetime
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import ColumnElement, Connection, or_

from frontend.database import people, search, spelling
from frontend.database.access import may_see
from frontend.database.paging import Page, Position
from frontend.database.photos import Photo, in_order
from frontend.database.search import Match, Wanted
from frontend.database.spelling import Forms
from frontend.database.tables import photos
from frontend.database.tokens import (
    MAX_WORDS,
    Near,
    box_around,
    near_marks,
    owner_mark,
    period_marks,
    tag_mark,
    visibility_mark,
    words_of,
)
from frontend.visibility import Visibility
from haystack.errors import InvalidRequest

MAX_QUERY = 200
RANKED = 200
"""Matches among which the best are shown first."""
DAY_MS = 86_400_000
_TERM = re.compile(r"(?P<key>tag|from|before|after|on|near):(?P<value>\S+)|(?P<mark>[#@])(?P<name>\w+)", re.IGNORECASE)
_NEAR = re.compile(r"(-?\d+(?:\.\d+)?),(-?\d+(?:\.\d+)?)(?:,(\d+(?:\.\d+)?))?")
_NAME = re.compile(r"\w{1,50}")
_WEIGHTS = (("tags", 8.0), ("title", 6.0), ("owner", 4.0), ("caption", 2.0), ("camera", 1.0))
"""The weightiest first."""
_BEGUN = 0.7
"""Of a word that only begins as the one that is asked for."""
_END = 2**63 - 1
DEFAULT_NEAR_KM = 10.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What a query asks for.

    Parameters
    ----------
    words: all of them, each a word or the beginning of one.
    tags: all of them.
    owner: user name; "" for anybody.
    from_ms, to_ms: when it was taken (published, where that is not known), from and before; midnights.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...] = ()
    owner: str = ""
    from_ms: int | None = None
    to_ms: int | None = None
    near: Near | None = None


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
        value = unicodedata.normalize("NFC", (match["value"] or match["name"]).lower())
        if key == "tag":
            tags.append(value)
        else:
            found[key] = value
    words = words_of(_TERM.sub(" ", query))[:MAX_WORDS]
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


def _near(value: str) -> Near:
    match = _NEAR.fullmatch(value)
    if match is None:
        raise InvalidRequest("near: takes latitude,longitude or latitude,longitude,km such as near:43.46,11.88,5")
    latitude, longitude, km = float(match[1]), float(match[2]), float(match[3] or DEFAULT_NEAR_KM)
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180 and 0 < km <= 20_000):
        raise InvalidRequest("near: takes degrees north (-90 to 90) and east (-180 to 180), and at most 20,000 km")
    return Near(latitude, longitude, km)


def find(connection: Connection, asked: Asked, viewer_id: int | None, after: Position | None, limit: int) -> Found:
    """A page of photos that the viewer may see: the best first when words are asked for, else the newest.

    Words are ranked among the newest ``RANKED`` matches, then among the next so many: the best of those of three years
    ago is what nobody looks for, and among a million photos a common word has a hundred thousand.
    """
    found, spelt = _page(connection, asked, viewer_id, after, limit), None
    if not found.items and asked.words and after is None:
        spelt = tuple(spelling.spelt_right(connection, word) or word for word in asked.words)
        if spelt != asked.words:
            found = _page(connection, replace(asked, words=spelt), viewer_id, after, limit)
    return Found(found, spelt if found.items and spelt != asked.words else None)


def _page(
    connection: Connection, asked: Asked, viewer_id: int | None, after: Position | None, limit: int
) -> Page[Photo]:
    """A page. Its position: how many of a window of matches were shown, and the id that the window lies below."""
    start = after or Position(0, _END)
    forms = [spelling.forms_of(connection, word) for word in asked.words]
    before = None if start.id == _END else start.id
    count = RANKED if asked.words else start.number + limit + 1
    matches = search.newest(connection, _wanted(connection, asked, forms, viewer_id), before, count)
    ranked = _ranked(matches, forms)
    ids = [match.id for match in ranked[start.number : start.number + limit]]
    following = None
    if len(ranked) > start.number + limit:
        following = Position(start.number + limit, start.id) if asked.words else Position(0, ids[-1])
    elif len(matches) == RANKED and asked.words:
        following = Position(0, matches[-1].id)
    return Page(tuple(in_order(connection, ids)), following)


def _ranked(matches: list[Match], forms: Sequence[Forms]) -> list[Match]:
    """The matches, those with the words in the weightier fields first, else the newest."""
    if not forms:
        return matches
    begun = [frozenset(one.words[1:]) for one in forms]
    whole = [one.words[0] for one in forms]
    return sorted(matches, key=lambda match: (-_score(match, whole, begun), -match.id))


def _score(match: Match, whole: Sequence[str], begun: Sequence[frozenset[str]]) -> float:
    fields = [(weight, getattr(match, name).split()) for name, weight in _WEIGHTS]
    score = 0.0
    for word, longer in zip(whole, begun, strict=True):
        exact = next((weight for weight, words in fields if word in words), 0.0)
        by_longer = next((weight for weight, words in fields if not longer.isdisjoint(words)), 0.0) if longer else 0.0
        score += max(exact, _BEGUN * by_longer)
    return score


def _wanted(connection: Connection, asked: Asked, forms: Sequence[Forms], viewer_id: int | None) -> Wanted:
    most = min((one.most for one in forms), default=_END)
    clauses: list[Sequence[str]] = [one.words for one in forms]
    clauses += [[tag_mark(tag)] if _NAME.fullmatch(tag) else [] for tag in asked.tags]
    if asked.owner:
        owner = people.by_username(connection, asked.owner)
        clauses.append([] if owner is None else [owner_mark(owner.username)])
        most = min(most, 0 if owner is None else owner.photo_count)
    if asked.from_ms is not None or asked.to_ms is not None:
        clauses.append(period_marks(asked.from_ms, asked.to_ms))
    if asked.near is not None:
        cells = near_marks(box_around(asked.near))
        clauses += [cells] if cells else []
    clauses.append(_seen_by(connection, viewer_id))
    return Wanted(clauses, [may_see(viewer_id), *_conditions(asked)], most)


def _seen_by(connection: Connection, viewer_id: int | None) -> list[str]:
    """Tokens of which every photo that the viewer may see has one; :func:`may_see` says which of those he may."""
    seen = [visibility_mark(Visibility.PUBLIC)]
    viewer = None if viewer_id is None else people.by_id(connection, viewer_id)
    if viewer is not None:
        seen += [visibility_mark(Visibility.FOLLOWERS), owner_mark(viewer.username)]
    return seen


def _conditions(asked: Asked) -> list[ColumnElement[bool]]:
    """What tokens say too coarsely."""
    if asked.near is None:
        return []
    box, longitude = box_around(asked.near), photos.c.longitude
    east_and_west: ColumnElement[bool] = longitude.between(box.west, box.east)
    if box.west > box.east:
        east_and_west = or_(longitude >= box.west, longitude <= box.east)
    return [photos.c.latitude.between(box.south, box.north), east_and_west]
