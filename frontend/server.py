"""Runs a front end: database, services, HTTP."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvloop
from aiohttp import web

from frontend.app import make_app
from frontend.database.engine import Database
from frontend.database.migrating import migrate
from frontend.services.passwords import Passwords
from frontend.services.site import open_site, secret_of
from haystack.config import FrontendSettings
from haystack.errors import ConfigError
from haystack.lifetime import raise_file_limit
from haystack.worker_process import keep_what_exists

STOP_SECONDS = 10.0
"""Time that requests in flight have to finish at a stop."""

log = logging.getLogger(__name__)


def run(settings: FrontendSettings) -> None:
    """Run a front end until SIGTERM or SIGINT.

    Raises
    ------
    ConfigError: the database or the address cannot be used, or there is no secret.
    """
    raise_file_limit()
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)  # eight lines about itself
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(settings))


async def _run(settings: FrontendSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serve(settings) as address:
        shown = Database.shown(settings.database)
        # A hundred thousand objects: a collection of garbage that goes through them holds up a request for 60 ms.
        keep_what_exists()
        print(f"frontend: listening on {address}, data in {shown}", flush=True)
        await stop.wait()
        log.info("stopping")


@asynccontextmanager
async def serve(settings: FrontendSettings, passwords: Passwords | None = None) -> AsyncIterator[str]:
    """Run a front end inside the running event loop; yields its address, ``http://host:port``. Raises as :func:`run`.

    Parameters
    ----------
    passwords: by default with the cost that is right for production.
    """
    secret_of(settings)
    database = Database(settings.database)
    try:
        await asyncio.to_thread(migrate, database)
        async with open_site(settings, database, passwords) as site:
            runner = web.AppRunner(make_app(site), shutdown_timeout=STOP_SECONDS, access_log=None)
            await runner.setup()
            try:
                yield await _listen(settings, runner)
            finally:
                await runner.cleanup()
    finally:
        await asyncio.to_thread(database.close)


async def _listen(settings: FrontendSettings, runner: web.AppRunner) -> str:
    site = web.TCPSite(runner, settings.host, settings.port, backlog=1024)
    try:
        await site.start()
    except OSError as error:
        raise ConfigError(
            f"frontend.host, frontend.port: cannot listen on {settings.host}:{settings.port}: {error.strerror or error}"
        ) from error
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{runner.addresses[0][1]}"
