"""A PostgreSQL server of a test, in a folder of its own, on a socket of its own; skipped where there is none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import count

import pytest

from benchmarks import postgres
from benchmarks.common import CannotMeasure

_SETTINGS = ("fsync=off", "synchronous_commit=off", "max_connections=40")
_numbers = count(1)


@contextlib.contextmanager
def postgres_server() -> Iterator[str]:
    """The folder of the server's socket."""
    with contextlib.ExitStack() as stack:
        try:
            socket = stack.enter_context(postgres.private_server(_SETTINGS))
        except CannotMeasure as error:
            pytest.skip(str(error))
        yield socket


def new_database(socket: str) -> str:
    """The URL of a new, empty database."""
    return postgres.new_database(socket, f"photos{next(_numbers)}")
