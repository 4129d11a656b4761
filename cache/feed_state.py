"""What a Cache may vouch for, from what the Directory's feed has told it. Pure: no I/O, and time is an argument.

A photo that is here may be given out without a question as long as its delete would have been heard of. That is so when

1. the last answer of the feed *began* less than :data:`FRESH_SECONDS` ago (it was made later than it began);
2. that answer did not name the photo's volume as doubtful: the Directory had the word of the volume's primary, no older
   than half a second, that everything it had acknowledged was in the feed;
3. the photo was read from a Store after the *horizon*: nothing of the feed is missing since then.

So a photo whose delete was acknowledged is not vouched for a second later. See docs/cache.md.

All times are seconds of one clock that goes on while the machine sleeps (:mod:`cache.clock`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from haystack.errors import HaystackError

NEVER = float("-inf")

FRESH_SECONDS = 0.5
"""Age of an answer's beginning above which nothing is vouched for."""

MAX_HORIZONS = 4096
"""Volumes with a horizon of their own. When there are more, the horizon of all is raised: that only costs questions."""

DELETED, REPLACED, UNSURE, LOCATIONS = "deleted", "replaced", "unsure", "locations"


class FeedAnswerInvalid(HaystackError):
    """A Directory's answer is not what docs/cache.md says."""

    http_status = 502


@dataclass(frozen=True, slots=True)
class Change:
    """Something that a Cache has to take back.

    Parameters
    ----------
    key: of the photo; None: it is about the whole volume.
    alternate: the rendition; None: it is about all of them.
    kind: DELETED: it is gone. REPLACED: other bytes are under its name. UNSURE: what came out of this volume has to be
        asked for again. LOCATIONS: other Stores have the volume now. A kind that is not known means UNSURE or worse.
    """

    volume: int
    key: int | None
    alternate: int | None
    kind: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the feed.

    Parameters
    ----------
    sequence: number of the last change that is known now.
    complete: nothing is missing between the answer before and this one.
    more: the answer was cut.
    doubtful: volumes of which deletes may be missing; None: all.
    """

    incarnation: str
    sequence: int
    changes: tuple[Change, ...]
    complete: bool
    more: bool
    doubtful: frozenset[int] | None


def parse_answer(document: Any) -> Answer:
    """Read an answer of the feed. Raises FeedAnswerInvalid."""
    try:
        doubtful = document["doubtful"]
        answer = Answer(
            incarnation=document["incarnation"],
            sequence=document["sequence"],
            changes=tuple(
                Change(volume, None if key is None else int(key, 16), alternate, kind)
                for volume, key, alternate, kind in document["changes"]
            ),
            complete=document["complete"],
            more=document["more"],
            doubtful=None if doubtful is None else frozenset(doubtful),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FeedAnswerInvalid(f"the feed's answer is strange: {type(error).__name__} {error}") from error
    if (
        type(answer.incarnation) is not str
        or type(answer.sequence) is not int
        or type(answer.complete) is not bool
        or type(answer.more) is not bool
        or not all(type(change.volume) is int for change in answer.changes)
        or not all(type(volume) is int for volume in answer.doubtful or ())
    ):
        raise FeedAnswerInvalid("the feed's answer has fields of a wrong type")
    return answer


class Vouching:
    """What may be vouched for. Everything in it is to be read, and changed by :meth:`took` alone.

    Attributes
    ----------
    fresh_until: before this moment the last answer holds.
    horizon: what was read from a Store before has to be asked for again.
    horizons: the same of single volumes.
    doubtful: volumes of which nothing is vouched for; None: all.
    version: rises when one of the last three changes.
    incarnation, sequence: where the next question goes on.
    """

    def __init__(self) -> None:
        self.fresh_until = NEVER
        self.horizon = float("inf")
        self.horizons: dict[int, float] = {}
        self.doubtful: frozenset[int] | None = None
        self.version = 0
        self.incarnation = ""
        self.sequence = 0

    def took(self, answer: Answer, began: float, now: float) -> None:
        """An answer has come, and all its changes have been carried out.

        Parameters
        ----------
        began: when the question was sent.
        now: when the answer was here. Whoever read from a Store before cannot know of what an answer that is not
            complete has left out.
        """
        version = (self.horizon, dict(self.horizons), self.doubtful)
        if not answer.complete:
            self.horizon = now
            self.horizons.clear()
        for change in answer.changes:
            if change.key is None and change.kind != LOCATIONS:
                self.horizons[change.volume] = now
        if len(self.horizons) > MAX_HORIZONS:
            self.horizon = now
            self.horizons.clear()
        self.doubtful = answer.doubtful
        self.incarnation, self.sequence = answer.incarnation, answer.sequence
        if not answer.more:
            self.fresh_until = max(self.fresh_until, began + FRESH_SECONDS)
        if version != (self.horizon, self.horizons, self.doubtful):
            self.version += 1

    def vouches(self, volume: int, verified: float, now: float) -> bool:
        """Say whether a photo may be given out without asking a Store.

        Parameters
        ----------
        verified: when the question to a Store began that showed last that the photo is there.
        """
        return (
            now < self.fresh_until
            and verified >= self.horizon
            and self.doubtful is not None
            and volume not in self.doubtful
            and verified >= self.horizons.get(volume, NEVER)
        )


def status(vouching: Vouching, now: float) -> Mapping[str, object]:
    """Return for people how far a Cache may vouch for what it has."""
    doubtful = vouching.doubtful
    return {
        "incarnation": vouching.incarnation,
        "sequence": vouching.sequence,
        "fresh": now < vouching.fresh_until,
        "behindSeconds": None
        if vouching.fresh_until == NEVER
        else round(now - vouching.fresh_until + FRESH_SECONDS, 3),
        "doubtfulVolumes": None if doubtful is None else len(doubtful),
    }
