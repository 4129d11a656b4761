"""The needles of photos in the store: reading, writing and removing them, by internal calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import aiohttp

from frontend.images.renditions import ALTERNATES, ORIGINAL, UNTOUCHED
from frontend.intake.store import MaybeStored, Needle, NotStored, StoreWriter, record_needle
from frontend.records import RECORD, RECORD_MIME, Record, load
from frontend.services.errors import Busy
from frontend.visibility import Visibility
from haystack.client import HaystackClient
from haystack.client.photo import file_name
from haystack.errors import NeedleNotFound
from haystack.fid import Fid
from haystack.json_calls import CONNECTION_ERRORS, in_words, read_limited
from haystack.signed_urls import UrlSigner

MAX_NEEDLE_BYTES = 64 * 2**20
_READ_SECONDS = 60


@dataclass(frozen=True, slots=True)
class _Read:
    mime: str
    name: str
    data: bytes


class StoredPhotos:
    """Reads and writes the needles of photos.

    Parameters
    ----------
    client: of the cluster, internal, past the Caches.
    session: for what the client does not do.
    now: unix seconds.
    """

    def __init__(
        self,
        client: HaystackClient,
        session: aiohttp.ClientSession,
        signer: UrlSigner,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._session = session
        self._signer = signer
        self._now = now

    async def record(self, fid: Fid) -> Record | None:
        """The record that is stored beside a photo; None when there is none.

        Raises
        ------
        Busy: no Store answers. InvalidRequest: what is there is no record.
        """
        found = await self._read(replace(fid, alternate=RECORD))
        return None if found is None else load(found.data)

    async def write_record(self, record: Record) -> None:
        """Store a record in place of the one that is there. Raises Busy, and HaystackError of lookups."""
        fid = Fid.parse(record.fid)
        locations = await self._client.lookup(fid.volume)
        primary = next((one for one in locations if one.primary), locations[0])
        await self._put(primary.url, fid, [record_needle(record)])

    async def copy(self, fid: Fid, renditions: Sequence[int], visibility: Visibility) -> list[Needle]:
        """All pictures of a photo, to be stored anew. Raises Busy, NeedleNotFound."""
        needles = []
        for alternate in renditions:
            found = await self._read(replace(fid, alternate=alternate))
            if found is None:
                if alternate == ORIGINAL:
                    raise NeedleNotFound(f"{fid}: the photo is not in the store any more")
                continue
            hidden = visibility is not Visibility.PUBLIC or alternate == UNTOUCHED
            needles.append(Needle(alternate, found.mime, found.name, found.data, hidden))
        return needles

    async def assign(self) -> tuple[Fid, str]:
        """A new name for a photo, and the Store to write it to. Raises Unreachable, VolumeUnavailable."""
        assignment = await self._client.assign(ALTERNATES)
        return assignment.fid, assignment.location.url

    async def write(self, address: str, fid: Fid, needles: Sequence[Needle], record: Record) -> None:
        """Store needles and record under a name of :meth:`assign`. Raises Busy."""
        await self._put(address, fid, [*needles, record_needle(record)])

    async def remove(self, fid: Fid, renditions: Sequence[int]) -> None:
        """Delete needles for good; those that are gone already do not matter. Raises HaystackError."""
        for alternate in (*renditions, RECORD):
            try:
                await self._client.delete(str(replace(fid, alternate=alternate)), now=True)
            except NeedleNotFound:
                continue

    async def _put(self, address: str, fid: Fid, needles: Sequence[Needle]) -> None:
        try:
            await StoreWriter(self._session, address, self._signer).write(fid, needles)
        except (NotStored, MaybeStored) as error:
            raise Busy(str(error)) from error

    async def _read(self, fid: Fid) -> _Read | None:
        """A needle; None when no Store has it, also asked where the volume is by now. Raises Busy."""
        urls = await self._client.read_urls(fid)
        found = await self._read_at(fid, urls)
        if found is None:
            self._client.doubt(fid.volume)
            if set(now := await self._client.read_urls(fid)) != set(urls):
                found = await self._read_at(fid, now)
        return found

    async def _read_at(self, fid: Fid, urls: Sequence[str]) -> _Read | None:
        query = self._signer.query(fid, int(self._now()) + _READ_SECONDS)
        problem = "no Store has the volume"
        missing = 0
        for url in urls:
            try:
                async with self._session.get(f"{url}?{query}") as response:
                    if response.status == 200:
                        data = await read_limited(response, MAX_NEEDLE_BYTES)
                        name = file_name(response.headers.get("Content-Disposition", ""))
                        return _Read(response.headers.get("Content-Type", RECORD_MIME), name, data)
                    missing += response.status == 404
                    problem = f"{response.status} from {url}"
            except CONNECTION_ERRORS as error:
                problem = in_words(error)
        if missing == len(urls):
            return None
        raise Busy(f"a photo cannot be read from the store now: {problem}")
