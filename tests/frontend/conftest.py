"""What tests of the photo service's database share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from database_harness import KINDS, Scene, make_database
from postgres_server import postgres_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A PostgreSQL server: the folder of its socket. Tests take a database of their own from it."""
    with postgres_server() as socket:
        yield socket


@pytest.fixture(params=KINDS)
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    """An empty database, of each kind in turn. Files with other scenes have their own fixture of this name."""
    database = make_database(request.param, tmp_path, lambda: request.getfixturevalue("postgres"))
    yield Scene(database)
    database.close()
