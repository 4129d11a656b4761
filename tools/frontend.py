"""``haystack frontend``: the photo service's front end, its database anew, and somebody's password."""

from __future__ import annotations

import asyncio
import logging
import secrets
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from haystack.client import HaystackClient
from haystack.config import Configuration, FrontendSettings
from haystack.errors import ConfigError, HaystackError
from haystack.fid import Fid
from haystack.lifetime import log_to_stderr
from tools.app import (
    App,
    cluster_options,
    config_option,
    directory_option,
    json_option,
    pass_app,
    secret_option,
    settings_options,
)
from tools.control import Control
from tools.listing import Listing
from tools.roles import RoleGroup, is_other_command

if TYPE_CHECKING:
    from frontend.database.engine import Database
    from frontend.services.rebuilding import StoredRecord
    from frontend.services.stored import StoredPhotos

READS_AT_ONCE = 16
DATABASE_FILE = "frontend/photos.db"


class FrontendGroup(RoleGroup):
    """``haystack frontend``."""

    commands_there: Mapping[str, tuple[str, str]] = {
        "rebuild": ("tools.frontend:rebuild", "Make the database anew from what is stored beside the photos."),
        "password": ("tools.frontend:password", "Set somebody's password."),
    }


@click.group(cls=FrontendGroup, invoke_without_command=True)
@settings_options("frontend")
@directory_option
@secret_option
@config_option
@click.pass_context
def frontend(context: click.Context, /, **flags: object) -> None:
    """Run one front end of the photo service until it is told to stop; or, with a command, look after its data.

    Settings come from the tables [cluster] and [frontend] of the configuration file, then from HAYSTACK_FRONTEND_…
    variables, then from flags.
    """
    if is_other_command(context, flags):
        return
    log_to_stderr()
    # Six lines at every start that tell an operator nothing.
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)
    settings = context.ensure_object(App).configuration().with_flags("frontend", flags).frontend()
    from frontend.server import run

    run(_complete(settings))


def _complete(settings: FrontendSettings) -> FrontendSettings:
    """The settings, when they are enough to run with. Raises ConfigError."""
    if not settings.directories:
        raise ConfigError("a front end needs the address of the Directory: give --directory URL")
    return settings


@click.command()
@click.option("--database", metavar="URL", help="Database to make anew [default: as configured, or that of --data].")
@cluster_options
@pass_app
def rebuild(app: App, /, database: str | None) -> int:
    """Make the database anew from the records that are stored beside the photos.

    Photos, owners, titles, captions, tags, visibility, places and times come back; what people did (follows, comments,
    likes, passwords) does not. What is in the database stays. Run it before people can sign up again: a name that
    somebody else has taken meanwhile is changed.
    """
    url = _database_url(app, database)
    return asyncio.run(_rebuild(app, url))


@click.command()
@click.argument("username")
@click.option("--database", metavar="URL", help="The database [default: as configured, or that of --data].")
@click.option("--data", "folder", metavar="DIR", type=click.Path(file_okay=False), help="Folder of `haystack up`.")
@click.option("--stdin", is_flag=True, help="Read the password from standard input instead of making one up.")
@config_option
@json_option
@pass_app
def password(app: App, /, username: str, database: str | None, folder: str | None, stdin: bool) -> None:
    """Set somebody's password, and end all sessions of USERNAME. Without --stdin a new one is made up and shown."""
    if folder is not None:
        app.data = Path(folder)
    new = sys.stdin.readline().rstrip("\n") if stdin else secrets.token_urlsafe(12)
    url = _database_url(app, database)
    asyncio.run(_set_password(url, username, new))
    app.output.document({"username": username, "password": None if stdin else new})
    app.output.say(f"The password of {username} is set." if stdin else f"The new password of {username} is: {new}")


def _database_url(app: App, given: str | None) -> str:
    configuration: Configuration = app.configuration()
    if given is not None:
        return str(configuration.with_flags("frontend", {"database": given}).frontend().database)
    if configuration.source("frontend", "database"):
        return str(configuration.frontend().database)
    if app.data is not None:
        return f"sqlite:///{(app.data / DATABASE_FILE).absolute()}"
    raise ConfigError("which database? give --database URL, or --data with the folder of `haystack up`")


@contextmanager
def _opened(url: str) -> Iterator[Database]:
    from frontend.database.engine import Database
    from frontend.database.migrating import migrate

    database = Database(url)
    try:
        migrate(database)
        yield database
    finally:
        database.close()


async def _set_password(url: str, username: str, new: str) -> None:
    from frontend.services.accounts import Accounts
    from frontend.services.limits import Limits
    from frontend.services.passwords import Passwords
    from frontend.services.site import now_ms

    passwords = Passwords()
    try:
        with _opened(url) as database:
            accounts = Accounts(
                database, passwords, Limits(on=False), session_seconds=60, open_to_all=False, now_ms=now_ms
            )
            await accounts.set_password(username, new)
    finally:
        passwords.close()


async def _rebuild(app: App, url: str) -> int:
    from frontend.services.rebuilding import rebuild as rebuild_database

    secret = app.secret()
    if secret is None:
        raise ConfigError("records are shown to holders of the cluster's secret alone: give --secret-file FILE")
    reader = _Reader(app, secret)
    with _opened(url) as database:
        done = await rebuild_database(database, reader.records(), int(time.time() * 1000))
    out = app.output
    out.document(
        {
            "photos": done.photos,
            "people": done.people,
            "known": done.known,
            "replaced": done.replaced,
            "renamed": done.renamed,
            "unreadable": reader.unreadable,
        }
    )
    out.say(f"{done.photos:,} photos of {done.people:,} people are back; {done.known:,} were there already.")
    for old, new in (done.renamed or {}).items():
        out.say(f"Somebody else is called {old} now, so {old} of before is {new}.")
    for problem in reader.unreadable:
        out.note(f"Not readable: {problem}")
    if done.people:
        out.say("They have no passwords yet: haystack frontend password USERNAME sets one.")
    return 1 if reader.unreadable else 0


class _Reader:
    """Reads all records of a cluster."""

    def __init__(self, app: App, secret: bytes) -> None:
        from haystack.signed_urls import UrlSigner

        self._app = app
        self._secret = secret
        self._signer = UrlSigner(secret)
        self.unreadable: list[str] = []

    async def records(self) -> AsyncIterator[StoredRecord]:
        """All of them, as the Stores list them. Raises VolumeUnavailable, Unreachable."""
        import aiohttp

        from frontend.records import RECORD
        from frontend.services.stored import StoredPhotos

        urls = self._app.directory_urls()
        client = HaystackClient(urls, internal=True, via_cache=False, max_concurrency=READS_AT_ONCE)
        async with Control(urls, lambda: self._secret) as control, client, aiohttp.ClientSession() as session:
            stored = StoredPhotos(client, session, self._signer)
            listing = await Listing.load(control, None)
            batch: list[tuple[Fid, int]] = []
            async for needle in listing.needles():
                fid = Fid.parse(needle.fid)
                if fid.alternate == RECORD:
                    batch.append((fid, needle.time_ms))
                if len(batch) == READS_AT_ONCE:
                    for one in await self._read(stored, batch):
                        yield one
                    batch = []
            for one in await self._read(stored, batch):
                yield one

    async def _read(self, stored: StoredPhotos, batch: list[tuple[Fid, int]]) -> list[StoredRecord]:
        from frontend.services.rebuilding import StoredRecord

        answers = await asyncio.gather(*(stored.record(fid) for fid, _ in batch), return_exceptions=True)
        found = []
        for (fid, time_ms), answer in zip(batch, answers, strict=True):
            if isinstance(answer, HaystackError):
                self.unreadable.append(f"{fid}: {answer}")
            elif isinstance(answer, BaseException):
                raise answer
            elif answer is not None:
                found.append(StoredRecord(answer, time_ms))
        return found
