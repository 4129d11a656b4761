"""How the transfer commands reach a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

from haystack.client import HaystackClient
from haystack.client.uploading import DEFAULT_DEADLINE_SECONDS
from tools.app import App

MAX_JOBS = 512
"""Transfers at the same time that a command may be asked for."""

PATIENT_RETRIES = 7
"""Ten to twenty seconds."""

STEADY_RETRIES = 6
"""Five to ten seconds: what a cluster needs when a Store has just failed."""

HASTY_RETRIES = 2
"""About half a second."""

PATIENT_DEADLINE_SECONDS = 60.0
"""An upload of long work is begun again until then."""

_Result = TypeVar("_Result")


def connect(
    app: App, *, jobs: int = 8, patient: bool = False, steady: bool = False, via_cache: bool = True
) -> HaystackClient:
    """Return a client, still to be opened. Raises ConfigError.

    Parameters
    ----------
    jobs: requests at a time.
    patient: outlast the restart of a server, as long work should; else somebody waits for the answer.
    steady: outlast the loss of a Store, as changes should.
    via_cache: read through the Caches, if there are any.
    """
    return HaystackClient(
        app.directory_urls(),
        max_concurrency=jobs,
        retries=PATIENT_RETRIES if patient else STEADY_RETRIES if steady else HASTY_RETRIES,
        upload_deadline_seconds=PATIENT_DEADLINE_SECONDS if patient else DEFAULT_DEADLINE_SECONDS,
        via_cache=via_cache,
    )


async def check_reachable(app: App) -> None:
    """Raise Unreachable soon when there is no Directory: a wrong address need not be tried for long."""
    async with connect(app) as client:
        await client.cluster_status()


def run_async(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run the coroutine of a command to its end; Ctrl-C cancels it and raises KeyboardInterrupt."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
