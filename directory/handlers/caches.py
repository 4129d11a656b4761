"""What Caches say and ask, and what Stores say for their sake. Signed when the cluster has a secret."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from directory.caches.messages import parse_cache_beat, parse_cache_id, parse_word
from directory.service import Service
from directory.signed import SignedCalls
from directory.web import json_response, number
from haystack.errors import InvalidRequest, VolumeNotFound, VolumeUnavailable
from haystack.fid import MAX_VOLUME_ID, Fid

MAX_WAIT_SECONDS = 10.0
MAX_HOTTEST = 10_000
MAX_SEQUENCE = 10**15

WORD_SECONDS = 0.2
"""How often Stores say how far they have told everything, while there are Caches. Well below the age at which their
word counts no more (:data:`directory.decisions.freshness.FRESH_SECONDS`), so that one that is late does no harm."""


class CacheHandlers:
    """Handlers for Caches.

    Parameters
    ----------
    signed: checks signatures.
    heartbeat_seconds: how often Caches are told to report.
    """

    def __init__(self, service: Service, signed: SignedCalls, heartbeat_seconds: float) -> None:
        self._service = service
        self._signed = signed
        self._heartbeat_seconds = heartbeat_seconds

    async def beat(self, request: web.Request) -> web.Response:
        """Hear that a Cache is there, and how it does."""
        beat = parse_cache_beat(await self._signed.document(request))
        self._service.caches.beat(beat)
        self._service.heat.take_photos(beat.cache_id, beat.hot, self._service.clock())
        self._service.heat.count_hits(beat.hits)
        changes = self._service.feed.changes
        return json_response(
            request,
            {
                "known": True,
                "clusterId": self._service.cluster_id,
                "heartbeatSeconds": self._heartbeat_seconds,
                "feed": {"incarnation": changes.incarnation, "sequence": changes.sequence},
            },
        )

    async def leave(self, request: web.Request) -> web.Response:
        """Hear that a Cache stops."""
        cache_id = parse_cache_id(await self._signed.document(request))
        self._service.caches.leave(cache_id)
        self._service.heat.forget(cache_id)
        return json_response(request, {})

    async def caches(self, request: web.Request) -> web.Response:
        """Name the living Caches, for clients that choose by themselves (:mod:`haystack.rendezvous`)."""
        return json_response(request, self._service.caches.handed_out())

    async def changes(self, request: web.Request) -> web.Response:
        """Tell a Cache what takes back an answer that it may have kept; wait for that if there is nothing."""
        await self._signed.body(request)
        given = request.query
        incarnation = given.get("incarnation", "")
        after = number(given, "after", default=0, most=MAX_SEQUENCE)
        wait_seconds = _seconds(given.get("wait", "0"))
        self._service.caches.wanted()
        feed = self._service.feed
        if wait_seconds:
            await feed.changes.wait(incarnation, after, wait_seconds)
        return json_response(request, feed.answer(incarnation, after))

    async def volume(self, request: web.Request) -> web.Response:
        """Tell a Cache where a volume is, and what its needles' checksums begin with: the volume's uuid."""
        await self._signed.body(request)
        volume = number(request.query, "volume", default=0, most=MAX_VOLUME_ID)
        cluster, now = self._service.cluster, self._service.clock()
        record = cluster.records.get(volume)
        if record is None:
            raise VolumeNotFound(f"volume id {volume} not found")
        places = cluster.places(volume, now)
        if not places:
            raise VolumeUnavailable(f"volume {volume} is known, but no Store has it at the moment")
        reported = cluster.stores[record.primary].volumes.get(volume) if record.primary in cluster.stores else None
        return json_response(
            request,
            {
                "volume": volume,
                "uuid": record.uuid,
                "writable": reported is not None and reported.state == "writable" and not record.degraded_since_ms,
                "locations": [
                    {
                        "url": place.store.url,
                        "publicUrl": place.store.public_url,
                        "weight": round(place.weight, 3),
                        "primary": place.primary,
                    }
                    for place in places
                ],
            },
        )

    async def hottest(self, request: web.Request) -> web.Response:
        """Name what is asked for most, for a Cache that is to be warmed."""
        await self._signed.body(request)
        count = number(request.query, "count", default=1000, most=MAX_HOTTEST)
        fids = []
        for hot in self._service.heat.photos(count, self._service.clock()):
            photo_id = hot.photo_id
            photo = self._service.photo(photo_id)
            if photo is not None:
                names = (Fid(photo.volume, photo_id, photo.cookie, one) for one in sorted(photo.renditions))
                fids += [str(name) for name in names]
        return json_response(request, {"fids": fids[:count]})

    async def word(self, request: web.Request) -> web.Response:
        """Hear how far a Store has told what it has acknowledged."""
        word = parse_word(await self._signed.document(request))
        service = self._service
        store = service.cluster.stores.get(word.store_id)
        known = store is not None and store.registered
        if known:
            service.heard(word.store_id)
            service.feed.take_word(word)
        return json_response(request, {"known": known, "token": service.feed.token(), **word_wanted(service)})


def word_wanted(service: Service) -> dict[str, Any]:
    """Return what Stores are told about their word: how often to give it; nothing while there are no Caches."""
    return {"wordSeconds": WORD_SECONDS} if service.caches.are_wanted else {}


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MAX_WAIT_SECONDS:
        raise InvalidRequest(f"parameter wait={text[:40]!r} must be seconds from 0 to {MAX_WAIT_SECONDS:g}")
    return seconds
