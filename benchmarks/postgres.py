"""A PostgreSQL server of one's own: in a temporary folder, on a socket in it, gone at the end."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg

from benchmarks.common import CannotMeasure

USER = "test"
_START_TRIES = 300
_POLL_SECONDS = 0.1


@contextlib.contextmanager
def private_server(settings: Sequence[str], *, folder: Path | None = None, kept: Path | None = None) -> Iterator[str]:
    """Run a server; yields the folder of its socket.

    Parameters
    ----------
    settings: ``name=value``, beside those of a new installation.
    folder: for its data; by default where temporary files are.
    kept: a folder of data that stays, and is used again when it is there.

    Raises
    ------
    CannotMeasure: PostgreSQL is not installed, there is nobody to run it as, or it does not start.
    """
    initdb, server = _program("initdb"), _program("postgres")
    # A socket's path has at most 107 bytes, and another user must get there.
    with tempfile.TemporaryDirectory(prefix="pg", dir=folder) as name:
        as_user = _as_user(name)
        data = f"{name}/data"
        if kept is not None:
            kept.mkdir(mode=0o755, parents=True, exist_ok=True)
            _as_user(str(kept))
            data = f"{kept}/data"
        if not Path(data).exists():
            subprocess.run(
                [*as_user, initdb, "-D", data, "-U", USER, "--auth=trust", "-E", "UTF8", "--locale=C", "-N"],
                check=True,
                capture_output=True,
                cwd="/",
            )
        options = [word for one in ("listen_addresses=", *settings) for word in ("-c", one)]
        with (Path(name) / "log").open("wb") as log:
            process = subprocess.Popen(
                [*as_user, server, "-D", data, "-k", name, *options], stdout=log, stderr=log, cwd="/"
            )
        try:
            _wait(name, process)
            yield name
        finally:
            process.terminate()
            process.wait(60)


def new_database(socket: str, name: str) -> str:
    """The URL of a new, empty database."""
    with psycopg.connect(host=socket, user=USER, dbname="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return url_of(socket, name)


def url_of(socket: str, name: str) -> str:
    """The URL of a database."""
    return f"postgresql+psycopg://{USER}@/{name}?host={socket}"


def _program(name: str) -> str:
    found = shutil.which(name)
    if found:
        return found
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    if not versions:
        raise CannotMeasure("there is no PostgreSQL here: apt-get install postgresql")
    return str(versions[-1])


def _as_user(folder: str) -> list[str]:
    """What to put before a command, so that it does not run as root, which PostgreSQL refuses."""
    if os.getuid() != 0:
        return []
    user = next((one for one in ("postgres", "nobody") if _exists(one)), None)
    if user is None or shutil.which("setpriv") is None:
        raise CannotMeasure("PostgreSQL does not run as root, and there is nobody else to run it as")
    entry = pwd.getpwnam(user)
    os.chown(folder, entry.pw_uid, entry.pw_gid)
    return ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"]


def _exists(user: str) -> bool:
    with contextlib.suppress(KeyError):
        return bool(pwd.getpwnam(user))
    return False


def _wait(socket: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(_START_TRIES):
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(host=socket, user=USER, dbname="postgres", connect_timeout=5).close()
            return
        if process.poll() is not None:
            break
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_SECONDS)
    raise CannotMeasure(f"PostgreSQL does not start:\n{(Path(socket) / 'log').read_text()}")
