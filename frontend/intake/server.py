"""Runs an intake: its folder, its pool, its HTTP server, and what it does by itself."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
import uvloop
from aiohttp import web

from frontend.images.pool import ImagePool
from frontend.intake.app import Parts, make_app
from frontend.intake.desk import Desk
from frontend.intake.outbox import Outbox
from frontend.intake.publishing import Publisher
from frontend.intake.settings import IntakeSettings
from frontend.intake.store import StoreWriter
from frontend.intake.taking import Taker
from frontend.intake.uploads import BOOT_ID, Uploads
from frontend.tickets import TicketOffice
from haystack.connections import ConnectionLimits, protocol_factory
from haystack.errors import ConfigError, DiskError, FolderError
from haystack.lifetime import raise_file_limit, run_until
from haystack.signed_urls import UrlSigner

LIMITS = ConnectionLimits(connections=2000, first_request_seconds=10.0, keepalive_seconds=75.0)
SWEEP_SECONDS = 60.0
AFTER_ERROR_SECONDS = 1.0
STOP_SECONDS = 20.0
"""Time that requests in flight have to finish at a stop."""

_log = logging.getLogger(__name__)
_access_log = logging.getLogger("intake.access")
_access_log.setLevel(logging.WARNING)
"""A line for each request is worth its time only when somebody is looking: set the level to INFO for it."""


def run(settings: IntakeSettings) -> None:
    """Run an intake until SIGTERM or SIGINT.

    Raises
    ------
    FolderError, DiskError: its folder cannot be used.
    ConfigError: the address cannot be listened on.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(settings))


async def _run(settings: IntakeSettings) -> None:
    raise_file_limit()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serve(settings) as address:
        print(f"intake: listening on {address}, data in {settings.data}", flush=True)
        await stop.wait()
        _log.info("stopping")


@asynccontextmanager
async def serve(settings: IntakeSettings) -> AsyncIterator[str]:
    """Run an intake inside the running event loop; yields its address, ``http://host:port``.

    At the end requests in flight finish, for at most :data:`STOP_SECONDS`. Raises as :func:`run`.
    """
    with _locked_folder(settings.data):
        outbox = Outbox(settings.data / "outbox.sqlite")
        try:
            async with (
                aiohttp.ClientSession(auto_decompress=False) as session,
                ImagePool(
                    settings.images,
                    processes=settings.image_processes,
                    waiting=settings.max_waiting_images,
                    task_seconds=settings.image_seconds,
                    memory_bytes=settings.image_memory_bytes,
                ) as pool,
                _working(settings, outbox, session, pool) as parts,
                _listening(settings, parts) as address,
            ):
                yield address
        finally:
            outbox.close()


@asynccontextmanager
async def _working(
    settings: IntakeSettings, outbox: Outbox, session: aiohttp.ClientSession, pool: ImagePool
) -> AsyncIterator[Parts]:
    """The parts, and what they do by themselves."""
    uploads = Uploads(
        settings.data / "uploads",
        max_uploads=settings.max_uploads,
        max_bytes=settings.max_uploads_bytes,
        boot_id=BOOT_ID.read_text(),
    )
    store = StoreWriter(
        session, settings.store, UrlSigner(settings.secret), timeout_seconds=settings.store_timeout_seconds
    )
    taker = Taker(TicketOffice(settings.secret), outbox, pool, store, stored=lambda: publisher.wake(), now_ms=_now_ms)
    publisher = Publisher(session, settings.frontends, settings.secret, outbox, taker.on_disk, _now_ms)
    stop = asyncio.Event()
    chores = asyncio.create_task(
        run_until(
            stop,
            [_for_ever(publisher.run), _for_ever(taker.settle), _for_ever(lambda: _sweep(uploads))],
        )
    )
    try:
        yield Parts(Desk(taker, uploads), outbox, pool, publisher, store)
    finally:
        stop.set()
        await chores
        await taker.close()


async def _for_ever(act: Callable[[], Awaitable[None]]) -> None:
    """Keep a chore going, also when the disk fails for a while."""
    while True:
        try:
            await act()
        except DiskError as error:
            _log.error("trying again: %s", error)
            await asyncio.sleep(AFTER_ERROR_SECONDS)
        except Exception:  # a defect of ours: photos must still be published
            _log.exception("a chore failed, and is begun again")
            await asyncio.sleep(AFTER_ERROR_SECONDS)


async def _sweep(uploads: Uploads) -> None:
    removed = await asyncio.to_thread(uploads.remove_expired, time.time())
    if removed:
        _log.info("%d uploads that were not finished in time were removed", removed)
    await asyncio.sleep(SWEEP_SECONDS)


@contextmanager
def _locked_folder(folder: Path) -> Iterator[None]:
    """Hold an intake's folder against any other one. Raises FolderError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "intake.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise FolderError(f"{folder}: cannot be used as data folder: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderError(f"{folder}: in use by another intake; stop that one first") from None
        yield
    finally:
        os.close(descriptor)


@asynccontextmanager
async def _listening(settings: IntakeSettings, parts: Parts) -> AsyncIterator[str]:
    runner = web.AppRunner(make_app(parts, settings.images.max_bytes), shutdown_timeout=STOP_SECONDS)
    await runner.setup()
    assert runner.server is not None
    loop = asyncio.get_running_loop()
    factory = protocol_factory(runner.server, loop, LIMITS, _access_log)
    try:
        try:
            server = await loop.create_server(factory, settings.host, settings.port, backlog=1024)
        except (OSError, socket.gaierror) as error:
            raise ConfigError(
                f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}; choose another --port"
            ) from error
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        try:
            yield f"http://{host}:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
    finally:
        await runner.cleanup()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
