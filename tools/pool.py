"""Many pieces of work, so many at a time, with an end when the cluster is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from haystack.client import Refused, Unreachable
from haystack.errors import HaystackError, OutOfSpace, VolumeUnavailable

MAX_CLUSTER_FAILURES_IN_A_ROW = 50
"""Pieces given up, with no success between, before the cluster is taken for gone and the work stops."""

CLUSTER_ERRORS = (Unreachable, VolumeUnavailable, OutOfSpace, Refused)
"""Failures that say something of the cluster and nothing of the file."""

_Item = TypeVar("_Item")


class ClusterGone(HaystackError):
    """So much failed one after the other that going on makes no sense."""


class FailureRun:
    """Counts failures of the cluster that follow each other."""

    def __init__(self) -> None:
        self._length = 0

    def succeeded(self) -> None:
        """Begin to count anew."""
        self._length = 0

    def failed(self, error: Exception) -> None:
        """Count a failure if it is one of the cluster. Raises ClusterGone when there are too many."""
        if not isinstance(error, CLUSTER_ERRORS):
            return
        self._length += 1
        if self._length >= MAX_CLUSTER_FAILURES_IN_A_ROW:
            raise ClusterGone(f"stopped after {self._length} failures in a row; the last one: {error}") from error


async def run_pool(items: AsyncIterator[_Item], work: Callable[[_Item], Awaitable[None]], jobs: int) -> None:
    """Do ``work`` for every item, ``jobs`` at a time; few items are held in memory.

    The first error that ``work`` or ``items`` raise ends it all, and is raised.
    """
    queue: asyncio.Queue[_Item] = asyncio.Queue(maxsize=jobs * 2)

    async def worker() -> None:
        while True:
            item = await queue.get()
            try:
                await work(item)
            finally:
                queue.task_done()

    try:
        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(worker()) for _ in range(jobs)]
            async for item in items:
                await queue.put(item)
            await queue.join()
            for task in workers:
                task.cancel()
    except ExceptionGroup as group_error:
        raise group_error.exceptions[0] from None
