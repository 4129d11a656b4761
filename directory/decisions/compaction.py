"""Which volumes are compacted by themselves, and when. Pure.

Invariants, which the tests state as properties:

- nothing begins while as much is under way as the limit says; one volume is one compaction, with all its copies, so two
  copies of a volume are never compacted by two orders at once;
- nothing begins that something stands in the way of: no head-room, a copy that is not in sync, a Store that is silent;
- nothing begins before the Store was asked what is to be won: photos in the trash are garbage that nobody may drop yet;
- of what may begin, that comes first which wins most for what is read and written.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from haystack.units import MIB, format_duration, format_size

LEAST_GAIN_BYTES = 1 * MIB
"""A volume with less to win is left alone, whatever its share: the work would be all in beginning and ending."""


@dataclass(frozen=True, slots=True)
class CompactionRules:
    """What the operator has set.

    Parameters
    ----------
    garbage_share: part of a volume that must be winnable; 0: nothing is compacted by itself.
    at_once: volumes that may be compacted at the same time.
    """

    garbage_share: float
    at_once: int = 1


@dataclass(frozen=True, slots=True)
class Candidate:
    """A volume as the Directory sees it.

    Parameters
    ----------
    size_bytes: of one copy. garbage_bytes: of it, deleted, superseded and expired, the trash included.
    winnable_bytes: what its Store says that a compaction would win; None when it was not asked lately.
    obstacle: why it cannot be compacted now, in words; or nothing.
    rest_seconds: for how long it is still left alone after the last time; 0 for not at all.
    """

    volume: int
    size_bytes: int
    garbage_bytes: int
    winnable_bytes: int | None = None
    obstacle: str = ""
    rest_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Choice:
    """What to do now.

    Parameters
    ----------
    start: volumes to compact.
    ask: volumes whose Stores are to be asked what is to be won, the most promising first.
    waiting: why others that have enough garbage are left, in words.
    """

    start: tuple[int, ...] = ()
    ask: tuple[int, ...] = ()
    waiting: tuple[tuple[int, str], ...] = ()


def choose(candidates: Iterable[Candidate], under_way: int, rules: CompactionRules) -> Choice:
    """Return what to do.

    Parameters
    ----------
    under_way: volumes that are being compacted.
    """
    if not rules.garbage_share:
        return Choice()
    worthwhile = sorted((one for one in candidates if _is_worthwhile(one, rules)), key=_merit, reverse=True)
    ready = [one.volume for one in worthwhile if not _reason(one) and one.winnable_bytes is not None]
    ask = [one.volume for one in worthwhile if not _reason(one) and one.winnable_bytes is None]
    hands = max(0, rules.at_once - under_way)
    waiting = [(one.volume, reason) for one in worthwhile if (reason := _reason(one))]
    waiting += [(volume, "others are compacted first") for volume in ready[hands:]]
    return Choice(tuple(ready[:hands]), tuple(ask), tuple(waiting))


def outlook(one: Candidate, rules: CompactionRules, *, at_work: bool, under_way: int) -> str:
    """Return in words when a volume will be compacted by itself, or why it will not.

    Parameters
    ----------
    at_work: it is being compacted, or waits for its turn. under_way: volumes that are.
    """
    if at_work:
        return "being compacted"
    if not rules.garbage_share:
        return "never by itself: compact_garbage_share is 0"
    if not _is_worthwhile(one, rules):
        return _too_little(one, rules)
    if reason := _reason(one):
        return f"not now: {reason}"
    if under_way >= rules.at_once:
        return "next, when others are done"
    return "within a minute" if one.winnable_bytes is not None else "as soon as its Store has said what it would win"


def _too_little(one: Candidate, rules: CompactionRules) -> str:
    gain_bytes = _gain_bytes(one)
    share = gain_bytes / max(1, one.size_bytes)
    text = f"when {rules.garbage_share:.0%} can be won, now {share:.0%}"
    if share >= rules.garbage_share:
        text = f"when {format_size(LEAST_GAIN_BYTES)} can be won"
    in_trash_bytes = one.garbage_bytes - gain_bytes
    return f"{text}; {format_size(in_trash_bytes)} are in the trash or held" if in_trash_bytes > 0 else text


def _is_worthwhile(one: Candidate, rules: CompactionRules) -> bool:
    gain_bytes = _gain_bytes(one)
    return gain_bytes >= LEAST_GAIN_BYTES and gain_bytes >= rules.garbage_share * one.size_bytes


def _gain_bytes(one: Candidate) -> int:
    """What is won, at most, as far as it is known."""
    return one.garbage_bytes if one.winnable_bytes is None else one.winnable_bytes


def _merit(one: Candidate) -> tuple[float, int]:
    """Bytes won for each byte that is read and written: everything is read, what stays is written."""
    gain_bytes = min(_gain_bytes(one), one.size_bytes)
    return gain_bytes / max(1, 2 * one.size_bytes - gain_bytes), -one.volume


def _reason(one: Candidate) -> str:
    if one.obstacle:
        return one.obstacle
    return f"it was compacted lately; again in {format_duration(one.rest_seconds)}" if one.rest_seconds > 0 else ""


def in_words(choice: Choice, under_way: int, winnable_bytes: int) -> str:
    """Return one line for people; nothing when there is nothing to say."""
    parts = []
    if under_way:
        parts.append(f"{under_way} {'volume is' if under_way == 1 else 'volumes are'} being compacted")
    if choice.waiting:
        first, reason = choice.waiting[0]
        more = f" and {len(choice.waiting) - 1} more" if len(choice.waiting) > 1 else ""
        parts.append(f"{format_size(winnable_bytes)} of garbage wait to be compacted: volume {first} ({reason}){more}")
    return "; ".join(parts)
