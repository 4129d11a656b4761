"""Options of the campaigns."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--minutes", type=float, default=10.0, help="how long each chaos campaign makes faults")
    parser.addoption("--seed", type=int, default=1, help="what the faults are drawn from")
    parser.addoption("--uploads", type=float, default=50.0, help="uploads a second of the chaos campaign")
    parser.addoption("--reads", type=float, default=1000.0, help="reads a second of the chaos campaign")
    parser.addoption("--examples", type=int, default=100, help="requests of each kind of the photo service's API")


@pytest.fixture
def examples(request: pytest.FixtureRequest) -> int:
    """How many requests of each kind are made."""
    return int(request.config.getoption("--examples"))
