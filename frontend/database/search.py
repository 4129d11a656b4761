"""The words of photos and how they are found: FTS5 in SQLite, a tsvector in PostgreSQL.

A search ranks the newest ``CANDIDATES`` matches: among a million photos a common word has a hundred thousand, and the
best of those of three years ago is what nobody looks for. Filters (owner, tag, dates, place) are applied before.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.sql.elements import TextClause

from frontend.database.engine import is_postgres

CANDIDATES = 2_000
MAX_WORDS = 8
"""Words of one query that count."""
_MAX_WORD = 40
_SIMILAR = 500
"""Known words that a misspelt one is compared with."""
_WORD = re.compile(r"\w+")
_SQLITE_WEIGHTS = "6.0, 2.0, 8.0, 4.0, 1.0"
"""Of title, caption, tags, owner and camera."""


@dataclass(frozen=True, slots=True)
class Searched:
    """The texts under which a photo is found."""

    title: str
    caption: str
    tags: str
    owner: str
    camera: str


def words_of(some_text: str) -> list[str]:
    """The words of a text, in lower case, without repetitions."""
    return list(dict.fromkeys(word[:_MAX_WORD] for word in _WORD.findall(some_text.lower().replace("_", " "))))


def put(connection: Connection, photo_id: int, searched: Searched) -> None:
    """Make a photo findable, or findable by other words than before."""
    values = {
        "id": photo_id,
        "title": searched.title,
        "caption": searched.caption,
        "tags": searched.tags,
        "owner": searched.owner,
        "camera": searched.camera,
    }
    for statement in _PUT_POSTGRES if is_postgres(connection) else _PUT_SQLITE:
        connection.execute(statement, values)
    known = words_of(f"{searched.title} {searched.caption} {searched.tags} {searched.owner}")
    words = [{"word": word} for word in sorted(known) if len(word) > 2]
    if words:
        connection.execute(text("INSERT INTO search_words (word) VALUES (:word) ON CONFLICT DO NOTHING"), words)


def remove(connection: Connection, photo_id: int) -> None:
    """Make a photo unfindable."""
    statement = "DELETE FROM photo_search WHERE photo_id = :id"
    if not is_postgres(connection):
        statement = "DELETE FROM photo_search WHERE rowid = :id"
    connection.execute(text(statement), {"id": photo_id})


def candidates(connection: Connection, words: Sequence[str], condition: str, values: dict[str, object]) -> list[int]:
    """Ids of the photos that have all words, each as the beginning of one of theirs; best first.

    Parameters
    ----------
    words: from :func:`words_of`; not empty.
    condition: SQL about ``photos``, with the names of ``values`` as parameters.
    """
    match_words = _match_postgres(words) if is_postgres(connection) else _match_sqlite(words)
    statement = (_FIND_POSTGRES if is_postgres(connection) else _FIND_SQLITE).replace("{condition}", condition)
    bound = {**values, "words": match_words, "candidates": CANDIDATES}
    return [int(row[0]) for row in connection.execute(text(statement), bound)]


def newest(connection: Connection, condition: str, values: dict[str, object]) -> list[int]:
    """Ids of the newest photos for which the condition holds, as for :func:`candidates`."""
    order = "ORDER BY photos.id DESC LIMIT :candidates"
    statement = f"SELECT photos.id FROM photos WHERE {condition} {order}"  # noqa: S608  # of constants, as above
    return [int(row[0]) for row in connection.execute(text(statement), {**values, "candidates": CANDIDATES})]


def spelt_right(connection: Connection, word: str) -> str | None:
    """A known word that looks much like one that nothing is found by; None when there is none."""
    if len(word) < 4:
        return None
    rows = connection.execute(
        _LIKE_WORDS, {"low": word[0], "high": word[0] + "\uffff", "short": len(word) - 1, "long": len(word) + 1}
    )
    close = difflib.get_close_matches(word, [str(row[0]) for row in rows if row[0] != word], n=1, cutoff=0.75)
    return close[0] if close else None


def _match_sqlite(words: Sequence[str]) -> str:
    return " AND ".join(f'"{word}"*' for word in words[:MAX_WORDS])


def _match_postgres(words: Sequence[str]) -> str:
    return " & ".join(f"{word}:*" for word in words[:MAX_WORDS])


def _statements(*statements: str) -> tuple[TextClause, ...]:
    return tuple(text(statement) for statement in statements)


_PUT_SQLITE = _statements(
    "DELETE FROM photo_search WHERE rowid = :id",
    "INSERT INTO photo_search (rowid, title, caption, tags, owner, camera)"
    " VALUES (:id, :title, :caption, :tags, :owner, :camera)",
)
_DOCUMENT = (
    "setweight(to_tsvector('simple', :tags), 'A') || setweight(to_tsvector('simple', :title), 'A')"
    " || setweight(to_tsvector('simple', :owner), 'B') || setweight(to_tsvector('simple', :caption), 'C')"
    " || setweight(to_tsvector('simple', :camera), 'D')"
)
_PUT_POSTGRES = _statements(
    f"INSERT INTO photo_search (photo_id, document) VALUES (:id, {_DOCUMENT})"  # noqa: S608  # constants alone
    " ON CONFLICT (photo_id) DO UPDATE SET document = excluded.document",
)
_FIND_SQLITE = f"""
SELECT id FROM (
    SELECT photos.id AS id, bm25(photo_search, {_SQLITE_WEIGHTS}) AS cost
    FROM photo_search JOIN photos ON photos.id = photo_search.rowid
    WHERE photo_search MATCH :words AND {{condition}}
    ORDER BY photo_search.rowid DESC LIMIT :candidates
) AS found ORDER BY cost, id DESC
"""  # noqa: S608  # the condition is built of constants, by frontend.database.finding
_FIND_POSTGRES = """
SELECT id FROM (
    SELECT photos.id AS id, photo_search.document AS document
    FROM photo_search JOIN photos ON photos.id = photo_search.photo_id
    WHERE photo_search.document @@ to_tsquery('simple', :words) AND {condition}
    ORDER BY photo_search.photo_id DESC LIMIT :candidates
) AS found ORDER BY ts_rank(document, to_tsquery('simple', :words)) DESC, id DESC
"""
_LIKE_WORDS = text(
    "SELECT word FROM search_words WHERE word >= :low AND word < :high AND length(word) BETWEEN :short AND :long"
    " ORDER BY word LIMIT :most"
).bindparams(bindparam("most", _SIMILAR))
