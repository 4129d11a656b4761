"""The admin API of a Cache: what operators and the tools ask of its keeper."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from cache import clock
from cache.board import KEEPER_START, Board, Cell, KeeperCell
from cache.desk import Desk
from cache.fetch import End
from cache.levels import Levels
from cache.metrics import render
from haystack.errors import HaystackError, InvalidRequest
from haystack.fid import MAX_VOLUME_ID, Fid
from haystack.internal_http import json_errors, signed_calls
from haystack.metrics_page import CONTENT_TYPE
from haystack.security import Verifier

MAX_BODY_BYTES = 8 * 2**20
MAX_NAMES = 100_000
WARM_AT_ONCE = 64
"""Photos of one call that are fetched at the same time."""

PREFIX = "/admin/"


class AdminApi:
    """The calls of the admin API.

    Parameters
    ----------
    secret: of the cluster; None leaves the calls unsigned.
    status: makes the answer of ``GET /admin/cache``.
    """

    def __init__(
        self,
        board: Board,
        levels: Levels,
        desk: Desk,
        *,
        secret: bytes | None,
        status: Callable[[], Mapping[str, Any]],
    ) -> None:
        self._board = board
        self._levels = levels
        self._desk = desk
        self._status = status
        self._verifier = None if secret is None else Verifier(secret)

    def application(self) -> web.Application:
        """The aiohttp application."""
        signed = signed_calls(self._verifier, is_internal=lambda path: path.startswith(PREFIX))
        app = web.Application(middlewares=[json_errors, signed], client_max_size=MAX_BODY_BYTES)
        app.router.add_get("/admin/cache", self._show)
        app.router.add_post("/admin/cache/purge", self._purge)
        app.router.add_post("/admin/cache/warm", self._warm)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        return app

    async def _show(self, request: web.Request) -> web.Response:
        return web.json_response(dict(self._status()))

    async def _purge(self, request: web.Request) -> web.Response:
        """Take photos out: ``{"fids": […]}``, ``{"volumes": […]}`` or ``{"all": true}``."""
        document = await _body(request)
        if document.keys() == {"fids"}:
            fids = _fids(document["fids"])
            count = sum(self._levels.drop(fid.volume, fid.key, fid.alternate) for fid in fids)
        elif document.keys() == {"volumes"}:
            count = sum(self._levels.drop_volume(volume) for volume in _volumes(document["volumes"]))
        elif document == {"all": True}:
            count = self._levels.drop_all()
        else:
            raise InvalidRequest('a purge needs one of {"fids": [...]}, {"volumes": [...]} and {"all": true}')
        self._board.cells[KEEPER_START + KeeperCell.PURGED] += count
        return web.json_response({"purged": count})

    async def _warm(self, request: web.Request) -> web.Response:
        """Fetch what is not here: ``{"fids": […]}``; answers when all of it is here, or could not be fetched."""
        document = await _body(request)
        if document.keys() != {"fids"}:
            raise InvalidRequest('warming needs {"fids": [...]}; the hottest ones the Directory knows')
        fids = list(dict.fromkeys(_fids(document["fids"])))
        counts = {"fetched": 0, "present": 0, "failed": 0}
        for start in range(0, len(fids), WARM_AT_ONCE):
            for result in await asyncio.gather(*self._desk.warm(fids[start : start + WARM_AT_ONCE])):
                if result is None:
                    counts["present"] += 1
                else:
                    counts["fetched" if result.end is End.KEPT else "failed"] += 1
        return web.json_response(counts)

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def _readyz(self, request: web.Request) -> web.Response:
        if not self._board.cells[Cell.READY] or self._board.cells[Cell.STOPPING]:
            raise _NotReady("the Cache is starting or stopping")
        return web.json_response({"status": "ready"})

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=render(self._board, clock.now_ns()), headers={"Content-Type": CONTENT_TYPE})


class _NotReady(HaystackError):
    http_status = 503


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        document = json.loads(await request.read())
    except ValueError as error:
        raise InvalidRequest(f"the body is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidRequest("the body must be a JSON object")
    return document


def _fids(value: object) -> list[Fid]:
    if not isinstance(value, list) or len(value) > MAX_NAMES or not all(isinstance(one, str) for one in value):
        raise InvalidRequest(f"fids must be a list of up to {MAX_NAMES} texts")
    return [Fid.parse(one) for one in value]


def _volumes(value: object) -> list[int]:
    if not isinstance(value, list) or len(value) > MAX_NAMES:
        raise InvalidRequest(f"volumes must be a list of up to {MAX_NAMES} numbers")
    for one in value:
        if type(one) is not int or not 1 <= one <= MAX_VOLUME_ID:
            raise InvalidRequest(f"{one!r:.40} is no volume; expected a number from 1 to {MAX_VOLUME_ID}")
    return value
