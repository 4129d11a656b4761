"""The life of a node's main process: its parts side by side until it is told to stop, and what the system allows it."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Coroutine, Sequence
from typing import Any


async def run_until(stop: asyncio.Event, parts: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run the parts side by side until ``stop`` is set; raises the error of the first one that fails."""
    stopped = asyncio.create_task(stop.wait())
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        pending: set[asyncio.Task[Any]] = {stopped, *tasks}
        while not stopped.done():
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        for task in (stopped, *tasks):
            task.cancel()
        await asyncio.gather(stopped, *tasks, return_exceptions=True)


def raise_file_limit() -> None:
    """Allow as many open files as the system lets us: volumes, indexes and connections all need some."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
