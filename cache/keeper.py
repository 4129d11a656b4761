"""The keeper of a Cache: the process that owns the photos' memory and its workers, and fetches what they have not.

Everything that may not be wrong is decided here, on one event loop: what is kept, what is vouched for, what is fetched.
The workers only read. When the keeper dies all ends, and a new one starts empty.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

import uvloop

import haystack
from cache import clock
from cache.admin import AdminApi
from cache.board import KEEPER_START, NEVER_NS, Board, Cell, Counter, KeeperCell
from cache.desk import Desk
from cache.feed import Feed
from cache.feed_state import NEVER, Answer, Vouching
from cache.heat import HeatPolicy
from cache.identity import locked_folder
from cache.levels import Levels
from cache.memory import MemoryPlan, PhotoMemory, plan_memory
from cache.metrics import counters, fetch_latency, ratios
from cache.places import Places
from cache.policies import make_policy
from cache.registration import Registration
from cache.settings import Timing, WorkerSettings
from cache.ssd import SecondLevel, SsdPlan, plan_ssd
from cache.ssd.admission import AskedPolicy
from cache.talk import Talk
from cache.upstream import Upstreams
from haystack.addresses import advertised_host, join, reserved_port
from haystack.config import CacheSettings
from haystack.errors import ConfigError
from haystack.internal_http import serving_admin
from haystack.lifetime import log_to_stderr, raise_file_limit, run_until, say, stop_event
from haystack.signed_urls import UrlSigner
from haystack.workers import Launch, WorkerProcesses

_log = logging.getLogger(__name__)

HOT_PHOTOS = 64
LEAVE_SECONDS = 1.0


def run(settings: CacheSettings) -> None:
    """Run a Cache until SIGTERM or SIGINT. Raises HaystackError when it cannot start or go on."""
    log_to_stderr()
    uvloop.run(keep(settings))


async def keep(
    settings: CacheSettings,
    *,
    timing: Timing | None = None,
    announce: Callable[[str], None] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Run a Cache until it is told to stop.

    Parameters
    ----------
    timing: how often things are done.
    announce: gets the line that says where the Cache listens; by default it is printed.
    stop: set it to stop the Cache; SIGTERM and SIGINT do so too, when this runs on the main thread.

    Raises FolderError, ConfigError, WorkerFailed.
    """
    if not settings.directories:
        raise ConfigError("a Cache needs the address of a Directory: give --directory URL")
    stop = stop_event(stop)
    raise_file_limit()
    ssd = None if settings.ssd is None else plan_ssd(settings.ssd_size_bytes, settings.memory_bytes)
    beside_bytes = 0 if ssd is None else ssd.memory_bytes
    plan = plan_memory(settings.memory_bytes, settings.worker_count, settings.max_share, beside_bytes=beside_bytes)
    with locked_folder(settings.data) as cache_id:
        async with reserved_port(settings.host, settings.port, "cache") as port:
            await _Cache(settings, timing or Timing(), plan, ssd, cache_id, port).run(stop, announce or say)


class PublishedVouching(Vouching):
    """Puts what may be vouched for on the board, for the workers."""

    def __init__(self, board: Board) -> None:
        super().__init__()
        self._board = board
        self._published = -1

    def took(self, answer: Answer, began: float, now: float) -> None:
        super().took(answer, began, now)
        if self._published != self.version:
            self._published = self.version
            special = None
            if self.doubtful is not None:
                special = {volume: _ns(horizon) for volume, horizon in self.horizons.items()}
                special |= dict.fromkeys(self.doubtful, NEVER_NS)
            self._board.publish_vouching(_ns(self.horizon), special)
        self._board.cells[Cell.FRESH_UNTIL_NS] = _ns(self.fresh_until)


class _Cache:
    """All parts of one running Cache, put together."""

    def __init__(
        self,
        settings: CacheSettings,
        timing: Timing,
        plan: MemoryPlan,
        ssd: SsdPlan | None,
        cache_id: str,
        port: int,
    ) -> None:
        self._settings = settings
        self._timing = timing
        self._plan = plan
        self._cache_id = cache_id
        self._port = port
        self._started_ms = time.time_ns() // 1_000_000
        self._board = Board.create(settings.worker_count)
        policy = make_policy(settings.policy)
        asked = None if ssd is None else AskedPolicy(policy)
        self._heat = HeatPolicy(policy if asked is None else asked, time.monotonic)
        self._memory = PhotoMemory(plan, self._heat)
        self._second: SecondLevel | None = None
        if ssd is not None and asked is not None:
            self._second = SecondLevel(ssd, self._memory, asked, bytes_per_second=settings.ssd_write_bytes_per_second)
        self._levels = Levels(self._memory, self._second)
        self._heat.key_of = self._memory.descriptors.key
        self._heat.alternate_of = self._memory.descriptors.alternate
        self._vouching = PublishedVouching(self._board)
        self._talks: dict[int, Talk] = {}
        self._url = self._admin_url = ""
        self._desk: Desk
        self._feed: Feed
        self._registration: Registration
        self._workers: WorkerProcesses
        self._ready = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event, announce: Callable[[str], None]) -> None:
        """Start everything, wait for the end, stop everything."""
        settings = self._settings
        async with AsyncExitStack() as stack:
            places = await stack.enter_async_context(Places(settings.directories, settings.secret))
            upstreams = Upstreams()
            stack.callback(upstreams.close)
            if self._second is not None and settings.ssd is not None:
                stack.callback(self._second.close)
                await self._second.open(settings.ssd)
            self._desk = Desk(
                self._board,
                self._levels,
                places,
                upstreams,
                self._vouching,
                UrlSigner(settings.secret),
                admission=settings.admission,
                serve_stale=settings.serve_stale == "on",
                max_fetches=settings.max_fetches,
                max_waiting=settings.max_waiting,
            )
            stack.push_async_callback(self._desk.close)
            self._feed = Feed(settings.directories, settings.secret, self._vouching, self._desk.on_changes)
            self._registration = Registration(settings.directories, settings.secret, self._describe, self._heat.untold)
            admin_port = await stack.enter_async_context(self._admin())
            host = advertised_host(settings.host, settings.directories)
            self._url, self._admin_url = join(host, self._port), join(host, admin_port)
            self._workers = WorkerProcesses(
                settings.worker_count, self._launch, self._timing, on_end=self._ended, on_death=self._died
            )
            self._look_after()
            stack.push_async_callback(self._stop_workers)
            self._workers.start()
            gc.collect()
            gc.freeze()
            await run_until(
                stop,
                [
                    self._announce(announce, admin_port),
                    self._workers.failed(),
                    self._feed.run(),
                    self._registration_after_start(),
                    self._turn(),
                    self._publish_often(),
                ],
            )
            self._board.cells[Cell.STOPPING] = 1
            _log.info("stopping")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LEAVE_SECONDS):
                    await self._registration.leave()

    async def _announce(self, announce: Callable[[str], None], admin_port: int) -> None:
        await self._workers.listening()
        self._board.cells[Cell.READY] = 1
        self._ready.set()
        host = self._settings.host
        announce(
            f"cache: listening on http://{join(host, self._port)}, admin http://{join(host, admin_port)}, "
            f"data in {self._settings.data}"
        )
        await asyncio.get_running_loop().create_future()  # the others go on for ever, too

    async def _registration_after_start(self) -> None:
        # Not before: clients that the Directory sends are there at once.
        await self._ready.wait()
        await self._registration.run()

    # -- workers

    def _launch(self, number: int, ready_fd: int) -> Launch:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._connect(number, ours)
        share = self._memory.open_worker(number)
        settings = WorkerSettings.of_cache(
            self._settings, port=self._port, worker=number, hot_records=self._plan.hot_records
        )
        settings_fd, talk_fd = settings.share(), theirs.detach()
        arena_fd, index_fd, area_fd = share.fds
        fds = {
            "settings": settings_fd,
            "board": self._board.fd,
            "arena": arena_fd,
            "index": index_fd,
            "area": area_fd,
            "talk": talk_fd,
            "ready": ready_fd,
        }
        # -P: a folder named "cache" where the Cache happens to be started must not be taken for ours.
        argv = [sys.executable, "-P", "-m", "cache.worker", "--data", os.fspath(self._settings.data)]
        argv += ["--port", str(self._port), "--worker", str(number)]
        for name, fd in fds.items():
            argv += [f"--{name}-fd", str(fd)]
        inherited = tuple(fd for name, fd in fds.items() if name != "ready")
        return Launch(argv, inherited, (settings_fd, talk_fd))

    def _connect(self, number: int, ours: socket.socket) -> None:
        talk = Talk(lambda messages: self._desk.on_messages(talk, messages), lambda: self._hung_up(number, talk))
        self._talks[number] = talk
        task = asyncio.create_task(self._listen(ours, talk))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _listen(self, ours: socket.socket, talk: Talk) -> None:
        await asyncio.get_running_loop().create_unix_connection(lambda: talk, sock=ours)

    def _hung_up(self, number: int, talk: Talk) -> None:
        self._desk.forget_worker(talk)
        if self._talks.get(number) is talk:
            del self._talks[number]

    def _ended(self, number: int) -> None:
        self._board.forget_worker(number)
        self._memory.close_worker(number)

    def _died(self, number: int, exit_code: int | None) -> None:
        self._board.cells[Cell.RESTARTS] += 1

    async def _stop_workers(self) -> None:
        await self._workers.stop(self._settings.stop_timeout_seconds + self._timing.kill_margin_seconds)

    def _look_after(self) -> None:
        """Put sizes on the board, and kill workers that do not turn any more."""
        usage, cells = self._memory.usage(), self._board.cells
        for cell, value in (
            (KeeperCell.LIMIT_BYTES, usage.limit_bytes),
            (KeeperCell.USED_BYTES, usage.total_bytes),
            (KeeperCell.DATA_BYTES, usage.data_bytes),
            (KeeperCell.ENTRIES, usage.entries),
            (KeeperCell.EVICTIONS, usage.evictions),
            (KeeperCell.EVICTED_BYTES, usage.evicted_bytes),
            (KeeperCell.WAITING_BYTES, usage.waiting_bytes),
            (KeeperCell.HITS_LOST, usage.hits_lost),
            (KeeperCell.FETCHING, self._desk.fetching),
        ):
            cells[KEEPER_START + cell] = value
        if self._second is not None:
            publish_ssd(self._board, self._second)
        now_ns = clock.now_ns()
        for number in range(self._board.workers):
            base = self._board.base(number)
            turned_ns = cells[base + Counter.TICK_NS]
            if cells[base + Counter.PID] and now_ns - turned_ns > self._timing.worker_patience_seconds * 1e9:
                _log.error("worker %d does not turn any more and is killed", number)
                self._workers.kill(number)

    async def _publish_often(self) -> None:
        while True:
            self._look_after()
            await asyncio.sleep(self._timing.publish_seconds)

    async def _turn(self) -> None:
        """Say that the keeper lives; tell the policy of hits; free what is out of use."""
        filled = 0
        while True:
            self._board.cells[Cell.KEEPER_NS] = clock.now_ns()
            self._memory.take_hits()
            if self._memory.waiting_bytes:
                self._memory.reclaim()
            filled, before = self._memory.filled, filled
            busy = bool(self._memory.waiting_bytes) or filled != before
            await asyncio.sleep(self._timing.tick_seconds if busy else self._timing.idle_tick_seconds)

    # -- what others hear

    def _describe(self) -> dict[str, Any]:
        """The heartbeat."""
        return {
            "cacheId": self._cache_id,
            "url": self._url,
            "publicUrl": self._settings.public_url or self._url,
            "adminUrl": self._admin_url,
            "memoryBytes": self._settings.memory_bytes,
            "workers": self._settings.worker_count,
            "version": haystack.__version__,
            "startedMs": self._started_ms,
            "counters": counters(self._board),
            "hot": [[f"{key:x}", round(rate, 1)] for key, rate in self._heat.hottest(HOT_PHOTOS) if rate >= 1],
        }

    def _status(self) -> dict[str, Any]:
        self._look_after()
        document = self._describe()
        return document | {
            "pid": os.getpid(),
            "workerPids": self._workers.pids,
            "workerRestarts": self._board.cells[Cell.RESTARTS],
            "policy": self._settings.policy,
            "admission": self._settings.admission,
            "vouched": clock.now_ns() < self._board.cells[Cell.FRESH_UNTIL_NS],
            "feed": self._feed.status(),
            "ssd": ssd_status(self._settings, self._second),
            "directories": self._registration.status(),
            "fetchLatency": fetch_latency(self._board),
            **ratios(document["counters"]),
        }

    def _admin(self) -> AbstractAsyncContextManager[int]:
        api = AdminApi(self._board, self._levels, self._desk, secret=self._settings.secret, status=self._status)
        return serving_admin(api.application(), self._settings.host, self._settings.effective_admin_port, "cache")


def publish_ssd(board: Board, second: SecondLevel) -> None:
    """Put what the second level has done on the board."""
    usage = second.usage
    for cell, value in (
        (KeeperCell.SSD_HITS, usage.hits),
        (KeeperCell.SSD_HIT_BYTES, usage.hit_bytes),
        (KeeperCell.SSD_WRITTEN, usage.written),
        (KeeperCell.SSD_WRITTEN_BYTES, usage.written_bytes),
        (KeeperCell.SSD_NOT_WRITTEN, usage.not_written),
        (KeeperCell.SSD_EVICTIONS, usage.evictions),
        (KeeperCell.SSD_FAILURES, usage.failures),
        (KeeperCell.SSD_ENTRIES, len(second)),
        (KeeperCell.SSD_BYTES, second.live_bytes),
        (KeeperCell.SSD_LIMIT_BYTES, second.plan.file_bytes),
        (KeeperCell.SSD_ON, not second.off),
    ):
        board.cells[KEEPER_START + cell] = value


def ssd_status(settings: CacheSettings, second: SecondLevel | None) -> dict[str, Any] | None:
    """What people are told of the second level; None without one."""
    if second is None:
        return None
    return {
        "path": str(settings.ssd),
        "sizeBytes": second.plan.file_bytes,
        "maxPhotos": second.plan.max_entries,
        "writeBytesPerSecond": settings.ssd_write_bytes_per_second,
        "on": not second.off,
        "why": second.off,
    }


def _ns(seconds: float) -> int:
    if seconds == NEVER:
        return 0
    return NEVER_NS if seconds * 1e9 >= NEVER_NS else int(seconds * 1e9)
