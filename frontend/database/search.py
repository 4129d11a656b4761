"""The index of photos: FTS5 in SQLite, a tsvector in PostgreSQL, with the tokens of :mod:`frontend.database.tokens`.

Both are asked for the newest so many matches and stop there, so that a word of a hundred thousand photos costs as
little as one of three: FTS5 walks its lists from the end; PostgreSQL, whose index has no order, goes through one block
of ids after the other, from the newest on, unless what is asked for is rare.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Select,
    Text,
    cast,
    column,
    func,
    literal_column,
    select,
    table,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, TSQUERY
from sqlalchemy.sql.elements import ColumnElement

from frontend.database import spelling
from frontend.database.engine import is_postgres
from frontend.database.tables import photo_tags, photos, users
from frontend.database.tokens import marks_of, words_of

_FIELDS = ("tags", "title", "owner", "caption", "camera")
_BLOCK_BITS = (13, 15, 17, 19, 21, 23)
"""PostgreSQL's index knows of each photo in which block of 8,192 ids it lies, of 32,768, and so on."""
MAX_BLOCKS = 256
"""Blocks that one search may go through; with more photos they are larger."""
SAME_BLOCKS = 4
"""After so many blocks the next ones may be four times as large: there is little to be found."""
_SMALLER_BLOCKS = 8 * len(_BLOCK_BITS)
"""No more blocks than these come before those of the largest size: so many of each, till the next size begins."""
MOST_OF_BLOCK = 8192
"""Matches that a block may be expected to have: all of them are read, even if the newest few are enough."""
RARE = 500
"""So few matches are asked for at once."""
_BATCH = 2000
_END = 2**63 - 1

_index = table(
    "photo_search",
    column("rowid", BigInteger),
    column("photo_id", BigInteger),
    *(column(field, Text) for field in _FIELDS),
)
"""Its key is ``rowid`` in SQLite and ``photo_id`` in PostgreSQL."""
_document: ColumnElement[Any] = literal_column("photo_search.document")


@dataclass(frozen=True, slots=True)
class Searched:
    """What a photo is found by.

    Parameters
    ----------
    when_ms: when it was taken, or published if that is not known.
    """

    title: str
    caption: str
    tags: tuple[str, ...]
    owner: str
    camera: str
    visibility: int
    when_ms: int
    latitude: float | None
    longitude: float | None


@dataclass(frozen=True, slots=True)
class Match:
    """A photo that was found, with its words by field, for ranking."""

    id: int
    tags: str
    title: str
    owner: str
    caption: str
    camera: str


def put(connection: Connection, photo_id: int, searched: Searched, *, new: bool) -> None:
    """Make a photo findable.

    Parameters
    ----------
    new: it was not before; else it was by other words.
    """
    values = row_of(photo_id, searched, postgres=is_postgres(connection))
    if not new:
        remove(connection, photo_id)
    connection.execute(_PUT_POSTGRES if is_postgres(connection) else _PUT_SQLITE, values)
    spelling.learn(connection, known_words(searched))


def remove(connection: Connection, photo_id: int) -> None:
    """Make a photo unfindable."""
    connection.execute(_REMOVE_POSTGRES if is_postgres(connection) else _REMOVE_SQLITE, {"id": photo_id})


def row_of(photo_id: int, searched: Searched, *, postgres: bool) -> dict[str, object]:
    """What the index keeps of a photo."""
    fields = {
        "tags": " ".join(words_of(" ".join(searched.tags))),
        "title": " ".join(words_of(searched.title)),
        "owner": " ".join(words_of(searched.owner)),
        "caption": " ".join(words_of(searched.caption)),
        "camera": " ".join(words_of(searched.camera)),
    }
    marks = marks_of(
        tags=searched.tags,
        owner=searched.owner,
        visibility=searched.visibility,
        when_ms=searched.when_ms,
        latitude=searched.latitude,
        longitude=searched.longitude,
    )
    row: dict[str, object] = {"id": photo_id, **fields}
    if not postgres:
        return {**row, "marks": " ".join(marks)}
    words = {word for one in fields.values() for word in one.split()}
    blocks = [_block(bits, photo_id) for bits in _BLOCK_BITS]
    return {**row, "document": " ".join(_quoted(token) for token in sorted({*words, *marks, *blocks}))}


def known_words(searched: Searched) -> list[str]:
    """All words that a photo is found by."""
    tags = " ".join(searched.tags)
    return words_of(f"{searched.title} {searched.caption} {tags} {searched.owner} {searched.camera}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What photos to find.

    Parameters
    ----------
    clauses: tokens; a photo has one of each clause.
    conditions: about ``photos``, what tokens leave open.
    most: no more photos than these have all that is asked for, as far as that is known.
    """

    clauses: Sequence[Sequence[str]]
    conditions: Sequence[ColumnElement[bool]]
    most: int


def newest(connection: Connection, wanted: Wanted, before_id: int | None, limit: int) -> list[Match]:
    """The newest photos that are wanted, newest first.

    Parameters
    ----------
    before_id: only photos with smaller ids.
    """
    if not wanted.most or not all(wanted.clauses):
        return []
    if not is_postgres(connection):
        return _matches(connection, _sqlite_query(wanted, before_id, limit))
    connection.execute(_NO_WALK)
    before = before_id if before_id is not None else _END
    blocks = None if wanted.most <= RARE else _blocks_below(connection, before, wanted.most)
    hits = _hits(wanted, before) if blocks is None else _hits_by_blocks(wanted, before, blocks, limit)
    return _matches(connection, _postgres_query(hits, limit))


def _blocks_below(connection: Connection, before: int, most: int) -> list[str] | None:
    """The blocks of all photos below an id; None when there are none, or too many."""
    ids = select(func.min(_index.c.photo_id), func.max(_index.c.photo_id)).where(_index.c.photo_id < before)
    first, last = connection.execute(ids).one()
    return None if first is None else blocks_between(first, last, most)


def blocks_between(first: int, last: int, most: int) -> list[str] | None:
    """Tokens of blocks that have all ids from the last down to the first, in this order; None when they are too many.

    Small ones come first: what is common is found in them. The larger ones behind are as large as they may be when the
    photos that are wanted are about as frequent everywhere.

    Parameters
    ----------
    most: photos that may be wanted among all these.
    """
    ids = last - first + 1
    enough = next((bits for bits in _BLOCK_BITS if ids >> bits <= MAX_BLOCKS - _SMALLER_BLOCKS), None)
    if enough is None:
        return None
    largest = max(1 << enough, MOST_OF_BLOCK * ids // max(1, most))
    found: list[str] = []
    end = ((last >> _BLOCK_BITS[0]) + 1) << _BLOCK_BITS[0]
    while end > first:
        grown = _BLOCK_BITS[: 1 + len(found) // SAME_BLOCKS]
        bits = max(one for one in grown if one == grown[0] or (1 << one <= largest and end % (1 << one) == 0))
        end -= 1 << bits
        found.append(_block(bits, end))
    return found


def complete(connection: Connection) -> int:
    """Make all photos findable when the index is empty, as it is after a change of its shape. How many that were."""
    key = _index.c.photo_id if is_postgres(connection) else _index.c.rowid
    if connection.execute(select(key).limit(1)).first() is not None:
        return 0
    count = 0
    for batch in _all(connection):
        for photo_id, searched in batch:
            put(connection, photo_id, searched, new=True)
        count += len(batch)
    return count


def _all(connection: Connection) -> Iterator[list[tuple[int, Searched]]]:
    last = -1
    while True:
        query = (
            select(photos, users.c.username)
            .join_from(photos, users, users.c.id == photos.c.owner_id)
            .where(photos.c.id > last)
            .order_by(photos.c.id)
            .limit(_BATCH)
        )
        rows = connection.execute(query).all()
        if not rows:
            return
        tags: dict[int, list[str]] = {}
        first, last = rows[0].id, rows[-1].id
        between = select(photo_tags.c.photo_id, photo_tags.c.tag).where(photo_tags.c.photo_id.between(first, last))
        for photo_id, tag in connection.execute(between):
            tags.setdefault(photo_id, []).append(tag)
        yield [(row.id, _searched(row, tags.get(row.id, []))) for row in rows]


def _searched(row: Any, tags: Sequence[str]) -> Searched:
    return Searched(
        title=row.title,
        caption=row.caption,
        tags=tuple(sorted(tags)),
        owner=row.username,
        camera=row.camera,
        visibility=row.visibility,
        when_ms=row.created_ms if row.taken_ms is None else row.taken_ms,
        latitude=row.latitude,
        longitude=row.longitude,
    )


def _matches(connection: Connection, query: Select[Any]) -> list[Match]:
    return [Match(*row) for row in connection.execute(query).all()]


def _sqlite_query(wanted: Wanted, before_id: int | None, limit: int) -> Select[Any]:
    clauses = " AND ".join("(" + " OR ".join(f'"{token}"' for token in clause) + ")" for clause in wanted.clauses)
    key = _index.c.rowid
    query = (
        select(key, *(_index.c[field] for field in _FIELDS))
        .join_from(_index, photos, photos.c.id == key)
        .where(literal_column("photo_search").op("MATCH")(clauses), *wanted.conditions)
        .order_by(key.desc())
        .limit(limit)
    )
    return query if before_id is None else query.where(key < before_id)


def _postgres_query(hits: Select[Any], limit: int) -> Select[Any]:
    seen = hits.limit(limit).subquery("seen")
    return (
        select(_index.c.photo_id, *(_index.c[field] for field in _FIELDS))
        .join_from(seen, _index, _index.c.photo_id == seen.c.photo_id)
        .order_by(_index.c.photo_id.desc())
    )


def _hits(wanted: Wanted, before_id: int, *more: ColumnElement[bool]) -> Select[Any]:
    found = _newest(wanted, before_id, *more).subquery("found")
    return (
        select(found.c.photo_id)
        .join_from(found, photos, photos.c.id == found.c.photo_id)
        .where(*wanted.conditions)
        .order_by(found.c.photo_id.desc())
    )


def _hits_by_blocks(wanted: Wanted, before_id: int, tokens: Sequence[str], limit: int) -> Select[Any]:
    """One block after the other, until there are as many as the one who reads them wants."""
    asked = [_quoted(token) for token in tokens]
    blocks = func.unnest(cast(asked, ARRAY(Text))).table_valued("token").render_derived("blocks")
    # As a literal, which no subquery between here and there takes for a table of its own.
    of_block = _document.op("@@")(cast(literal_column("blocks.token"), TSQUERY))
    hits = _hits(wanted, before_id, of_block).limit(limit).lateral("hits")
    return select(hits.c.photo_id).select_from(blocks).join(hits, true())


def _newest(wanted: Wanted, before_id: int, *more: ColumnElement[bool]) -> Select[Any]:
    """What the index finds, newest first.

    OFFSET keeps the planner from walking all photos from the newest on in the hope of finding enough soon, and from
    looking at the records of all that was found when those of the newest are enough.
    """
    return (
        select(_index.c.photo_id)
        .where(*_tokens(wanted, before_id), *more)
        .order_by(_index.c.photo_id.desc())
        .offset(literal_column("0"))
    )


def _tokens(wanted: Wanted, before_id: int) -> list[ColumnElement[bool]]:
    # Each clause by itself: with one query of all, the index reads the shortest list to its end.
    matches = [_document.op("@@")(cast(_tsquery(clause), TSQUERY)) for clause in wanted.clauses]
    return [*matches, _index.c.photo_id < before_id]


def _block(bits: int, photo_id: int) -> str:
    return f":b{bits}_{photo_id >> bits}"


def _tsquery(clause: Sequence[str]) -> str:
    return " | ".join(map(_quoted, clause))


def _quoted(token: str) -> str:
    return f"'{token}'"


_PUT_SQLITE = text(
    "INSERT INTO photo_search (rowid, tags, title, owner, caption, camera, marks)"
    " VALUES (:id, :tags, :title, :owner, :caption, :camera, :marks)"
)
_PUT_POSTGRES = text(
    "INSERT INTO photo_search (photo_id, tags, title, owner, caption, camera, document)"
    " VALUES (:id, :tags, :title, :owner, :caption, :camera, CAST(:document AS tsvector))"
)
_REMOVE_SQLITE = text("DELETE FROM photo_search WHERE rowid = :id")
_REMOVE_POSTGRES = text("DELETE FROM photo_search WHERE photo_id = :id")
_NO_WALK = text("SET LOCAL enable_seqscan = off")
"""Its estimates of how many photos have a word are far off at times."""
