"""The admin API of a Store: what the Directory and the tools ask of its supervisor."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from aiohttp import web

from haystack.errors import HaystackError, InvalidRequest, VolumeUnavailable
from haystack.fid import MAX_OFFSET, MAX_VOLUME_ID
from haystack.internal_http import json_errors, signed_calls
from haystack.metrics_page import CONTENT_TYPE
from haystack.security import Verifier
from haystack.store.admin_requests import body_of, number, uuid, volume_of, whole
from haystack.store.control_cells import Header
from haystack.store.documents import Document, Documents
from haystack.store.metrics import render
from haystack.store.needles import MAX_BATCH_NEEDLES, read_page
from haystack.store.replication.membership import Membership, parse_membership
from haystack.store.store_volume import NewVolume
from haystack.store.volumes import StoreVolumes
from haystack.volume import CheckReport, Volume, check_volume
from haystack.volume.recovery import Progress

MAX_BODY_BYTES = 1024 * 1024
"""Of a call: a piece of a volume that is imported is the largest."""

MAX_CHECKS = 2
"""Checks of volumes that run at the same time; each of them reads as fast as it can."""

MAX_GENERATION = 2**32 - 1

PREFIX = "/admin/"


class AdminApi:
    """The calls of the admin API.

    Parameters
    ----------
    secret: of the cluster; None leaves the calls unsigned.
    extra_status: what ``/admin/status`` says beside the Store document.
    more_routes: each adds calls of its own to the application.
    """

    def __init__(
        self,
        documents: Documents,
        volumes: StoreVolumes,
        *,
        secret: bytes | None,
        extra_status: Callable[[], Document] = dict,
        more_routes: Sequence[Callable[[web.Application], None]] = (),
    ) -> None:
        self._documents = documents
        self._volumes = volumes
        self._control = volumes.control
        self._extra_status = extra_status
        self._more_routes = more_routes
        self._verifier = None if secret is None else Verifier(secret)
        self._checks = 0

    def application(self) -> web.Application:
        """The aiohttp application."""
        signed = signed_calls(self._verifier, is_internal=lambda path: path.startswith(PREFIX))
        app = web.Application(middlewares=[json_errors, signed], client_max_size=MAX_BODY_BYTES)
        app.router.add_get("/admin/status", self._status)
        app.router.add_get("/admin/volumes", self._list)
        app.router.add_post("/admin/volumes", self._create)
        app.router.add_get("/admin/volumes/{volume}", self._show)
        app.router.add_get("/admin/volumes/{volume}/needles", self._needles)
        app.router.add_post("/admin/volumes/{volume}/check", self._check)
        for add_routes in self._more_routes:
            add_routes(app)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        return app

    async def _status(self, request: web.Request) -> web.Response:
        status = self._documents.store() | {"volumes": list(self._documents.volumes().values())}
        return web.json_response(status | self._extra_status())

    async def _list(self, request: web.Request) -> web.Response:
        return web.json_response({"volumes": list(self._documents.volumes().values())})

    async def _show(self, request: web.Request) -> web.Response:
        entry = self._volumes.get(volume_of(request))
        if entry.volume is not None and not entry.folder.failed:
            await self._volumes.refresh(entry)
        self._documents.volumes()
        return web.json_response(self._documents.volume(entry))

    async def _create(self, request: web.Request) -> web.Response:
        entry, is_new = await self._volumes.create(parse_new_volume(await body_of(request)))
        return web.json_response(self._documents.volume(entry), status=201 if is_new else 200)

    async def _needles(self, request: web.Request) -> web.Response:
        entry = self._volumes.get(volume_of(request))
        after = number(request, "after", 0, MAX_OFFSET)
        limit = number(request, "limit", MAX_BATCH_NEEDLES, MAX_BATCH_NEEDLES) or MAX_BATCH_NEEDLES
        # The volume that is read is the one that is open now: nothing is waited for before the thread has it.
        generation = entry.require_open().superblock.generation
        if number(request, "generation", generation, MAX_GENERATION) != generation:
            raise CompactionMeanwhile(
                f"volume {entry.id} was compacted meanwhile, and its needles lie elsewhere now; list it from the start"
            )
        page = await entry.run(read_page, after, limit, now_seconds=time.time())
        return web.json_response({"needles": page.needles, "next": page.next, "generation": generation})

    async def _check(self, request: web.Request) -> web.Response:
        entry = self._volumes.get(volume_of(request))
        # Not can_read_body, which is False when the signature was checked: that has read the body already.
        document = await body_of(request) if await request.read() else {}
        full = document.get("full", False)
        if not isinstance(full, bool):
            raise InvalidRequest("full must be true or false")
        entry.require_open()
        if self._checks >= MAX_CHECKS:
            raise VolumeUnavailable(f"{MAX_CHECKS} checks are running already; try again when one has ended")
        self._checks += 1
        try:
            report = await entry.run(_check, entry.path, full=full, progress=self._volumes.progress)
        finally:
            self._checks -= 1
        return web.json_response(report.to_json())

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def _readyz(self, request: web.Request) -> web.Response:
        cells = self._control.cells
        if cells[Header.STOPPING]:
            raise _NotReady("the Store is stopping")
        if not cells[Header.READY]:
            raise _NotReady("the Store is starting: volumes are being recovered")
        return web.json_response({"status": "ready"})

    async def _metrics(self, request: web.Request) -> web.Response:
        page = render(self._control, [folder.path for folder in self._volumes.folders])
        return web.Response(body=page, headers={"Content-Type": CONTENT_TYPE})


def _check(volume: Volume, path: Path, *, full: bool, progress: Progress) -> CheckReport:
    return check_volume(path, full=full, index=volume.index, progress=progress)


class CompactionMeanwhile(HaystackError):
    """Offsets of the generation that a call names mean something else by now."""

    http_status = 409


class _NotReady(HaystackError):
    http_status = 503


def parse_new_volume(document: Document) -> NewVolume:
    """Read what the Directory wants made. Raises InvalidRequest, naming the field."""
    volume = whole(document, "volume", MAX_VOLUME_ID)
    if volume == 0:
        raise InvalidRequest(f"volume must be 1 … {MAX_VOLUME_ID}")
    replication = document.get("replication", "000")
    if not (isinstance(replication, str) and len(replication) == 3 and replication.isascii() and replication.isdigit()):
        raise InvalidRequest(f"replication must be three digits such as 000, not {replication!r:.40}")
    folder = document.get("folder")
    if folder is not None and not isinstance(folder, str):
        raise InvalidRequest("folder must be the id of a data folder, or null")
    return NewVolume(
        volume,
        uuid(document.get("uuid")),
        int(replication),
        whole(document, "createdMs", 2**63 - 1),
        whole(document, "epoch", 2**63 - 1, default=1),
        None if document.get("maxBytes") is None else whole(document, "maxBytes", 2**63 - 1),
        folder or None,
        _membership(document),
    )


def _membership(document: Document) -> Membership | None:
    """The membership that a volume is made with; its uuid may be left out, since it is the volume's."""
    given = document.get("membership")
    if given is None:
        return None
    membership = parse_membership({"uuid": document.get("uuid")} | given if isinstance(given, dict) else given)
    if membership.uuid != str(uuid(document.get("uuid"))):
        raise InvalidRequest("the membership is of another volume than the one that is to be made")
    return membership
