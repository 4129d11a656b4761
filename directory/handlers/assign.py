"""``/dir/assign`` and ``/vol/…``: where new photos go, and room for them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

from aiohttp import web

from directory.assigning.assigner import Assigner
from directory.assigning.grower import Grower
from directory.decisions.choice import ANYWHERE, Where
from directory.errors import NothingWritable
from directory.settings import MAX_ASSIGN_COUNT, MAX_ASSIGN_PHOTOS, MAX_GROW_COUNT
from directory.web import json_response, number, parameters, replication
from haystack.ttl import expiry, parse_ttl


class AssignHandlers:
    """Handlers that give places to photos."""

    def __init__(self, assigner: Assigner, grower: Grower) -> None:
        self._assigner = assigner
        self._grower = grower

    async def assign(self, request: web.Request) -> web.Response:
        """Name a new photo. With ``count=n``, ``<fid>_1`` … ``<fid>_<n-1>`` may be used too.

        With ``photos=n``, the answer's ``fids`` are names of so many photos, all of one volume. A ``ttl`` is carried by
        the names, for uploads that say nothing else: any volume takes photos of any life.
        """
        given = await parameters(request)
        if not given:
            fid, store = await self._assigner.assign()
            # The usual call, written out: addresses were checked at registration and hold nothing to escape.
            text = f'{{"fid":"{fid}","url":"{store.url}","publicUrl":"{store.public_url}","count":1'
            if services := self._assigner.services(store):
                text += f',"services":{json.dumps(services)}'
            text += "}"
            return web.Response(body=text.encode(), content_type="application/json")
        count = number(given, "count", default=1, most=MAX_ASSIGN_COUNT)
        photos = number(given, "photos", default=1, most=MAX_ASSIGN_PHOTOS)
        ttl = given.get("ttl", "")
        ttl_seconds = parse_ttl(ttl)
        expiry(ttl_seconds, int(time.time() * 1000))
        fid, store = await self._assigner.assign(_where(given), replication(given), ttl_seconds)
        document: dict[str, object] = {"fid": str(fid), "url": store.url, "publicUrl": store.public_url, "count": count}
        if services := self._assigner.services(store):
            document["services"] = services
        if photos > 1:
            document["fids"] = [str(fid), *map(str, await self._assigner.more(fid.volume, photos - 1, ttl_seconds))]
        if ttl:
            document["ttl"] = ttl
        return json_response(request, document)

    async def grow(self, request: web.Request) -> web.Response:
        """Make more volumes now."""
        given = await parameters(request)
        count = number(given, "count", default=1, most=MAX_GROW_COUNT)
        grown = await self._grower.grow(count, _where(given), replication(given))
        if not grown.volumes:
            raise NothingWritable(f"no volume could be made: {grown.reason}")
        document = {"count": len(grown.volumes), "volumes": list(grown.volumes)}
        if grown.reason:
            document["reason"] = f"{count} were asked for: {grown.reason}"
        return json_response(request, document)


def _where(given: Mapping[str, str]) -> Where:
    data_center, rack, node = given.get("dataCenter", ""), given.get("rack", ""), given.get("dataNode", "")
    return Where(data_center, rack, node) if data_center or rack or node else ANYWHERE
