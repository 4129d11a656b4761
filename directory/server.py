"""Runs a Directory: data folder, storage, HTTP server, and the clock that looks after the cluster."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import uvloop
from aiohttp import web

from directory.app import Parts, make_app
from directory.assigning.grower import Grower
from directory.cluster.nodes import Nodes
from directory.cluster.store_client import StoreClient
from directory.compaction.automatic import AutoCompaction
from directory.compaction.compactor import Compactor
from directory.compaction.joint import JointCompaction
from directory.connections import protocol_factory
from directory.decisions.compaction import CompactionRules
from directory.decisions.rebalance import RebalanceSettings
from directory.decisions.repair_views import Rules
from directory.membership.leadership import Leadership
from directory.membership.memberships import Memberships
from directory.moves.mover import Mover
from directory.rebalancing.decision_log import DecisionLog
from directory.rebalancing.rebalancer import Rebalancer, RebalanceRules
from directory.repair.healer import Healer
from directory.repair.steps import Rates
from directory.service import Service
from directory.settings import MAX_REPAIRS_PER_STORE, STOP_TIMEOUT_SECONDS, STORAGE_NAME, DirectorySettings
from directory.snapshots.snapshots import Snapshots
from directory.storage.lmdb_storage import LmdbStorage
from haystack.errors import ConfigError, FolderError, HaystackError
from haystack.lifetime import stop_event
from haystack.sealed_ttl import LifeSeal
from haystack.security import Verifier

LOCK_NAME = "lock"
STORE_FOLDER_NAME = "folder.json"

WATCH_SECONDS = 0.2
"""How often it is looked for Stores that have fallen silent, at most."""

log = logging.getLogger(__name__)


def run(settings: DirectorySettings) -> None:
    """Run a Directory until SIGTERM or SIGINT.

    Raises
    ------
    FolderError: the data folder cannot be used.
    ConfigError: the address cannot be listened on.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(settings))


async def _run(settings: DirectorySettings) -> None:
    stop = stop_event(None)
    async with serve(settings) as address:
        print(f"directory: listening on {address}, data in {settings.data}", flush=True)
        await stop.wait()
        log.info("stopping")


@asynccontextmanager
async def serve(settings: DirectorySettings) -> AsyncIterator[str]:
    """Run a Directory inside the running event loop; yields its address, ``http://host:port``.

    At the end requests in flight finish, for at most :data:`~directory.settings.STOP_TIMEOUT_SECONDS`. Raises as
    :func:`run`.
    """
    with locked_folder(settings.data):
        storage = LmdbStorage(settings.data / STORAGE_NAME)
        try:
            async with (
                _parts(settings, storage) as parts,
                _listening(settings, parts) as address,
            ):
                yield address
        finally:
            storage.close()


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold a Directory's data folder, made if it is not there, against any other Directory.

    Raises
    ------
    FolderError: it cannot be made or written, is a Store's, or is in use.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / STORE_FOLDER_NAME).exists():
            raise FolderError(f"{folder}: this is the data folder of a Store; the Directory needs one of its own")
        descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise FolderError(f"{folder}: cannot be used as data folder: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise FolderError(
                f"{folder}: in use by another Directory (process {holder}); stop that one first"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


@asynccontextmanager
async def _parts(settings: DirectorySettings, storage: LmdbStorage) -> AsyncIterator[Parts]:
    service = Service(
        storage,
        dead_after_seconds=settings.dead_after_seconds,
        peers_index=settings.peers_index,
        peers_count=settings.peers_count,
        default_replication=settings.default_replication,
        cache_spread_reads_per_second=settings.cache_spread_reads_per_second,
        load_bytes=settings.rebalance_load_bytes,
    )
    client = StoreClient(settings.secret)
    memberships = Memberships(service, client)
    grower = Grower(service, client, target=settings.writable_volumes, max_volume_bytes=settings.max_volume_bytes)
    rules = Rules(
        delay_seconds=settings.repair_delay_seconds,
        copies=settings.repair_copies,
        copies_per_store=MAX_REPAIRS_PER_STORE,
        max_volume_bytes=settings.max_volume_bytes,
        moves=settings.move_copies,
        moves_per_store=settings.move_copies_per_store,
        move_linger_seconds=settings.move_linger_seconds,
    )
    rates = Rates(settings.repair_bytes_per_second, settings.move_bytes_per_second)
    healer = Healer(service, memberships, client, rules, rates)
    snapshots = Snapshots(service, client, settings.data)
    joint = JointCompaction(service, client, memberships, snapshots, healer.running.__contains__)
    compactor = Compactor(service, client, snapshots, joint)
    compacting = AutoCompaction(service, client, snapshots, compactor, CompactionRules(settings.compact_garbage_share))
    nodes = Nodes(service, memberships, healer)
    mover = Mover(service, memberships, healer, compactor.is_at)
    decisions = DecisionLog(service.wall_clock)
    rebalancer = Rebalancer(service, mover, rebalance_rules(settings), decisions, compactor.is_at)
    parts = Parts(service, grower, memberships, healer, nodes, snapshots, compactor, compacting, mover, rebalancer)
    keepers = [
        asyncio.create_task(_keep(parts, settings.heartbeat_seconds)),
        asyncio.create_task(healer.run()),
        asyncio.create_task(compacting.run()),
        asyncio.create_task(rebalancer.run()),
        asyncio.create_task(Leadership(service, memberships, settings.heartbeat_seconds).run()),
        asyncio.create_task(_watch(memberships, min(settings.heartbeat_seconds, WATCH_SECONDS))),
    ]
    try:
        await snapshots.start()
        yield parts
    finally:
        for keeper in keepers:
            keeper.cancel()
        await asyncio.wait(keepers)
        await compactor.close()
        await rebalancer.close()
        await mover.close()
        await healer.close()
        await grower.close()
        await memberships.close()
        await client.close()
        await service.close()


def rebalance_rules(settings: DirectorySettings) -> RebalanceRules:
    """Return how load is evened out."""
    planning = RebalanceSettings(
        fill_limit=settings.rebalance_fill_limit,
        budget_bytes=settings.rebalance_bytes,
        rest_seconds=settings.rebalance_rest_seconds,
        max_copies=settings.rebalance_copies,
        payback_seconds=settings.rebalance_payback_seconds,
        bytes_per_load=settings.rebalance_load_bytes,
    )
    return RebalanceRules(
        auto=settings.rebalance_auto,
        look_seconds=settings.rebalance_look_seconds,
        watch_seconds=settings.rebalance_watch_seconds,
        at_once=settings.rebalance_moves,
        planning=planning,
    )


async def _keep(parts: Parts, period_seconds: float) -> None:
    """Look after the cluster all the time: enough writable volumes, copies in their right place."""
    service = parts.service
    while True:
        await asyncio.sleep(period_seconds)
        try:
            if service.cluster.stores and service.cluster.settled(service.clock()):
                parts.grower.start_top_up()
                await service.promote_extras()
            await parts.snapshots.expire()
            await parts.snapshots.follow_all()
            await service.drop_expired()
        except HaystackError as error:
            log.error("looking after the cluster failed, trying again: %s", error)


async def _watch(memberships: Memberships, period_seconds: float) -> None:
    """Take copies that are lost out of the in-sync sets. Apart from the rest: nothing may hold this up."""
    while True:
        await asyncio.sleep(period_seconds)
        try:
            await memberships.sweep()
        except HaystackError as error:
            log.error("lost copies cannot be taken out of their volumes, trying again: %s", error)


@asynccontextmanager
async def _listening(settings: DirectorySettings, parts: Parts) -> AsyncIterator[str]:
    app = make_app(
        parts,
        host=settings.host,
        scratch=settings.data,
        heartbeat_seconds=settings.heartbeat_seconds,
        seal=LifeSeal(settings.secret),
        verifier=Verifier(settings.secret) if settings.secret is not None else None,
    )
    runner = web.AppRunner(app, shutdown_timeout=STOP_TIMEOUT_SECONDS)
    await runner.setup()
    try:
        server = await _listen(settings, runner)
        try:
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            yield f"http://{host}:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
    finally:
        await runner.cleanup()


async def _listen(settings: DirectorySettings, runner: web.AppRunner) -> asyncio.Server:
    if runner.server is None:
        raise RuntimeError("the runner was not set up")
    loop = asyncio.get_running_loop()
    protocol = protocol_factory(runner.server, loop)
    try:
        return await loop.create_server(protocol, settings.host, settings.port, backlog=1024)
    except (OSError, socket.gaierror) as error:
        raise ConfigError(
            f"directory.host, directory.port: cannot listen on {settings.host}:{settings.port}: "
            f"{error.strerror or error}"
        ) from error
