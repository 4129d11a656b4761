"""Connections of a Directory: their number and the time of their first request have a limit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from aiohttp import web

from directory.settings import FIRST_REQUEST_SECONDS, KEEPALIVE_SECONDS, MAX_CONNECTIONS
from haystack import connections
from haystack.connections import ConnectionLimits

access_log = logging.getLogger("directory.access")
access_log.setLevel(logging.WARNING)
"""A line for each request is worth its time only when somebody is looking: set the level to INFO for it."""


def protocol_factory(manager: web.Server, loop: asyncio.AbstractEventLoop) -> Callable[[], asyncio.Protocol]:
    """Return what makes the protocol of each new connection."""

    def make() -> asyncio.Protocol:
        limits = ConnectionLimits(MAX_CONNECTIONS, FIRST_REQUEST_SECONDS, KEEPALIVE_SECONDS)
        return connections.protocol_factory(manager, loop, limits, access_log)()

    return make
