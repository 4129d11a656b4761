"""Uploads: a name, a Store, and another name and another Store when that one does not take the photo."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from haystack.client.assigning import NamePool
from haystack.client.directory import Assignment
from haystack.client.errors import Refused, UnexpectedAnswer, Unreachable, WrongContent
from haystack.client.health import StoreHealth
from haystack.client.locations import Location, for_writing
from haystack.client.photo import StoredPhoto, plain_etag
from haystack.client.retry import RetryPolicy, Transient
from haystack.client.sources import Source
from haystack.client.transport import Answer, Transport
from haystack.errors import DiskError, VolumeNotFound
from haystack.fid import Fid

DEFAULT_DEADLINE_SECONDS = 10.0
"""No attempt begins later than this."""

SILENCE_SECONDS = 3.0
"""How long a Store may keep an upload without a word while another one could take it; twice as long each time.

A Directory gives a Store up after the same time. One whose replica has failed mostly answers sooner."""

MAX_NAMES_ASIDE = 4
"""Names that are thrown away, one after the other, since their Store failed lately."""

_REFUSALS = (Refused, VolumeNotFound, DiskError)


@dataclass(slots=True)
class Upload:
    """One upload over its attempts.

    Parameters
    ----------
    fid: given by the caller: this name and no other.
    alternate: number of the rendition.
    ttl: how long it is to live, in SeaweedFS notation; empty for ever.
    silences: how often a Store kept it without a word.
    """

    source: Source
    headers: dict[str, str]
    fid: Fid | None
    alternate: int
    replication: str | None
    ttl: str = ""
    silences: int = 0


class Uploader:
    """Stores photos.

    Parameters
    ----------
    where: returns the places of a volume, for uploads under a given name.
    doubt: is told of a volume whose place may have changed.
    """

    def __init__(
        self,
        transport: Transport,
        names: NamePool,
        health: StoreHealth,
        policy: RetryPolicy,
        *,
        where: Callable[[int], Awaitable[tuple[Location, ...]]],
        doubt: Callable[[int], None],
        internal: bool,
        deadline_seconds: float,
    ) -> None:
        self._transport = transport
        self._names = names
        self._health = health
        self._policy = policy
        self._where = where
        self._doubt = doubt
        self._internal = internal
        self._deadline_seconds = deadline_seconds

    async def run(self, upload: Upload) -> StoredPhoto:
        """Store a photo. Raises as ``HaystackClient.upload`` says."""
        return await self._policy.run(lambda: self._attempt(upload), within_seconds=self._deadline_seconds)

    async def _attempt(self, upload: Upload) -> StoredPhoto:
        fid, location = await self._place(upload)
        address = location.base(internal=self._internal)
        try:
            answer = await self._transport.fetch(
                "POST",
                f"{address}/{fid}" + (f"?ttl={upload.ttl}" if upload.ttl else ""),
                headers=upload.headers,
                source=upload.source,
                patience_seconds=self._patience_seconds(upload),
                not_found=VolumeNotFound,
            )
        except (Transient, *_REFUSALS) as failure:
            self._failed(upload, fid, address, failure)
            if isinstance(failure, Transient):
                if not upload.source.repeatable:
                    raise failure.error from failure
                # How long this Store wants to be left alone does not matter: the next name is of another volume, and
                # that of the caller may have another primary by now.
                raise Transient(failure.error) from failure
            # This volume does not take it; another may. Whoever gave the name gets the reason.
            if upload.fid is not None or not upload.source.repeatable:
                raise
            raise Transient(failure) from failure
        self._health.worked(address)
        return stored(answer, upload.source.size_bytes, fid, f"{location.base(internal=False)}/{fid}")

    async def _place(self, upload: Upload) -> tuple[Fid, Location]:
        if upload.fid is not None:
            places = await self._where(upload.fid.volume)
            order = self._health.in_order(for_writing(places), lambda one: (one.base(internal=self._internal),))
            return upload.fid, order[0]
        name = await self._name(upload.replication)
        return Fid(name.fid.volume, name.fid.key, name.fid.cookie, upload.alternate), name.location

    async def _name(self, replication: str | None) -> Assignment:
        """Return a new name, of a Store that did not fail lately if the Directory gives one."""
        name = await self._names.take(replication)
        for _ in range(MAX_NAMES_ASIDE):
            if not self._health.suspect(name.location.base(internal=self._internal)):
                break
            self._names.refuse(name.fid.volume)
            name = await self._names.take(replication)
        return name

    def _patience_seconds(self, upload: Upload) -> float | None:
        if upload.fid is not None or not upload.source.repeatable:
            return None
        return SILENCE_SECONDS * 2.0 ** min(upload.silences, 16)

    def _failed(self, upload: Upload, fid: Fid, address: str, failure: Exception) -> None:
        self._names.refuse(fid.volume)
        self._doubt(fid.volume)
        if isinstance(failure, Transient) and isinstance(failure.error, Unreachable):
            self._health.failed(address)
            upload.silences += not failure.error.unsent


def stored(answer: Answer, sent_bytes: int | None, fid: Fid, url: str) -> StoredPhoto:
    """Read a Store's answer to an upload. Raises WrongContent, UnexpectedAnswer."""
    document = answer.json()
    size_bytes = int(answer.field("size", int))
    if sent_bytes is not None and size_bytes != sent_bytes:
        raise WrongContent(f"{answer.request}: the Store counted {size_bytes} bytes where {sent_bytes} were sent")
    etag, locator = document.get("eTag"), document.get("locator")
    if not isinstance(etag, str) or not isinstance(locator, str | None):
        raise UnexpectedAnswer(f"{answer.request}: the answer has no text 'eTag' or 'locator': {document}")
    return StoredPhoto(str(fid), locator or "", size_bytes, plain_etag(etag), url)
