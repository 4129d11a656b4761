"""The words that photos are found by: which of them begin with one that is asked for, and which look like it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, select, text

from frontend.database.sets import one_of
from frontend.database.tables import search_words

MAX_FORMS = 16
"""Words that one beginning stands for, those of the most photos."""
LEAST_MISSPELT = 4
"""Characters of a word for which another spelling is looked for."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_LAST = "\U0010ffff"

_COUNT = text(
    "INSERT INTO search_words (word, photos) VALUES (:word, 1)"
    " ON CONFLICT (word) DO UPDATE SET photos = search_words.photos + 1"
)


@dataclass(frozen=True, slots=True)
class Forms:
    """What a word stands for.

    Parameters
    ----------
    words: itself, then those that begin with it, of the most photos first.
    most: no more photos have one of them.
    """

    words: tuple[str, ...]
    most: int


def learn(connection: Connection, words: Iterable[str]) -> None:
    """Count a photo for each of the words that it is found by. One that was changed is counted once more."""
    # In one order, so that two who publish at the same moment do not wait for each other for ever.
    rows = [{"word": word} for word in sorted(set(words))]
    if rows:
        connection.execute(_COUNT, rows)


def forms_of(connection: Connection, word: str) -> Forms:
    """The word and those that begin with it.

    One ASCII letter stands for itself: a tenth of all words begin with it.
    """
    alone = len(word) < 2 and word.isascii()
    wanted = search_words.c.word == word if alone else search_words.c.word.between(word, word + _LAST)
    query = (
        select(search_words.c.word, search_words.c.photos)
        .where(wanted)
        # Itself before those that begin with it.
        .order_by(search_words.c.word != word, search_words.c.photos.desc(), search_words.c.word)
        .limit(MAX_FORMS)
    )
    rows = connection.execute(query).all()
    longer = [str(row.word) for row in rows if row.word != word]
    return Forms((word, *longer), sum(row.photos for row in rows))


def spelt_right(connection: Connection, word: str) -> str | None:
    """The known word of the most photos that is one slip away from one that nothing is found by.

    A slip is a letter too much, one too few, another one, or two in the wrong order.
    """
    if len(word) < LEAST_MISSPELT:
        return None
    query = (
        select(search_words.c.word)
        .where(one_of(connection, search_words.c.word, sorted(slips(word))))
        .order_by(search_words.c.photos.desc(), search_words.c.word)
        .limit(1)
    )
    found = connection.execute(query).scalar_one_or_none()
    return None if found is None else str(found)


def slips(word: str) -> set[str]:
    """All words that are one slip away from this one: some hundreds."""
    letters = sorted({*_LETTERS, *word})
    found: set[str] = set()
    for at in range(len(word) + 1):
        before, behind = word[:at], word[at:]
        found.update(before + letter + behind for letter in letters)
        if behind:
            found.add(before + behind[1:])
            found.update(before + letter + behind[1:] for letter in letters)
        if len(behind) > 1:
            found.add(before + behind[1] + behind[0] + behind[2:])
    return found - {word}
