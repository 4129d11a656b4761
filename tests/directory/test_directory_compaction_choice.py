"""Which volumes are compacted by themselves: the decision alone, by examples and as properties."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from directory.decisions.compaction import (
    LEAST_GAIN_BYTES,
    Candidate,
    Choice,
    CompactionRules,
    choose,
    in_words,
    outlook,
)
from directory.decisions.failure import rolled_back
from directory.storage.tables import VolumeRecord
from haystack.units import GIB, MIB

RULES = CompactionRules(0.3)


def candidate(
    volume: int = 1, *, garbage: int = 500 * MIB, winnable: int | None = 500 * MIB, **more: object
) -> Candidate:
    return replace(Candidate(volume, GIB, garbage, winnable), **more)  # type: ignore[arg-type]  # fields by name


def test_what_has_enough_garbage_is_asked_about_then_compacted() -> None:
    assert choose([candidate(winnable=None)], 0, RULES) == Choice(ask=(1,))
    assert choose([candidate()], 0, RULES) == Choice(start=(1,))
    assert choose([candidate(winnable=100 * MIB)], 0, RULES) == Choice(), "the rest is in the trash"
    assert choose([candidate(garbage=100 * MIB, winnable=None)], 0, RULES) == Choice()


def test_none_when_it_is_off_or_small() -> None:
    assert choose([candidate()], 0, CompactionRules(0)) == Choice()
    small = Candidate(1, LEAST_GAIN_BYTES, LEAST_GAIN_BYTES - 1, LEAST_GAIN_BYTES - 1)
    assert choose([small], 0, RULES) == Choice()


def test_most_gain_for_least_io_comes_first() -> None:
    half = candidate(1, garbage=GIB // 2, winnable=GIB // 2)
    most_of_a_small_one = Candidate(2, 100 * MIB, 90 * MIB, 90 * MIB)
    assert choose([half, most_of_a_small_one], 0, RULES).start == (2,)
    assert choose([half, most_of_a_small_one], 0, CompactionRules(0.3, at_once=2)).start == (2, 1)


def test_what_is_in_the_way_is_told() -> None:
    blocked, resting = candidate(1, obstacle="no room"), candidate(2, rest_seconds=60.0)
    choice = choose([blocked, resting, candidate(3), candidate(4)], 0, RULES)
    assert choice.start == (3,)
    reasons = dict(choice.waiting)
    assert reasons[1] == "no room" and "lately" in reasons[2] and "first" in reasons[4]
    assert in_words(choice, 1, GIB).startswith("1 volume is being compacted; 1.00 GiB of garbage wait")
    assert in_words(Choice(), 0, 0) == ""


def when(one: Candidate, rules: CompactionRules = RULES, *, at_work: bool = False, under_way: int = 0) -> str:
    return outlook(one, rules, at_work=at_work, under_way=under_way)


def test_each_volume_has_an_outlook() -> None:
    assert when(candidate()) == "within a minute"
    assert when(candidate(winnable=None)) == "as soon as its Store has said what it would win"
    assert when(candidate(), under_way=1) == "next, when others are done"
    assert when(candidate(), at_work=True, under_way=1) == "being compacted"
    assert when(candidate(), CompactionRules(0)) == "never by itself: compact_garbage_share is 0"
    assert when(candidate(obstacle="there is no room")) == "not now: there is no room"
    assert when(candidate(garbage=100 * MIB, winnable=None)) == "when 30% can be won, now 10%"
    in_trash = when(candidate(winnable=100 * MIB))
    assert in_trash == "when 30% can be won, now 10%; 400 MiB are in the trash or held"
    assert when(Candidate(1, MIB, MIB - 1, MIB - 1)) == "when 1.00 MiB can be won"


candidates = st.lists(
    st.builds(
        Candidate,
        volume=st.integers(1, 10_000),
        size_bytes=st.integers(64, 100 * GIB),
        garbage_bytes=st.integers(0, 100 * GIB),
        winnable_bytes=st.none() | st.integers(0, 100 * GIB),
        obstacle=st.sampled_from(("", "a Store is silent")),
        rest_seconds=st.sampled_from((0.0, 10.0)),
    ),
    max_size=20,
    unique_by=lambda one: one.volume,
)


@given(candidates, st.integers(0, 5), st.floats(0, 1), st.integers(0, 5))
def test_a_choice_keeps_its_promises(found: list[Candidate], under_way: int, share: float, at_once: int) -> None:
    choice = choose(found, under_way, CompactionRules(share, at_once))
    by_volume = {one.volume: one for one in found}
    assert len(choice.start) <= max(0, at_once - under_way)
    for volume in choice.start:
        one = by_volume[volume]
        assert not one.obstacle and not one.rest_seconds
        assert one.winnable_bytes is not None and one.winnable_bytes >= max(share * one.size_bytes, LEAST_GAIN_BYTES)
    assert not any(by_volume[volume].winnable_bytes is not None for volume in choice.ask)
    named = [*choice.start, *choice.ask, *(volume for volume, _ in choice.waiting)]
    assert len(named) == len(set(named))


def record(**changes: object) -> VolumeRecord:
    known = VolumeRecord(1, "u", "010", 7, "a", ("a", "b"), "writable", 0, None, members=("a", "b"), generation=3)
    return replace(known, **changes)  # type: ignore[arg-type]  # fields by name


def test_a_generation_is_rolled_back_only_by_the_word_of_all_copies() -> None:
    known = record()
    assert rolled_back(known, {"a": (7, 2)}) == known
    assert rolled_back(known, {"a": (7, 2), "b": (6, 2)}) == known, "of an older epoch"
    assert rolled_back(known, {"a": (7, 2), "b": (7, 2)}) == record(epoch=8, generation=2)
    assert rolled_back(known, {"a": (7, 3), "b": (7, 2)}) == known


def test_the_generation_is_kept_in_the_record_only_when_there_is_one() -> None:
    assert VolumeRecord.unpack(1, record().pack()) == record()
    assert "generation" not in record(generation=None).pack()
