"""All of a Store's work on copies, put together."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from haystack.config import StoreSettings
from haystack.errors import HaystackError
from haystack.store.copies.copies_api import CopiesApi
from haystack.store.copies.fresh import remove_abandoned
from haystack.store.copies.jobs import FollowJobs
from haystack.store.copies.peer import peer_session
from haystack.store.copies.ranges_api import RangesApi
from haystack.store.replication.memberships import Memberships
from haystack.store.scrub.service import Scrubbing
from haystack.store.settings import Timing
from haystack.store.volumes import StoreVolumes

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Copies:
    """What the supervisor needs of it: calls for the admin API, and scrubbing, which is to be run."""

    routes: tuple[Callable[[web.Application], None], ...]
    scrubbing: Scrubbing


@asynccontextmanager
async def copies_service(
    volumes: StoreVolumes, memberships: Memberships, settings: StoreSettings, timing: Timing
) -> AsyncIterator[Copies]:
    """Run it for the length of a block, inside the event loop."""
    secret = settings.secret
    await _clean_up(volumes)
    async with peer_session() as session:
        scrubbing = Scrubbing(volumes, session, secret, timing, bytes_per_second=settings.scrub_bytes_per_second)
        jobs = FollowJobs(volumes, memberships, session, secret)
        try:
            apis = RangesApi(volumes), CopiesApi(volumes, memberships, jobs), scrubbing
            yield Copies(tuple(api.add_routes for api in apis), scrubbing)
        finally:
            await jobs.close()


async def _clean_up(volumes: StoreVolumes) -> None:
    for folder in volumes.folders:
        if folder.failed:
            continue
        try:
            await folder.run(remove_abandoned, folder.path, time.time())
        except HaystackError as error:
            _log.warning("%s", error)
