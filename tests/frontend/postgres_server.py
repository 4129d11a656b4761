"""A PostgreSQL server of a test, in a folder of its own, on a socket of its own; skipped where there is none."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest

_SETTINGS = ("fsync=off", "synchronous_commit=off", "listen_addresses=", "max_connections=40")
_numbers = count(1)


def _program(name: str) -> str | None:
    found = shutil.which(name)
    if found:
        return found
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(versions[-1]) if versions else None


@contextlib.contextmanager
def postgres_server() -> Iterator[str]:
    """The folder of the server's socket."""
    initdb, server = _program("initdb"), _program("postgres")
    if initdb is None or server is None:
        pytest.skip("there is no PostgreSQL here")
    # Not below pytest's folder: a socket's path has at most 107 bytes, and another user must get there.
    with tempfile.TemporaryDirectory(prefix="pg") as name:
        prefix: list[str] = []
        if os.getuid() == 0:  # which PostgreSQL refuses to run as
            user = next((one for one in ("postgres", "nobody") if _exists(one)), None)
            if user is None or shutil.which("setpriv") is None:
                pytest.skip("PostgreSQL does not run as root, and there is nobody else to run it as")
            entry = pwd.getpwnam(user)
            os.chown(name, entry.pw_uid, entry.pw_gid)
            prefix = ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"]
        data = f"{name}/data"
        subprocess.run(
            [*prefix, initdb, "-D", data, "-U", "test", "--auth=trust", "-E", "UTF8", "--locale=C", "-N"],
            check=True,
            capture_output=True,
            cwd="/",
        )
        options = [word for one in _SETTINGS for word in ("-c", one)]
        with (Path(name) / "log").open("wb") as log:
            process = subprocess.Popen(
                [*prefix, server, "-D", data, "-k", name, *options], stdout=log, stderr=log, cwd="/"
            )
        try:
            _wait(name, process)
            yield name
        finally:
            process.terminate()
            process.wait(30)


def new_database(socket: str) -> str:
    """The URL of a new, empty database."""
    name = f"photos{next(_numbers)}"
    with psycopg.connect(host=socket, user="test", dbname="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]  # a name of ours
    return f"postgresql+psycopg://test@/{name}?host={socket}"


def _exists(user: str) -> bool:
    with contextlib.suppress(KeyError):
        return bool(pwd.getpwnam(user))
    return False


def _wait(socket: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(host=socket, user="test", dbname="postgres", connect_timeout=5).close()
            return
        if process.poll() is not None:
            break
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
    pytest.fail((Path(socket) / "log").read_text())
