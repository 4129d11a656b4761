"""``/cluster/compactions`` for the operator's tools, and ``/vol/vacuum`` as in SeaweedFS."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from directory.compaction.automatic import AutoCompaction
from directory.compaction.compactor import Compactor, Planned
from directory.fields import Fields
from directory.settings import MAX_INTERNAL_BODY_BYTES, MAX_VOLUMES_PER_STORE
from directory.signed import SignedCalls
from directory.web import json_response, parameters
from haystack.errors import InvalidRequest
from haystack.units import format_duration, format_size

GARBAGE_SHARE = 0.3
"""Volumes with less garbage are left alone by a vacuum that names no other share."""


class CompactionHandlers:
    """Handlers for compactions."""

    def __init__(self, compactor: Compactor, compacting: AutoCompaction, signed: SignedCalls) -> None:
        self._compacting = compacting
        self._compactor = compactor
        self._signed = signed

    async def list(self, request: web.Request) -> web.Response:
        """Compactions under way, and those that are over; with ``outlook`` also what becomes of each volume."""
        document: dict[str, Any] = {"compactions": self._compactor.documents()}
        if request.query.get("outlook") == "true":
            document |= {"outlook": self._compacting.outlooks(), "automatic": self._compacting.in_words()}
        return json_response(request, document)

    async def compact(self, request: web.Request) -> web.Response:
        """Compact volumes; with ``dryRun`` only say what that comes to."""
        fields = Fields(await self._signed.document(request, MAX_INTERNAL_BODY_BYTES), "compactions")
        planned = self._compactor.plan(_volumes(fields))
        dry_run = fields.flag("dryRun")
        if not dry_run:
            self._compactor.start(planned, now=fields.flag("now"))
        return json_response(
            request,
            {
                "applied": not dry_run,
                "steps": [in_words(one) for one in planned],
                "volumes": [one.document() for one in planned],
                "automatic": self._compacting.in_words(),
            },
        )

    async def vacuum(self, request: web.Request) -> web.Response:
        """Compact all volumes of which enough is garbage; returns when that has begun."""
        given = await parameters(request)
        text = given.get("garbageThreshold", "")
        try:
            share = float(text) if text else GARBAGE_SHARE
        except ValueError as error:
            raise InvalidRequest(f"garbageThreshold={text[:40]!r} is no number") from error
        planned = self._compactor.plan(None, share)
        self._compactor.start(planned, now=False)
        return json_response(
            request,
            {
                "volumes": [one.volume for one in planned if not one.obstacle],
                "skipped": {str(one.volume): one.obstacle for one in planned if one.obstacle},
            },
        )


def _volumes(fields: Fields) -> list[int] | None:
    if not fields.has("volumes"):
        return None
    volumes: list[Any] = fields.items("volumes", MAX_VOLUMES_PER_STORE)
    for volume in volumes:
        if type(volume) is not int:
            raise InvalidRequest(f"{str(volume)[:40]!r} is no volume id")
    return sorted(set(volumes))


def in_words(one: Planned) -> str:
    """What compacting one volume comes to."""
    where = f" on {one.store.url}" if one.store is not None else ""
    if one.obstacle:
        return f"volume {one.volume}{where} cannot be compacted: {one.obstacle}"
    if one.copies > 1:
        where += f" and its other {'copy' if one.copies == 2 else f'{one.copies - 1} copies'}"
    each = " each" if one.copies > 1 else ""
    return (
        f"compact volume {one.volume}{where}: wins at most {format_size(one.gain_bytes)} of "
        f"{format_size(one.size_bytes)}, needs {format_size(one.needed_bytes)} of the {format_size(one.free_bytes)} "
        f"that are free{each}, takes about {format_duration(max(1.0, one.seconds))}"
    )
