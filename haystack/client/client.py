"""The client of a cluster: names, uploads, reads, deletes."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import aiohttp

from haystack.client.assigning import NamePool
from haystack.client.caches import CacheNodes
from haystack.client.directory import Assignment, DirectoryCalls, PhotoRecord
from haystack.client.errors import Unreachable
from haystack.client.health import StoreHealth
from haystack.client.locations import (
    DEFAULT_LIFETIME_SECONDS,
    DEFAULT_MAX_VOLUMES,
    WITHOUT_DIRECTORY_SECONDS,
    Location,
    LocationCache,
    for_reading,
    for_writing,
    with_scheme,
)
from haystack.client.names import PhotoName, fid_of, parse_photo_name
from haystack.client.photo import PhotoInfo, StoredPhoto, disposition
from haystack.client.reading import FAILOVER_ERRORS, PhotoStream, Target, open_stream, read_head, worst
from haystack.client.retry import RetryPolicy, Transient
from haystack.client.sources import Data, FileSource, IteratorSource, MemorySource, Source
from haystack.client.transport import Transport
from haystack.client.uploading import DEFAULT_DEADLINE_SECONDS, Upload, Uploader
from haystack.errors import HaystackError, InvalidRequest, NeedleNotFound, TooLarge, VolumeNotFound
from haystack.fid import Fid, Locator
from haystack.lifetime import end_tasks
from haystack.ttl import expiry, parse_ttl

DEFAULT_TIMEOUT_SECONDS = 30.0
DEFAULT_MAX_CONCURRENCY = 64
DEFAULT_MAX_READ_BYTES = 4 * 2**30
ASKED_BESIDE = 4
"""Places of volumes that are asked for at once while their old ones are named in URLs."""
LATELY_SECONDS = 15.0
"""For how long after its lifetime a place is named in URLs of pages that do not wait, while it is asked for anew."""
REFRESH_PATIENCE_SECONDS = 1.0
"""How long a Directory may be silent about a volume whose place is remembered."""

Uploadable = Data | Path | AsyncIterator[bytes] | Source

_Result = TypeVar("_Result")

_log = logging.getLogger(__name__)
_MIME = re.compile(r"[!-~]{1,127}/[!-~][ -~]{0,127}")


class HaystackClient:
    """An asyncio client of a cluster. Use it as an async context manager; many tasks may share one.

    Failures that may pass (connection errors, 502, 503, 504, 507) are retried with growing, partly random delays; reads
    go to the next location first, and uploads get a new name. While no Directory answers, photos of volumes whose
    place is remembered can still be read. :class:`~haystack.client.SyncHaystackClient` is the same without asyncio.

    Parameters
    ----------
    directory_urls: address of one Directory or of several.
    session: an aiohttp session to use; it is not closed. By default the client has its own.
    timeout_seconds: longest silence of a server when there is no other to ask.
    upload_deadline_seconds: an upload that failed is not begun again later than this.
    retries: attempts after the first one; or a whole :class:`RetryPolicy`.
    max_concurrency: requests at the same time; further ones wait. A stream that is being read counts.
    location_lifetime_seconds: how long the place of a volume is believed.
    internal: use the Stores' and Caches' addresses inside the cluster and not the public ones.
    via_cache: read through the Caches, if there are any; Stores are read when these do not answer. What was deleted or
        replaced less than a second ago may still be read there.
    """

    def __init__(
        self,
        directory_urls: str | Sequence[str],
        *,
        session: aiohttp.ClientSession | None = None,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        upload_deadline_seconds: float = DEFAULT_DEADLINE_SECONDS,
        retries: int | RetryPolicy = RetryPolicy(),  # noqa: B008 - immutable
        max_concurrency: int = DEFAULT_MAX_CONCURRENCY,
        location_lifetime_seconds: float = DEFAULT_LIFETIME_SECONDS,
        max_locations: int = DEFAULT_MAX_VOLUMES,
        internal: bool = False,
        via_cache: bool = True,
        now: Callable[[], float] = time.monotonic,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        urls = [directory_urls] if isinstance(directory_urls, str) else list(directory_urls)
        if isinstance(retries, int):
            retries = RetryPolicy(retries, uniform=uniform, now=now)
        self._policy = retries
        self._transport = Transport(session, timeout_seconds=timeout_seconds, max_concurrency=max_concurrency)
        self._directory = DirectoryCalls(urls, self._transport)
        self._locations = LocationCache(lifetime_seconds=location_lifetime_seconds, max_volumes=max_locations, now=now)
        self._health = StoreHealth(now=now)
        self._names = NamePool(self._directory.names, now=now)
        self._caches = CacheNodes(self._directory.caches, now=now)
        self._via_cache = via_cache
        self._internal = internal
        self._uniform = uniform
        self._asking: dict[int, asyncio.Task[None]] = {}
        self._beside = asyncio.Semaphore(ASKED_BESIDE)
        self._uploader = Uploader(
            self._transport,
            self._names,
            self._health,
            self._policy,
            where=self._where,
            doubt=self._locations.doubt,
            internal=internal,
            deadline_seconds=upload_deadline_seconds,
        )

    async def __aenter__(self) -> HaystackClient:
        self._transport.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await end_tasks(self._asking.values())
        await self._caches.close()
        await self._names.close()
        await self._transport.close()

    # -- the Directory

    async def assign(self, count: int = 1, *, replication: str | None = None) -> Assignment:
        """Get a name for a new photo, with ``count`` - 1 alternate keys. Raises VolumeUnavailable, Unreachable."""
        return await self._policy.run(lambda: self._directory.assign(count, replication))

    async def lookup(self, volume: int) -> tuple[Location, ...]:
        """Return where a volume is, as remembered or asked. Raises VolumeNotFound, Unreachable."""
        return await self._policy.run(lambda: self._where(volume))

    async def read_urls(
        self, fid: Fid, *, uniform: Callable[[], float] | None = None, at_once: bool = False
    ) -> list[str]:
        """Return the URLs under which a needle can be read, best first: at Caches if there are any, then at Stores.

        Parameters
        ----------
        uniform: draws among copies that share the reads; by default the client's own.
        at_once: believe places a little longer than their lifetime, and ask for them anew beside that: a page with
            photos of a hundred volumes does not wait for as many answers once a minute.

        Raises as :meth:`lookup`.
        """
        draw = uniform or self._uniform
        known = await self._caches.known() if self._via_cache else None
        caches = known.of_photo(fid.key, draw) if known is not None else []
        places = (self._lately_known(fid.volume) if at_once else None) or await self.lookup(fid.volume)
        stores = for_reading(places, draw)
        bases = [node.base(internal=self._internal) for node in caches]
        bases += [store.base(internal=self._internal) for store in stores]
        return [f"{base}/{fid}" for base in bases]

    def doubt(self, volume: int) -> None:
        """Ask anew where a volume is the next time: what it was said to have was not there."""
        self._locations.doubt(volume)

    async def read_bases(self) -> list[str]:
        """Return the addresses of all Caches and Stores that photos may be read from. Raises Unreachable."""
        known = await self._caches.known() if self._via_cache else None
        bases = [node.base(internal=self._internal) for node in known.nodes] if known is not None else []
        stores = await self._policy.run(self._directory.stores)
        return bases + [store.location.base(internal=self._internal) for store in stores]

    async def services(self, name: str) -> list[str]:
        """Return the addresses of a service on all machines of Stores that have it. Raises Unreachable."""
        stores = await self._policy.run(self._directory.stores)
        return [with_scheme(store.services[name]) for store in stores if name in store.services]

    async def photo(self, photo_id: int) -> PhotoRecord:
        """Return what the Directory knows of a photo. Raises NeedleNotFound, Unreachable."""
        return await self._policy.run(lambda: self._directory.photo(photo_id))

    async def cluster_status(self) -> dict[str, Any]:
        """Return the Directory's view of the cluster. Raises Unreachable."""
        return await self._policy.run(self._directory.status)

    # -- photos

    async def upload(
        self,
        data: Uploadable,
        *,
        name: str = "",
        mime: str = "",
        alternate: int = 0,
        fid: Fid | None = None,
        replication: str | None = None,
        ttl: str = "",
    ) -> StoredPhoto:
        """Store a photo and return its names once the Store has acknowledged it.

        Parameters
        ----------
        data: bytes, the path of a file, or an iterator of bytes. An iterator can be read once: an upload that fails
            after it was begun is not repeated.
        name: file name to keep. mime: MIME type to keep.
        alternate: number of the rendition; 0 is the original.
        fid: store it under this name, as a rendition of a photo that is there or to replace one; no other is tried.
        replication: three digits, the copies in other data centers, other racks and on other machines of the rack;
            by default what the Directory is set to.
        ttl: how long the photo is to live, such as ``3m``, ``4h``, ``5d``, ``6w``, ``7M``, ``8y`` or seconds; for ever
            when it is empty.

        Raises
        ------
        TooLarge, InvalidRequest: the photo is refused as it is.
        VolumeUnavailable, OutOfSpace, Unreachable, Refused: no Store took it, however often it was tried.
        SourceChanged, OSError: the file cannot be read; nothing was stored.
        WrongContent: the Store counted other bytes than were sent.
        """
        expiry(parse_ttl(ttl), time.time_ns() // 1_000_000)
        headers = {"Content-Type": _checked_mime(mime) if mime else "application/octet-stream"}
        if name:
            headers["Content-Disposition"] = disposition(name)
        async with AsyncExitStack() as stack:
            source = await _source(data, stack)
            return await self._uploader.run(Upload(source, headers, fid, alternate, replication, ttl))

    async def read(
        self,
        name: PhotoName | str,
        *,
        etag: str = "",
        max_bytes: int = DEFAULT_MAX_READ_BYTES,
        via_cache: bool | None = None,
    ) -> bytes:
        """Return a photo's bytes. Raises as :meth:`stream` does, and TooLarge above ``max_bytes``."""
        async with self.stream(name, etag=etag, via_cache=via_cache) as photo:
            if photo.info.size_bytes > max_bytes:
                raise TooLarge(
                    f"{photo.info.url}: has {photo.info.size_bytes} bytes; at most {max_bytes} were asked for"
                )
            return b"".join([piece async for piece in photo])

    @asynccontextmanager
    async def stream(
        self, name: PhotoName | str, *, etag: str = "", via_cache: bool | None = None
    ) -> AsyncIterator[PhotoStream]:
        """Open a photo for reading.

        Parameters
        ----------
        name: fid, locator or photo id; or one of them as text, or the URL of a photo.
        etag: as the upload's answer named it; a location that has something else is passed over.
        via_cache: read through the Caches; None: as the client is set to.

        Raises
        ------
        InvalidFid: it is no such name.
        NeedleNotFound, VolumeNotFound: there is no such photo, or the cookie is wrong.
        VolumeUnavailable, Unreachable, DiskError: no location could serve it.
        WrongContent: no location has the photo with this ``etag``; or while reading: not all of it came, or it was
            replaced meanwhile.
        """
        async with AsyncExitStack() as stack:
            yield await self._at_locations(
                name,
                lambda one: open_stream(self._transport, one, self._policy, stack),
                etag=etag,
                via_cache=self._via_cache if via_cache is None else via_cache,
            )

    async def stat(self, name: PhotoName | str) -> PhotoInfo:
        """Return what the Store knows of a photo, without its bytes. Raises as :meth:`stream`."""
        return await self._at_locations(name, lambda one: read_head(self._transport, one))

    async def delete(self, name: PhotoName | str, *, now: bool = False) -> int:
        """Delete a photo; returns the bytes that it had. Raises NeedleNotFound when it is not there, else as read.

        When an answer was lost and the photo is gone at the next attempt, it was deleted; its size is then 0.

        Parameters
        ----------
        now: for good; what is in the trash already is taken out of it. Otherwise :meth:`undelete` brings it back.
        """
        return await self._mark(await self._resolve(name), "DELETE", "?now=true" if now else "")

    async def undelete(self, name: PhotoName | str) -> int:
        """Bring a deleted photo back; returns its bytes. Raises NeedleNotFound when it is not in the trash.

        When an answer was lost and the photo is not in the trash at the next attempt, it was brought back; its size is
        then 0.

        Parameters
        ----------
        name: fid, locator or URL; the Directory knows no ids of deleted photos.
        """
        return await self._mark(await self._resolve(name), "POST", "?undelete=true")

    async def _mark(self, fid: Fid | Locator, method: str, query: str) -> int:
        """Delete or undelete at whatever location takes it."""
        target_fid = fid_of(fid)
        uncertain = False

        async def attempt() -> int:
            nonlocal uncertain
            failures: list[Transient | HaystackError] = []
            places = await self._where(target_fid.volume)
            addresses = [self._base(one) for one in for_writing(places)]
            for address in self._health.in_order(addresses, lambda one: (one,)):
                try:
                    answer = await self._transport.fetch(method, f"{address}/{target_fid}{query}")
                    return int(answer.field("size", int))
                except (Transient, NeedleNotFound) as failure:
                    if uncertain and isinstance(failure, NeedleNotFound):
                        return 0
                    if isinstance(failure, Transient) and isinstance(failure.error, Unreachable):
                        self._health.failed(address)
                    uncertain = uncertain or _may_have_worked(failure)
                    failures.append(failure)
            self._locations.doubt(target_fid.volume)
            counts = worst(failures)
            # How long these want to be left alone does not matter: another may be the primary by now.
            raise Transient(counts.error) if isinstance(counts, Transient) else counts

        return await self._policy.run(attempt)

    # -- where

    async def _at_locations(
        self,
        name: PhotoName | str,
        ask: Callable[[Target], Awaitable[_Result]],
        *,
        etag: str = "",
        via_cache: bool = False,
    ) -> _Result:
        found = await self._resolve(name)
        volume = fid_of(found).volume
        caches = await self._caches_of(fid_of(found)) if via_cache else []
        rounds = 0

        async def attempt() -> _Result:
            nonlocal rounds
            remembered = self._locations.get(volume)
            target = self._target(found, remembered or await self._look_up(volume), etag, rounds, caches)
            try:
                return await ask(target)
            except (Transient, *FAILOVER_ERRORS):
                rounds += 1
                self._locations.doubt(volume)
                if remembered is None:
                    raise
            # What was remembered may be outdated: the volume may have moved.
            return await ask(self._target(found, await self._look_up(volume), etag, rounds, caches))

        return await self._policy.run(attempt)

    async def _resolve(self, name: PhotoName | str) -> Fid | Locator:
        parsed = parse_photo_name(name) if isinstance(name, str) else name
        if isinstance(parsed, int):
            return (await self.photo(parsed)).fid
        return parsed

    async def _where(self, volume: int) -> tuple[Location, ...]:
        return self._locations.get(volume) or await self._look_up(volume)

    def _lately_known(self, volume: int) -> tuple[Location, ...] | None:
        """The place as it was a moment ago; when that is to be believed no more, it is asked for meanwhile."""
        known = self._locations.lately(volume, LATELY_SECONDS)
        if known is not None and self._locations.get(volume) is None and volume not in self._asking:
            self._asking[volume] = asyncio.get_running_loop().create_task(self._ask_beside(volume))
        return known

    async def _ask_beside(self, volume: int) -> None:
        try:
            async with self._beside:
                await self._look_up(volume)
        except (Transient, HaystackError) as error:
            # Who asks for the volume next, and has to wait, is told.
            _log.debug("where volume %d is now is not known: %s", volume, error)
        except Exception:
            _log.exception("where volume %d is now is not known", volume)
        finally:
            del self._asking[volume]

    async def _look_up(self, volume: int) -> tuple[Location, ...]:
        """Ask where a volume is; what was known before must do while no Directory answers."""
        remembered = self._locations.remembered(volume)
        try:
            if remembered is None:
                locations = await self._directory.lookup(volume)
            else:
                locations = await self._directory.lookup(volume, patience_seconds=REFRESH_PATIENCE_SECONDS)
        except Transient:
            if remembered is None:
                raise
            self._locations.put(volume, remembered, lifetime_seconds=WITHOUT_DIRECTORY_SECONDS)
            return remembered
        except VolumeNotFound:
            self._locations.forget(volume)
            raise
        self._locations.put(volume, locations)
        return locations

    async def _caches_of(self, fid: Fid) -> list[str]:
        known = await self._caches.known()
        return [node.base(internal=self._internal) for node in known.of_photo(fid.key, self._uniform)]

    def _target(
        self, name: Fid | Locator, locations: tuple[Location, ...], etag: str, rounds: int, caches: Sequence[str]
    ) -> Target:
        # Drawn for each read, so that all replicas share the reads as the Directory wants it.
        order = for_reading(locations, self._uniform)
        return Target(str(name), str(fid_of(name)), order, self._internal, self._health, etag, rounds, caches)

    def _base(self, location: Location) -> str:
        return location.base(internal=self._internal)


def _checked_mime(mime: str) -> str:
    """Return it unless a Store could not keep it, or would take the photo for a form that contains one."""
    if not _MIME.fullmatch(mime) or mime.lower().startswith("multipart/"):
        raise InvalidRequest(f"{mime[:100]!r} is no MIME type that a photo can have; expected one such as image/jpeg")
    return mime


async def _source(data: Uploadable, stack: AsyncExitStack) -> Source:
    if isinstance(data, bytes | bytearray | memoryview):
        return MemorySource(data)
    if isinstance(data, Path):
        return await stack.enter_async_context(FileSource(data))
    if isinstance(data, MemorySource | FileSource | IteratorSource):
        return data
    if isinstance(data, AsyncIterator):
        return IteratorSource(data)
    raise InvalidRequest(f"cannot upload a {type(data).__name__}; give bytes, a Path or an async iterator of bytes")


def _may_have_worked(failure: Transient | HaystackError) -> bool:
    """Whether the change may have been done although no answer says so."""
    return isinstance(failure, Transient) and isinstance(failure.error, Unreachable) and not failure.error.unsent
