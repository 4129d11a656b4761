"""When the space of an entry that is out of force may be used again."""

from __future__ import annotations

from cache.memory.limbo import GRACE_SECONDS, Limbo

RUNS = ((0, 4), (9, 1))


def new_limbo() -> tuple[Limbo, list[int]]:
    freed: list[int] = []
    return Limbo(lambda entry, _runs: freed.append(entry)), freed


def test_two_graces_pass_before_space_is_free() -> None:
    limbo, freed = new_limbo()
    limbo.add(1, RUNS, 10.0)
    steps = [(10.0, 5), (10.0 + GRACE_SECONDS / 2, 5), (10.0 + GRACE_SECONDS, 5), (10.0 + 1.9 * GRACE_SECONDS, 5)]
    for now, waiting in steps:
        assert limbo.release((), lambda _: False, now) == 0
        assert limbo.granules == waiting
    assert limbo.release((), lambda _: False, 10.001 + 2 * GRACE_SECONDS) == 5
    assert (freed, limbo.granules, len(limbo)) == ([1], 0, 0)
    assert GRACE_SECONDS >= 0.001


def test_who_looks_and_who_pins_holds_one_entry_and_no_other() -> None:
    limbo, freed = new_limbo()
    for entry in range(4):
        limbo.add(entry, RUNS, 10.0)
    for step in range(1, 5):
        limbo.release({2}, lambda entry: entry == 1, 10.0 + 2 * step * GRACE_SECONDS)
    assert freed == [0, 3]
    assert (limbo.granules, limbo.pinned_granules) == (10, 5)
    for step in range(5, 8):
        limbo.release((), lambda _: False, 10.0 + 2 * step * GRACE_SECONDS)
    assert freed == [0, 3, 1, 2]


def test_pins_are_looked_at_after_the_lookers() -> None:
    """A worker pins and then looks elsewhere; whoever no longer sees it looking must come again for the pins."""
    limbo, freed = new_limbo()
    limbo.add(1, RUNS, 10.0)
    asked: list[float] = []
    for step in range(1, 4):
        now = 10.0 + step * GRACE_SECONDS * 1.01
        limbo.release((), lambda _, now=now: bool(asked.append(now)), now)  # type: ignore[misc, func-returns-value]
        if freed:
            break
    assert len(asked) == 1
    assert asked[0] > 10.0 + 2 * GRACE_SECONDS
