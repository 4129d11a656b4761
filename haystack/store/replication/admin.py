"""What the Directory asks of a supervisor about memberships."""

from __future__ import annotations

from aiohttp import web

from haystack.errors import InvalidRequest
from haystack.store.admin_requests import body_of, volume_of, whole
from haystack.store.replication.membership import MAX_EPOCH, parse_member, parse_membership
from haystack.store.replication.memberships import Granted, Memberships, NewerEpoch, OtherGeneration
from haystack.store.replication.outgoing import Outgoing
from haystack.store.volumes import StoreVolumes


class MembershipApi:
    """``PUT /admin/volumes/<id>/membership`` and ``POST /admin/volumes/<id>/admit``."""

    def __init__(self, volumes: StoreVolumes, memberships: Memberships, outgoing: Outgoing) -> None:
        self._volumes = volumes
        self._memberships = memberships
        self._outgoing = outgoing

    def add_routes(self, app: web.Application) -> None:
        """Add the calls to an application."""
        app.router.add_put("/admin/volumes/{volume}/membership", self._push)
        app.router.add_post("/admin/volumes/{volume}/admit", self._admit)

    async def _push(self, request: web.Request) -> web.Response:
        entry = self._volumes.get(volume_of(request))
        pushed = parse_membership(await body_of(request))
        try:
            return _granted(await self._memberships.push(entry, pushed))
        except NewerEpoch as error:
            return _newer(error)
        except OtherGeneration as error:
            document = {"error": str(error), "generation": error.generation}
            return web.json_response(document, status=error.http_status)

    async def _admit(self, request: web.Request) -> web.Response:
        entry = self._volumes.get(volume_of(request))
        document = await body_of(request)
        epoch = whole(document, "epoch", MAX_EPOCH)
        member = parse_member(document.get("member"))
        if member.store_id == self._memberships.store_id:
            raise InvalidRequest("a primary cannot be its own copy")
        try:
            return _granted(await self._outgoing.admit(entry, epoch, member))
        except NewerEpoch as error:
            return _newer(error)


def _granted(granted: Granted) -> web.Response:
    return web.json_response({"epoch": granted.epoch, "tail": granted.tail})


def _newer(error: NewerEpoch) -> web.Response:
    return web.json_response({"error": str(error), "epoch": error.epoch}, status=error.http_status)
