"""All services of one front end, put together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from frontend.database.engine import Database
from frontend.services.accounts import Accounts
from frontend.services.cursors import Cursors
from frontend.services.following import Follows
from frontend.services.housekeeping import Housekeeping
from frontend.services.limits import Limits
from frontend.services.lists import Lists
from frontend.services.passwords import Passwords
from frontend.services.photos import Photos
from frontend.services.pictures import PictureUrls
from frontend.services.stored import StoredPhotos
from frontend.services.talking import Talk
from frontend.services.uploads import Uploads
from frontend.tickets import TicketOffice
from haystack.client import HaystackClient
from haystack.config import FrontendSettings
from haystack.errors import ConfigError
from haystack.lifetime import end_tasks
from haystack.signed_urls import UrlSigner

CLUSTER_TIMEOUT_SECONDS = 5.0
CLUSTER_RETRIES = 2


@dataclass(frozen=True, slots=True)
class Site:
    """The services, and what they share."""

    settings: FrontendSettings
    database: Database
    limits: Limits
    cursors: Cursors
    accounts: Accounts
    follows: Follows
    photos: Photos
    talk: Talk
    lists: Lists
    pictures: PictureUrls
    uploads: Uploads
    housekeeping: Housekeeping
    passwords: Passwords

    @property
    def secret(self) -> bytes:
        """The cluster's."""
        return secret_of(self.settings)


def secret_of(settings: FrontendSettings) -> bytes:
    """The cluster's secret. Raises ConfigError when there is none."""
    if settings.secret is None:
        raise ConfigError(
            "the photo service signs URLs, tickets and sessions' cursors, so it needs the cluster's secret: give "
            "--secret-file FILE (see docs/configuration.md)"
        )
    return settings.secret


@asynccontextmanager
async def open_site(
    settings: FrontendSettings, database: Database, passwords: Passwords | None = None
) -> AsyncIterator[Site]:
    """The services of a front end, with its background work, until the end of the block.

    Parameters
    ----------
    database: migrated already; closed by the caller.
    passwords: by default with the cost that is right for production.
    """
    secret = secret_of(settings)
    own = passwords or Passwords()
    public = _client(settings, internal=False, via_cache=True)
    inner = _client(settings, internal=True, via_cache=False)
    session = aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, headers={"Accept-Encoding": "identity"}
    )
    async with public, inner, session:
        site = _put_together(settings, database, own, secret, public, inner, session)
        tasks = [
            asyncio.create_task(site.housekeeping.run_chores()),
            asyncio.create_task(site.housekeeping.run_views()),
        ]
        try:
            yield site
        finally:
            await end_tasks(tasks)
            await site.pictures.close()
            own.close()


def _client(settings: FrontendSettings, *, internal: bool, via_cache: bool) -> HaystackClient:
    return HaystackClient(
        settings.directories,
        timeout_seconds=CLUSTER_TIMEOUT_SECONDS,
        retries=CLUSTER_RETRIES,
        internal=internal,
        via_cache=via_cache,
    )


def _put_together(
    settings: FrontendSettings,
    database: Database,
    passwords: Passwords,
    secret: bytes,
    public: HaystackClient,
    inner: HaystackClient,
    session: aiohttp.ClientSession,
) -> Site:
    signer = UrlSigner(secret)
    limits = Limits(on=settings.rate_limits == "on")
    stored = StoredPhotos(inner, session, signer)
    housekeeping = Housekeeping(database, stored, session, settings.directories, secret, now_ms=now_ms)
    photos = Photos(database, stored, limits, changed=housekeeping.wake, now_ms=now_ms)
    return Site(
        settings=settings,
        database=database,
        limits=limits,
        cursors=Cursors(secret),
        accounts=Accounts(
            database,
            passwords,
            limits,
            session_seconds=settings.session_seconds,
            open_to_all=settings.sign_up == "on",
            now_ms=now_ms,
        ),
        follows=Follows(database, limits, now_ms=now_ms),
        photos=photos,
        talk=Talk(database, limits, now_ms=now_ms),
        lists=Lists(database),
        pictures=PictureUrls(public, signer, cdn=settings.images_url, now=time.time),
        uploads=Uploads(
            database,
            public,
            session,
            TicketOffice(secret),
            photos,
            limits,
            max_bytes=settings.max_upload_bytes,
            keep_untouched=settings.keep_untouched == "on",
            now_ms=now_ms,
        ),
        housekeeping=housekeeping,
        passwords=passwords,
    )


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000
