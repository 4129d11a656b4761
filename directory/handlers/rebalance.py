"""``/cluster/rebalance`` and ``/cluster/decisions``: the plan that evens out load, running it, and what was decided."""

from __future__ import annotations

from aiohttp import web

from directory.fields import Fields
from directory.rebalancing.rebalancer import Rebalancer
from directory.rebalancing.status import plan_document, run_document, state_document
from directory.settings import MAX_PUBLIC_BODY_BYTES
from directory.signed import SignedCalls
from directory.web import json_response, number

DEFAULT_DECISIONS = 100
MAX_DECISIONS_TOLD = 1_000


class RebalanceHandlers:
    """Handlers for plans and decisions.

    Parameters
    ----------
    signed: checks signatures of what changes something.
    """

    def __init__(self, rebalancer: Rebalancer, signed: SignedCalls) -> None:
        self._rebalancer = rebalancer
        self._signed = signed

    async def state(self, request: web.Request) -> web.Response:
        """What runs, or ran last, and what is done by itself."""
        return json_response(request, state_document(self._rebalancer))

    async def rebalance(self, request: web.Request) -> web.Response:
        """Make a plan, and run it; with ``dryRun`` only tell it."""
        fields = Fields(await self._signed.document(request, MAX_PUBLIC_BODY_BYTES), "rebalance")
        found = await self._rebalancer.plan()
        dry_run = fields.flag("dryRun")
        run = self._rebalancer.begin(found, "operator") if found.steps and not dry_run else None
        return json_response(
            request,
            {
                "applied": not dry_run,
                **plan_document(found),
                "run": run_document(run) if run is not None else None,
                "automatic": state_document(self._rebalancer)["automatic"],
            },
        )

    async def stop(self, request: web.Request) -> web.Response:
        """Begin no more steps of the run that is under way."""
        await self._signed.document(request, MAX_PUBLIC_BODY_BYTES)
        return json_response(request, {"stopped": self._rebalancer.stop()})

    async def decisions(self, request: web.Request) -> web.Response:
        """The last decisions, the newest first."""
        limit = number(request.query, "limit", default=DEFAULT_DECISIONS, most=MAX_DECISIONS_TOLD)
        found = self._rebalancer.decisions.latest(limit)
        return json_response(request, {"decisions": [one.document() for one in found]})
