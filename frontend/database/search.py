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
    literal,
    literal_column,
    select,
    table,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import TSQUERY
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
RARE = 2000
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
    bits = None if wanted.most <= RARE else _block_bits(connection, before)
    if bits is None:
        return _matches(connection, _postgres_query(_hits(wanted, before), limit))
    return _matches(connection, _postgres_query(_hits_by_blocks(wanted, before, *bits), limit))


def _block_bits(connection: Connection, before: int) -> tuple[int, int, int] | None:
    """The smallest blocks of which there are not too many, and the first and the last of them below an id."""
    ids = select(func.min(_index.c.photo_id), func.max(_index.c.photo_id)).where(_index.c.photo_id < before)
    first, last = connection.execute(ids).one()
    if first is None:
        return None
    sizes = ((bits, first >> bits, last >> bits) for bits in _BLOCK_BITS)
    return next((one for one in sizes if one[2] - one[1] < MAX_BLOCKS), None)


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


def _hits(wanted: Wanted, before_id: int) -> Select[Any]:
    # OFFSET keeps the planner from walking all photos from the newest on in the hope of finding enough soon.
    found = select(_index.c.photo_id).where(*_tokens(wanted, before_id)).offset(0).subquery("found")
    return (
        select(found.c.photo_id)
        .join_from(found, photos, photos.c.id == found.c.photo_id)
        .where(*wanted.conditions)
        .order_by(found.c.photo_id.desc())
    )


def _hits_by_blocks(wanted: Wanted, before_id: int, bits: int, first: int, last: int) -> Select[Any]:
    """One block after the other, until there are as many as the one who reads them wants."""
    blocks = func.generate_series(last, first, -1).table_valued("number", name="blocks").render_derived()
    block = literal(f"':b{bits}_").op("||")(cast(blocks.c.number, Text)).op("||")("'")
    hits = (
        select(_index.c.photo_id)
        .join_from(_index, photos, photos.c.id == _index.c.photo_id)
        .where(*_tokens(wanted, before_id), _document.op("@@")(cast(block, TSQUERY)), *wanted.conditions)
        .order_by(_index.c.photo_id.desc())
        .lateral("hits")
    )
    return select(hits.c.photo_id).select_from(blocks).join(hits, true())


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
