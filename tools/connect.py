"""How the transfer commands reach a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

from haystack.client import HaystackClient
from tools.app import App

MAX_JOBS = 512
"""Transfers at the same time that a command may be asked for."""

_Result = TypeVar("_Result")


def connect(app: App, *, jobs: int = 8) -> HaystackClient:
    """Return a client, still to be opened, for this many transfers at a time. Raises ConfigError."""
    return HaystackClient(app.directory_urls(), max_concurrency=jobs)


def run_async(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run the coroutine of a command to its end; Ctrl-C cancels it and raises KeyboardInterrupt."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
