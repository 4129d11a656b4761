"""The model of replication with thousands of other runs; a failing one prints the plan that replays it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "replication"))

from model_run import plan_of, run

FIRST_SEED, RUNS = 1_000_000, 4_000


@pytest.mark.timeout(3600)
def test_nothing_acknowledged_is_lost_in_thousands_of_runs() -> None:
    acknowledged = faults = 0
    for seed in range(FIRST_SEED, FIRST_SEED + RUNS):
        outcome = run(plan_of(seed))
        assert not outcome.problem, outcome.told()
        acknowledged += len(outcome.history.told)
        faults += outcome.faults
    print(f"{RUNS:,} runs with {faults:,} faults: {acknowledged:,} acknowledged needles, none was lost")
