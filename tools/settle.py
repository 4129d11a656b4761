"""Waiting until a cluster that was just started takes photos."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

POLL_SECONDS = 0.05
ANSWER_SECONDS = 2.0


async def wait_until_writable(directory_url: str, stores: int, *, timeout_seconds: float) -> bool:
    """Wait until all Stores have registered and a volume takes photos; False when that took too long.

    A Directory that refuses connections is not waited for: it said before that it listens, so it has died since.

    Parameters
    ----------
    directory_url: address of the Directory.
    stores: how many there should be.
    """
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    try:
        async with asyncio.timeout(timeout_seconds), aiohttp.ClientSession(timeout=timeout) as session:
            while not await _writable(session, directory_url, stores):  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(POLL_SECONDS)
    except (TimeoutError, aiohttp.ClientConnectorError):
        return False
    return True


async def _writable(session: aiohttp.ClientSession, directory_url: str, stores: int) -> bool:
    try:
        async with session.get(f"{directory_url}/cluster/status") as response:
            status: dict[str, Any] = await response.json()
        counts = status["Counts"]
        return bool(counts["storesAlive"] >= stores and counts["volumesWritable"])
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientError, TimeoutError, ValueError, KeyError):
        return False  # it is busy, or stopping; the next answer tells
