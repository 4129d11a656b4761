"""The calls to the Directory: assign, lookup, photo, status; with failover between several Directories."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, TypeVar
from urllib.parse import urlencode

from haystack.client.caches import CacheList, parse_caches
from haystack.client.errors import UnexpectedAnswer, Unreachable
from haystack.client.locations import Location, with_scheme
from haystack.client.retry import Transient
from haystack.client.transport import Answer, Transport, field_of
from haystack.errors import ConfigError, InvalidFid, NeedleNotFound, VolumeNotFound
from haystack.fid import Fid

ASSIGN_PATIENCE_SECONDS = 10.0
"""A Directory waits up to 5 s for a volume that is being made."""

LOOKUP_PATIENCE_SECONDS = 5.0
CACHES_PATIENCE_SECONDS = 1.0

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Assignment:
    """A name for a new photo and the Store that takes it.

    Parameters
    ----------
    fid: the original's name; with ``count`` n, alternate keys 1 … n-1 of the same photo are ours too.
    location: the Store.
    count: how many renditions it is for.
    services: other servers on the Store's machine, name → address.
    """

    fid: Fid
    location: Location
    count: int
    services: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KnownStore:
    """A Store, and other servers on its machine: name → address."""

    location: Location
    services: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PhotoRecord:
    """What the Directory knows of a photo: its original (or first rendition), and all of its answer."""

    fid: Fid
    document: dict[str, Any]


class DirectoryCalls:
    """Talks to whichever Directory answers, beginning with the one that answered last."""

    def __init__(self, urls: Sequence[str], transport: Transport) -> None:
        if not urls:
            raise ConfigError("a client needs the address of at least one Directory, as in http://127.0.0.1:9333")
        self._urls = [with_scheme(url) for url in urls]
        self._transport = transport

    async def assign(self, count: int, replication: str | None) -> Assignment:
        """Ask for a name. Raises Transient when no Directory answers, or nothing is writable at the moment."""
        answer = await self._assign({"count": str(count)} if count != 1 else {}, replication)
        return _assignments(answer, [answer.field("fid", str)], count)[0]

    async def names(self, count: int, replication: str | None) -> list[Assignment]:
        """Ask for names of so many photos, all of one volume. Raises as :meth:`assign`; fewer may come."""
        answer = await self._assign({"photos": str(count)} if count != 1 else {}, replication)
        document = answer.json()
        return _assignments(answer, document.get("fids", [document.get("fid")]), 1)

    async def _assign(self, query: dict[str, str], replication: str | None) -> Answer:
        if replication is not None:
            query["replication"] = replication
        suffix = f"?{urlencode(query)}" if query else ""
        return await self._any(
            lambda base: self._transport.fetch(
                "POST", f"{base}/dir/assign{suffix}", patience_seconds=ASSIGN_PATIENCE_SECONDS
            )
        )

    async def lookup(self, volume: int, *, patience_seconds: float = LOOKUP_PATIENCE_SECONDS) -> tuple[Location, ...]:
        """Ask where a volume is. Raises VolumeNotFound, Transient."""

        async def ask(base: str) -> tuple[Location, ...]:
            answer = await self._transport.fetch(
                "GET",
                f"{base}/dir/lookup?volumeId={volume}",
                patience_seconds=patience_seconds,
                not_found=VolumeNotFound,
            )
            found = answer.field("locations", list)
            locations = tuple(_location(one, answer.request) for one in found if isinstance(one, dict))
            if not locations:
                raise VolumeNotFound(f"{answer.request}: volume {volume} is on no Store at the moment")
            return locations

        return await self._any(ask)

    async def caches(self) -> CacheList:
        """Ask for the Caches. Raises Transient, and NeedleNotFound when the Directory knows of none such."""

        async def ask(base: str) -> CacheList:
            answer = await self._transport.fetch("GET", f"{base}/dir/caches", patience_seconds=CACHES_PATIENCE_SECONDS)
            return parse_caches(answer.json())

        return await self._any(ask)

    async def photo(self, photo_id: int) -> PhotoRecord:
        """Ask for a photo. Raises NeedleNotFound, Transient."""

        async def ask(base: str) -> PhotoRecord:
            answer = await self._transport.fetch("GET", f"{base}/photos/{photo_id:x}", not_found=NeedleNotFound)
            renditions = answer.field("renditions", list)
            if not renditions or not isinstance(renditions[0], dict):
                raise UnexpectedAnswer(f"{answer.request}: the answer has no rendition of the photo")
            # They come in the order of their alternate keys: the original first, if it is there.
            return PhotoRecord(_fid(field_of(renditions[0], "fid", str, answer.request), answer.request), answer.json())

        return await self._any(ask)

    async def stores(self) -> list[KnownStore]:
        """Ask for all Stores. Raises Transient."""

        async def ask(base: str) -> list[KnownStore]:
            answer = await self._transport.fetch("GET", f"{base}/cluster/nodes")
            nodes = [one for one in answer.field("nodes", list) if isinstance(one, dict)]
            return [KnownStore(_location(one, answer.request), _services(one)) for one in nodes]

        return await self._any(ask)

    async def status(self) -> dict[str, Any]:
        """Return the answer of ``/cluster/status``. Raises Transient."""

        async def ask(base: str) -> dict[str, Any]:
            return (await self._transport.fetch("GET", f"{base}/cluster/status")).json()

        return await self._any(ask)

    async def _any(self, ask: Callable[[str], Awaitable[_Result]]) -> _Result:
        failures: list[Transient] = []
        for base in list(self._urls):
            try:
                result = await ask(base)
            except Transient as failure:
                failures.append(failure)
                continue
            if base != self._urls[0]:
                self._urls.remove(base)
                self._urls.insert(0, base)
            return result
        # A Directory that gave a reason tells more than one that could not be reached.
        raise next((one for one in failures if not isinstance(one.error, Unreachable)), failures[0])


def _assignments(answer: Answer, texts: Any, count: int) -> list[Assignment]:
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise UnexpectedAnswer(f"{answer.request}: the answer has no text 'fid' and no list of texts 'fids'")
    document = answer.json()
    location, services = _location(document, answer.request), _services(document)
    return [Assignment(_fid(text, answer.request), location, count, services) for text in texts]


def _services(document: dict[str, Any]) -> dict[str, str]:
    found = document.get("services")
    if not isinstance(found, dict):
        return {}
    return {name: address for name, address in found.items() if isinstance(address, str)}


def _fid(text: str, request: str) -> Fid:
    try:
        return Fid.parse(text)
    except InvalidFid as error:
        raise UnexpectedAnswer(f"{request}: {error}") from error


def _location(document: dict[str, Any], request: str) -> Location:
    url = field_of(document, "url", str, request)
    public_url = document.get("publicUrl")
    return Location(
        url,
        public_url if isinstance(public_url, str) else url,
        _weight(document.get("weight", 1.0), request),
        document.get("primary") is True,
    )


def _weight(value: Any, request: str) -> float:
    if type(value) not in (int, float) or not (isfinite(value) and value >= 0):
        raise UnexpectedAnswer(f"{request}: the answer has a location of weight {str(value)[:40]}")
    return float(value)
