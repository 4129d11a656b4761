"""Pages by keyset: a page begins behind the last row of the one before, however many rows came or went meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Select, tuple_

Item = TypeVar("Item")

MAX_PAGE = 100


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page begins: behind the row with this number (mostly a time in ms) and this id."""

    number: int
    id: int


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Some items, and where the next page begins; None when there is none."""

    items: tuple[Item, ...]
    next: Position | None


def newest_first(
    query: Select[Any], number: ColumnElement[int], id_: ColumnElement[int], after: Position | None, limit: int
) -> Select[Any]:
    """The query in falling order of ``number`` and ``id_``, from behind ``after``; one row more than ``limit``."""
    if after is not None:
        query = query.where(tuple_(number, id_) < tuple_(after.number, after.id))
    return query.order_by(number.desc(), id_.desc()).limit(limit + 1)


def oldest_first(
    query: Select[Any], number: ColumnElement[int], id_: ColumnElement[int], after: Position | None, limit: int
) -> Select[Any]:
    """As :func:`newest_first`, the other way round."""
    if after is not None:
        query = query.where(tuple_(number, id_) > tuple_(after.number, after.id))
    return query.order_by(number, id_).limit(limit + 1)


def page_of(
    rows: Sequence[Any],
    limit: int,
    item: Callable[[Any], Item],
    position: Callable[[Any], Position],
) -> Page[Item]:
    """A page of rows that were asked for with one more than ``limit``."""
    shown = rows[:limit]
    return Page(tuple(map(item, shown)), position(shown[-1]) if len(rows) > limit else None)
