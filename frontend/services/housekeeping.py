"""What goes on beside requests: needles removed, records stored again, views counted; each retried until it is done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import aiohttp
from sqlalchemy import Connection

from frontend.database import chores, photos, points, uploads
from frontend.database.chores import RecordWrite
from frontend.database.engine import Database
from frontend.database.uploads import Removal
from frontend.services.photos import record_of
from frontend.services.stored import StoredPhotos
from haystack.errors import HaystackError
from haystack.fid import Fid
from haystack.json_calls import json_call

_log = logging.getLogger(__name__)

AT_ONCE = 50
IDLE_SECONDS = 5.0
VIEWS_SECONDS = 60.0
DAY_MS = 86_400_000
_CALL_TIMEOUT = aiohttp.ClientTimeout(total=10)


class Housekeeping:
    """Runs for as long as the front end does.

    Parameters
    ----------
    directories: addresses of the Directories, which know what is read.
    secret: of the cluster.
    views_seconds: how often they are asked.
    now_ms: milliseconds since 1970.
    """

    def __init__(
        self,
        database: Database,
        stored: StoredPhotos,
        session: aiohttp.ClientSession,
        directories: Sequence[str],
        secret: bytes,
        *,
        now_ms: Callable[[], int],
        views_seconds: float = VIEWS_SECONDS,
    ) -> None:
        self._database = database
        self._stored = stored
        self._session = session
        self._directories = tuple(directories)
        self._secret = secret
        self._now_ms = now_ms
        self._views_seconds = views_seconds
        self._wake = asyncio.Event()
        self.removed = 0
        self.failed = 0
        self.views = 0

    def wake(self) -> None:
        """There is something to do in the store."""
        self._wake.set()

    async def run_chores(self) -> None:
        """Remove needles and store records, for ever."""
        while True:
            self._wake.clear()
            if not await self._guarded(self.do_due):
                await self._sleep(IDLE_SECONDS)

    async def run_views(self) -> None:
        """Count views, for ever."""
        while True:
            await self._guarded(self.roll_periods)
            await asyncio.sleep(self._views_seconds)
            await self._guarded(self.count_views)

    async def do_due(self) -> bool:
        """Do what is due. Whether there may be more at once."""
        removals = await self._database.read(uploads.due_removals, self._now_ms(), AT_ONCE)
        for removal in removals:
            await self._remove(removal)
        writes = await self._database.read(chores.due_record_writes, self._now_ms(), AT_ONCE)
        for write in writes:
            await self._write(write)
        return max(len(removals), len(writes)) == AT_ONCE

    async def count_views(self) -> bool:
        """Ask the Directories what was read since the last time, and count it as views of today."""
        for url in self._directories:
            answer = await json_call(
                self._session, "POST", f"{url}/internal/hits", {}, secret=self._secret, timeout=_CALL_TIMEOUT
            )
            document = answer.document if answer.status == 200 else None
            if not isinstance(document, dict):
                _log.warning("views are not counted: %s answers %d: %s", url, answer.status, answer.reason)
                continue
            hits = {int(key, 16): int(count) for key, count in document.get("hits", ())}
            await self._database.write(_count, hits, self._now_ms() // DAY_MS)
            self.views += sum(hits.values())
        return False

    async def roll_periods(self) -> bool:
        """Take off the periods of top photos what has left them: a little at a time, other changes between."""
        more = True
        while more:
            more = await self._database.write(points.roll, self._now_ms() // DAY_MS)
        return False

    async def _remove(self, removal: Removal) -> None:
        try:
            await self._stored.remove(Fid.parse(removal.fid), removal.renditions)
        except HaystackError as error:
            self.failed += 1
            _log.warning("the needles of a deleted photo are removed later: %s", error)
            await self._database.write(uploads.removal_failed, removal, self._now_ms())
            return
        self.removed += 1
        await self._database.write(uploads.removal_done, removal)

    async def _write(self, write: RecordWrite) -> None:
        photo = await self._database.read(photos.whatever, write.photo_id)
        if photo is None:
            return  # deleted meanwhile, and what was to be written with it
        try:
            before = await self._stored.record(Fid.parse(photo.fid))
            await self._stored.write_record(record_of(photo, before))
        except HaystackError as error:
            self.failed += 1
            _log.warning("the record of photo %x is stored later: %s", photo.id, error)
            await self._database.write(chores.record_failed, write, self._now_ms())
            return
        await self._database.write(chores.record_written, write)

    async def _guarded(self, act: Callable[[], Awaitable[bool]]) -> bool:
        try:
            return await act()
        except HaystackError as error:
            _log.warning("%s; trying again", error)
        except Exception:
            _log.exception("work beside the requests failed; it goes on")
        return False

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return


def _count(connection: Connection, hits: dict[int, int], day: int) -> None:
    keys = [key for key in hits if key < 2**63]
    moved = chores.photo_ids(connection, keys)
    views: dict[int, int] = {}
    for key in keys:
        photo_id = moved.get(key, key)
        views[photo_id] = views.get(photo_id, 0) + hits[key]
    points.count_views(connection, views, day)
