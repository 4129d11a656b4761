"""The supervisor of a Store: one process that owns the data folders and keeps the workers, which serve the photos.

What happens at a start: the folders are locked and looked at, the port is reserved, every volume gets a slot in the
control block, and then, at the same time, the workers start and the volumes are recovered. At a stop: the workers
finish their requests, the Directory is told of the last needles, the volumes are checkpointed and closed.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from aiohttp import web

from haystack.addresses import advertised_host, join, reserved_port
from haystack.config import StoreSettings
from haystack.errors import HaystackError
from haystack.internal_http import serving_admin
from haystack.lifetime import end_tasks, log_to_stderr, raise_file_limit, run_until, say, stop_event
from haystack.store.admin import AdminApi
from haystack.store.compactions_api import compactions_service
from haystack.store.confirmations import Confirmer, TailLook
from haystack.store.control import ControlBlock
from haystack.store.control_cells import Counter, Header, VolumeState
from haystack.store.copies.service import Copies, copies_service
from haystack.store.crashes import Crashes
from haystack.store.directories import DirectoryCalls
from haystack.store.documents import Document, Documents, StoreFacts
from haystack.store.folder import DataFolder
from haystack.store.folder_opening import open_folders
from haystack.store.heartbeat import Heartbeats
from haystack.store.heat import StoreHeat
from haystack.store.import_api import ImportApi
from haystack.store.replication.memberships import Memberships
from haystack.store.replication.service import ReplicationService
from haystack.store.scrub.mending import rebuild_index
from haystack.store.settings import Timing, WorkerSettings
from haystack.store.space_api import SpaceApi
from haystack.store.store_volume import StoreVolume
from haystack.store.told import Teller
from haystack.store.upkeep import FolderKeeper
from haystack.store.volumes import StoreVolumes
from haystack.store.watch import MOST_SECONDS, WORD_LOOK_SECONDS, Watch
from haystack.store.workers import Command, Workers, worker_command

_log = logging.getLogger(__name__)


def run(settings: StoreSettings) -> None:
    """Run a Store until SIGTERM or SIGINT. Raises HaystackError when it cannot start or go on."""
    log_to_stderr()
    asyncio.run(supervise(settings))


async def supervise(
    settings: StoreSettings,
    *,
    timing: Timing | None = None,
    command: Command = worker_command,
    announce: Callable[[str], None] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Run a Store until it is told to stop.

    Parameters
    ----------
    timing: how often things are done.
    command: makes the command line of a worker.
    announce: gets the line that says where the Store listens; by default it is printed.
    stop: set it to stop the Store; SIGTERM and SIGINT do so too, when this runs on the main thread.

    Raises FolderError, ConfigError, WorkerFailed.
    """
    stop = stop_event(stop)
    raise_file_limit()
    timing = timing or Timing()
    async with _opened_folders(settings, timing) as folders, reserved_port(settings.host, settings.port) as port:
        store = _Store(settings, timing, folders, port)
        await store.run(stop, command, announce or say)


class _Store:
    """All parts of one running Store, put together."""

    def __init__(self, settings: StoreSettings, timing: Timing, folders: Sequence[DataFolder], port: int) -> None:
        self._settings = settings
        self._timing = timing
        self._folders = folders
        self._port = port
        self._store_id = folders[0].identity.store_id
        self._started_ms = time.time_ns() // 1_000_000
        self._control = ControlBlock.create(settings.worker_count)
        self._volumes = StoreVolumes(
            folders, self._control, max_volume_bytes=settings.max_volume_bytes, on_change=self._on_change
        )
        self._memberships = Memberships(self._volumes, self._store_id, on_taken=self._on_taken)
        self._replication: ReplicationService | None = None
        self._watch = Watch(self._control, timing.tail_poll_seconds, self._least_look_seconds)
        self._keepers = [
            FolderKeeper(folder, self._volumes, timing, reserve_bytes=settings.reserve_bytes) for folder in folders
        ]
        self._confirmers: list[Confirmer] = []
        self._heartbeats: Heartbeats | None = None
        self._teller: Teller | None = None
        self._workers: Workers | None = None
        self._crashes = Crashes()
        self._background: set[asyncio.Task[None]] = set()
        self._listening = asyncio.Event()

    async def run(self, stop: asyncio.Event, command: Command, announce: Callable[[str], None]) -> None:
        """Start everything, wait for the end, stop everything."""
        await asyncio.gather(*(keeper.probe() for keeper in self._keepers))
        await asyncio.to_thread(self._volumes.register)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._close_volumes)
            calls = await stack.enter_async_context(
                DirectoryCalls(self._settings.directories, self._settings.secret, self._timing)
            )
            self._replication = ReplicationService(
                folders=self._folders,
                volumes=self._volumes,
                memberships=self._memberships,
                calls=calls,
                secret=self._settings.secret,
                spawn=self._spawn,
                on_committed=self._on_committed,
            )
            stack.push_async_callback(self._replication.close)
            documents = self._prepare(calls)
            copies = await stack.enter_async_context(
                copies_service(self._volumes, self._memberships, self._settings, self._timing)
            )
            compactions = await stack.enter_async_context(
                compactions_service(
                    self._volumes,
                    self._memberships,
                    self._confirmed_to if self._confirmers else None,
                    trash_ms=int(self._settings.trash_retention_seconds * 1000),
                    bytes_per_second=self._settings.compact_bytes_per_second,
                )
            )
            admin_port = await stack.enter_async_context(
                self._admin(documents, [*copies.routes, compactions.add_routes, *self._operator_routes()])
            )
            host = advertised_host(self._settings.host, self._settings.directories)
            url, admin_url = join(host, self._port), join(host, admin_port)
            documents.facts = dataclasses.replace(
                documents.facts, url=url, public_url=self._settings.public_url or url, admin_url=admin_url
            )
            workers = self._workers = self._make_workers(command)
            stack.push_async_callback(self._stop_workers, workers)
            workers.start()
            await self._serve(stop, workers, copies, lambda: announce(self._ready_line(admin_port)))
            self._control.cells[Header.STOPPING] = 1
            self._volumes.stop_walks()
            _log.info("stopping")
            await self._stop_workers(workers)
            await self._tell_the_last()

    async def _serve(self, stop: asyncio.Event, workers: Workers, copies: Copies, announce: Callable[[], None]) -> None:
        """Do what a running Store does, until it is told to stop or one of its parts fails."""
        parts = [
            self._start(workers, announce),
            workers.failed(),
            copies.scrubbing.run(),
            *(keeper.run() for keeper in self._keepers),
            *(confirmer.run() for confirmer in self._confirmers),
        ]
        if self._replication is not None:
            parts.append(self._replication.run())
        if self._heartbeats is not None and self._teller is not None:
            self._watch.add(TailLook(self._control, self._moved, self._teller.looked))
            parts += [self._report(self._heartbeats), self._teller.run()]
        self._watch.add(copies.scrubbing.look)
        parts.append(self._watch.run())
        await run_until(stop, parts)
        await end_tasks(self._background)

    async def _start(self, workers: Workers, announce: Callable[[], None]) -> None:
        recovering = asyncio.create_task(self._recover())
        try:
            await workers.listening()
            self._listening.set()
            # Whoever reads the line wants photos: give volumes that need no long recovery the time for it.
            await asyncio.wait((recovering,), timeout=self._timing.ready_grace_seconds)
            announce()
            await recovering
        finally:
            recovering.cancel()

    async def _recover(self) -> None:
        await self._volumes.recover_all()
        self._control.cells[Header.READY] = 1
        failed = sum(1 for entry in self._volumes if self._volumes.state(entry) is VolumeState.FAILED)
        count = sum(1 for _ in self._volumes)
        _log.info("%d volumes are in use%s", count - failed, f", {failed} are set aside" if failed else "")

    # -- parts

    def _prepare(self, calls: DirectoryCalls) -> Documents:
        settings = self._settings
        facts = StoreFacts(
            store_id=self._store_id,
            url="",
            public_url="",
            admin_url="",
            data_center=settings.data_center,
            rack=settings.rack,
            started_ms=self._started_ms,
            workers=settings.worker_count,
            max_photo_bytes=settings.max_photo_bytes,
            services=settings.service_addresses,
        )
        documents = Documents(facts, self._folders, self._volumes)
        if settings.directories:
            self._confirmers = [
                Confirmer(folder, self._volumes, calls, self._store_id, self._timing)
                for folder in self._folders
                if not folder.failed
            ]
            heat = StoreHeat(self._control, time.monotonic(), settings.heat_window_seconds)
            self._teller = Teller(self._volumes, calls, self._store_id, self._confirmed_to, look=self._watch.look)
            self._heartbeats = Heartbeats(
                calls,
                documents,
                self._folders,
                self._timing,
                heat,
                on_registered=self._on_registered,
                on_answer=self._teller.answered,
            )
        return documents

    def _make_workers(self, command: Command) -> Workers:
        paths = [folder.path for folder in self._folders]
        return Workers(
            [
                WorkerSettings.of_store(
                    self._settings, port=self._port, worker=number, store_id=self._store_id, folders=paths
                )
                for number in range(self._settings.worker_count)
            ],
            self._control,
            self._timing,
            lock_fds=[folder.lock_fd for folder in self._folders if folder.lock_fd >= 0],
            on_death=self._on_death,
            command=command,
            open_link=self._replication.links.open if self._replication is not None else None,
        )

    def _admin(
        self, documents: Documents, routes: Sequence[Callable[[web.Application], None]]
    ) -> AbstractAsyncContextManager[int]:
        api = AdminApi(
            documents,
            self._volumes,
            secret=self._settings.secret,
            extra_status=self._extra_status,
            more_routes=[*([self._replication.add_routes] if self._replication is not None else []), *routes],
        )
        host, port = self._settings.host, self._settings.effective_admin_port
        return serving_admin(api.application(), host, port, "store")

    def _operator_routes(self) -> list[Callable[[web.Application], None]]:
        trash_ms = int(self._settings.trash_retention_seconds * 1000)
        return [SpaceApi(self._volumes, trash_ms).add_routes, ImportApi(self._volumes).add_routes]

    def _extra_status(self) -> Document:
        return {
            "pid": os.getpid(),
            "workerPids": self._workers.pids if self._workers is not None else [],
            "workerRestarts": self._control.cells[Header.RESTARTS],
            "ready": bool(self._control.cells[Header.READY]),
            "directories": self._heartbeats.status() if self._heartbeats is not None else [],
        }

    def _ready_line(self, admin_port: int) -> str:
        host = self._settings.host
        folders = ", ".join(str(folder.path) for folder in self._folders)
        return (
            f"store: listening on http://{join(host, self._port)}, admin http://{join(host, admin_port)}, "
            f"data in {folders}"
        )

    # -- events

    def _on_change(self) -> None:
        if self._teller is not None:
            self._teller.leads_changed()
        if self._heartbeats is not None:
            self._heartbeats.wake()
        for confirmer in self._confirmers:
            confirmer.look_at(self._volumes)

    def _on_taken(self, entry: StoreVolume) -> None:
        if self._replication is not None:
            self._replication.taken(entry)

    def _confirmed_to(self, entry: StoreVolume) -> int:
        """Up to where the Directory knows the needles of a volume."""
        return max((confirmer.confirmed_to(entry) for confirmer in self._confirmers), default=0)

    def _on_committed(self, entry: StoreVolume) -> None:
        for confirmer in self._confirmers:
            confirmer.look_at([entry])

    def _on_registered(self) -> None:
        for confirmer in self._confirmers:
            confirmer.ask_all()

    def _on_death(self, worker: int, exit_code: int | None) -> None:
        self._control.void_caches()
        cell = self._control.worker_base(worker) + Counter.TOUCHED
        touched, self._control.cells[cell] = self._control.cells[cell], 0
        blamed = self._crashes.blames(touched - 1 if touched else None, exit_code)
        entry = self._volumes.at(touched - 1) if blamed else None
        self._spawn(self._after_death() if entry is None else self._renew_index(entry))

    async def _renew_index(self, entry: StoreVolume) -> None:
        try:
            await rebuild_index(self._volumes, entry, "workers end when they look into it")
        except HaystackError as error:
            _log.error("volume %d: its index is not made anew: %s", entry.id, error)
        await self._after_death()  # not before: it looks into the indexes as well

    async def _after_death(self) -> None:
        await self._volumes.forget_dead_readers()
        for keeper in self._keepers:
            await keeper.look_at_all()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _report(self, heartbeats: Heartbeats) -> None:
        # Not before: what the Directory assigns to a Store that it knows is uploaded at once.
        await self._listening.wait()
        await heartbeats.run()

    def _least_look_seconds(self) -> float:
        return WORD_LOOK_SECONDS if self._teller is not None and self._teller.wanted else MOST_SECONDS

    def _moved(self, slots: set[int]) -> None:
        moved = [entry for slot in slots if (entry := self._volumes.at(slot)) is not None]
        for confirmer in self._confirmers:
            confirmer.look_at(moved)

    # -- stopping

    async def _stop_workers(self, workers: Workers) -> None:
        await workers.stop(self._settings.stop_timeout_seconds + self._timing.kill_margin_seconds)

    async def _tell_the_last(self) -> None:
        try:
            async with asyncio.timeout(self._timing.stop_confirm_seconds):
                await asyncio.gather(*(confirmer.drain() for confirmer in self._confirmers))
        except TimeoutError:
            _log.info("the last needles are confirmed after the next start")
        for confirmer in self._confirmers:
            await confirmer.save()

    async def _close_volumes(self) -> None:
        self._volumes.stop_walks()
        await self._volumes.close()
        self._control.close()


@asynccontextmanager
async def _opened_folders(settings: StoreSettings, timing: Timing) -> AsyncIterator[list[DataFolder]]:
    wait_seconds = settings.stop_timeout_seconds + timing.kill_margin_seconds
    folders = await asyncio.to_thread(open_folders, settings.data, wait_seconds=wait_seconds)
    for folder in folders:
        if folder.failed:
            _log.error("data folder %s is set aside: %s", folder.path, folder.error)
    try:
        yield folders
    finally:
        for folder in folders:
            await asyncio.to_thread(folder.close)
