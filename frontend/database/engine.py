"""The connection to the database: SQLite with one writer and several readers, or PostgreSQL.

Everything runs on threads of this module's own: a statement never holds up the event loop.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.pool import QueuePool

from haystack.errors import ConfigError, HaystackError

Result = TypeVar("Result")

READERS = 4
POSTGRES_CONNECTIONS = 8
MAX_WAITING = 1000
"""Calls that may wait for a thread; more are refused, so that a slow database does not eat the memory."""
BUSY_SECONDS = 10.0
_POSTGRES_OPTIONS = "-c jit=off"
"""Statements here take a millisecond or two; compiling one takes a hundred."""
_PAGE_CACHE_KIB = 64 * 1024
_MAP_BYTES = 2**30


class DatabaseBusy(HaystackError):
    """Too many calls wait for the database already."""

    http_status = 503


class DatabaseUnavailable(HaystackError):
    """The database cannot be reached, or does not answer."""

    http_status = 503


class Database:
    """Runs functions of a connection on threads, each in one transaction.

    Parameters
    ----------
    url: as SQLAlchemy takes it, ``sqlite:////absolute/path.db`` or ``postgresql+psycopg://user@host/name``.

    Raises
    ------
    ConfigError: it is a URL of neither.
    """

    def __init__(self, url: str) -> None:
        self.url = parse_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            # SQLite has one writer at a time; a second one would poll for the lock with sleeps.
            self._write_engine = _sqlite_engine(self.url, pool_size=1, writes=True)
            self._read_engine = _sqlite_engine(self.url, pool_size=READERS, writes=False)
            writers = 1
            readers = READERS
        else:
            self._write_engine = self._read_engine = sqlalchemy.create_engine(
                self.url,
                pool_size=POSTGRES_CONNECTIONS,
                max_overflow=0,
                pool_pre_ping=True,
                pool_use_lifo=True,  # the connection that has planned the usual statements already
                connect_args={"options": _POSTGRES_OPTIONS},
            )
            writers = readers = POSTGRES_CONNECTIONS // 2
        self._writers = ThreadPoolExecutor(writers, "database-writer")
        self._readers = ThreadPoolExecutor(readers, "database-reader")
        self._waiting = 0

    async def read(self, act: Callable[..., Result], *args: Any) -> Result:
        """``act(connection, *args)`` in a transaction that only reads, on a thread.

        Raises
        ------
        DatabaseBusy: too many calls wait.
        DatabaseUnavailable: the database does not answer.
        """
        return await self._run(self._readers, self._read_engine, act, args)

    async def write(self, act: Callable[..., Result], *args: Any) -> Result:
        """As :meth:`read`, for what writes; committed when ``act`` returns."""
        return await self._run(self._writers, self._write_engine, act, args)

    async def _run(
        self, threads: ThreadPoolExecutor, engine: Engine, act: Callable[..., Result], args: tuple[Any, ...]
    ) -> Result:
        if self._waiting >= MAX_WAITING:
            raise DatabaseBusy("the database has too much to do; try again in a moment")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, _in_transaction, engine, act, args)
        finally:
            self._waiting -= 1

    def write_now(self, act: Callable[..., Result], *args: Any) -> Result:
        """As :meth:`write`, on the calling thread: for commands and migrations."""
        return _in_transaction(self._write_engine, act, args)

    @staticmethod
    def shown(url: str) -> str:
        """The URL of a database without its password, for people."""
        return parse_url(url).render_as_string(hide_password=True)

    def close(self) -> None:
        """Finish what runs, and let go of all connections."""
        for threads in (self._readers, self._writers):
            threads.shutdown(wait=True, cancel_futures=True)
        self._read_engine.dispose()
        self._write_engine.dispose()


def parse_url(url: str) -> URL:
    """The URL of a database. Raises ConfigError unless it is one of SQLite or PostgreSQL (through psycopg)."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigError("the database is named by a URL, such as sqlite:////srv/haystack/photos.db") from None
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise ConfigError("an SQLite database needs the path of a file: sqlite:////srv/haystack/photos.db")
        return parsed
    if parsed.drivername == "postgresql+psycopg":
        return parsed
    raise ConfigError(f"a database of kind {parsed.drivername} is not known; there are sqlite and postgresql")


def _in_transaction(engine: Engine, act: Callable[..., Result], args: tuple[Any, ...]) -> Result:
    try:
        with engine.begin() as connection:
            return act(connection, *args)
    except OperationalError as error:
        raise DatabaseUnavailable(f"the database does not answer: {error.orig}") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise DatabaseUnavailable(f"the connection to the database was lost: {error.orig}") from error
        raise


def _sqlite_engine(url: URL, *, pool_size: int, writes: bool) -> Engine:
    assert url.database is not None
    Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sqlalchemy.create_engine(
        url,
        poolclass=QueuePool,
        pool_size=pool_size,
        max_overflow=0,
        pool_use_lifo=True,  # the connection whose pages are in memory already
        connect_args={"check_same_thread": False, "timeout": BUSY_SECONDS},
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # transactions are begun below: the driver's own begin too late
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",  # an answered request is on the disk
            "foreign_keys = ON",
            f"cache_size = -{_PAGE_CACHE_KIB // pool_size}",
            f"mmap_size = {_MAP_BYTES}",
            "temp_store = MEMORY",
            *([] if writes else ["query_only = ON"]),
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def is_postgres(connection: Connection) -> bool:
    """Whether statements go to PostgreSQL, for the few that differ."""
    return connection.dialect.name == "postgresql"
