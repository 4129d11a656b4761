"""The replication protocol in a hostile small world, run by seeds; and the proof that the model sees its bugs.

A failing run prints its plan with the seed, and the end of its history: ``run(plan_of(SEED))`` replays it.
"""

from __future__ import annotations

import pytest
from model_mutations import MUTATIONS, Mutation, found
from model_run import Script, plan_of, run
from model_scripts import SCRIPTS

SEEDS = range(48)
MUTATED_SEEDS = range(2000, 2060)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_acknowledged_is_lost(seed: int) -> None:
    outcome = run(plan_of(seed))
    assert not outcome.problem, outcome.told()
    assert outcome.history.told, "nothing was acknowledged at all: the run shows nothing"


def test_a_seed_replays_to_the_last_message() -> None:
    assert run(plan_of(7)).history.log == run(plan_of(7)).history.log


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_what_chance_would_take_too_long_to_find(script: Script) -> None:
    outcome = run(SCRIPTS[script], script)
    assert not outcome.problem, outcome.told()


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_each_check_that_is_taken_away_is_missed(mutation: Mutation) -> None:
    assert found(mutation, MUTATED_SEEDS) is not None, f"nobody noticed that {mutation.name}"
