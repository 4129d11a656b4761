"""A worker process of a Cache: the data path on one event loop.

Started by the keeper as ``python -m cache.worker --data … --port … --worker K`` with inherited descriptors for its
settings, the board, the photos' memory, its connection to the keeper, and the pipe on which it says that it listens. It
may be killed at any moment and is started anew. When the keeper is gone it ends at once: what it has may be outdated.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable

import uvloop

from cache import clock
from cache.board import Board, Counter, Tally
from cache.handler import CacheHandler
from cache.hits import HitPath
from cache.memory import MemoryReader
from cache.metrics import render
from cache.misses import Misses
from cache.passing import Passing
from cache.settings import WorkerSettings
from cache.signatures import Signatures
from cache.talk import Talk
from cache.upstream import Upstreams
from haystack.http.server import Server
from haystack.signed_urls import UrlSigner
from haystack.worker_process import (
    ConnectionCells,
    CountingObserver,
    http_limits,
    keep_what_exists,
    log_as_worker,
    ready_on,
)

FLUSH_SECONDS = 0.25
"""How often counters move to the board, and the keeper is looked after."""

_CONNECTIONS = ConnectionCells(
    now=Counter.CONNECTIONS_OPEN,
    total=Counter.CONNECTIONS_TOTAL,
    refusals={
        "timeout": Counter.TIMEOUTS,
        "stalled": Counter.TIMEOUTS,
        "connection_limit": Counter.CONNECTIONS_REFUSED,
        "broken_stream": Counter.BROKEN_OFF,
    },
)


class Worker:
    """All parts of one worker, put together.

    Parameters
    ----------
    keeper: our end of the connection to the keeper.
    """

    def __init__(self, settings: WorkerSettings, board: Board, reader: MemoryReader, keeper: socket.socket) -> None:
        self._settings = settings
        self._board = board
        self._reader = reader
        self._keeper = keeper
        self._tally = Tally(board, settings.worker)
        self._seen_requests = 0
        self._loop: asyncio.AbstractEventLoop

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until SIGTERM, then stop gracefully; or until the keeper is gone.

        Parameters
        ----------
        ready: called when the worker listens.
        """
        loop = self._loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        settings, tally = self._settings, self._tally
        self._upstreams = Upstreams()
        self._passing = Passing(self._upstreams)
        signatures = Signatures(UrlSigner(settings.secret), tally, time.time)
        self._misses = Misses(
            self._board, self._reader, tally, self._passing, signatures, max_waiting=settings.max_waiting
        )
        self._hits = HitPath(self._board, self._reader, tally, settings.hot_records)
        handler = CacheHandler(
            self._board, self._hits, self._reader, self._misses, signatures, tally, self._metrics_page, time.time
        )
        self._server = Server(handler, http_limits(settings), observer=CountingObserver(tally, _CONNECTIONS))
        _, talk = await loop.create_unix_connection(
            lambda: Talk(self._misses.on_messages, self._keeper_gone), sock=self._keeper
        )
        self._misses.use(talk)
        tally.set(Counter.TICK_NS, clock.now_ns())  # before the id: from then on the keeper looks at it
        tally.set(Counter.PID, os.getpid())
        await self._server.start(settings.host, settings.port)
        self._flush()
        ready()
        await stop.wait()
        await self._server.graceful_stop(settings.stop_timeout_seconds)
        self._misses.close()
        self._upstreams.close()
        self._publish()

    def _keeper_gone(self) -> None:
        """Nobody takes back any more what is deleted, nor gives space: go without another answer."""
        if not self._server.stopping:
            os._exit(1)

    def _flush(self) -> None:
        self._hits.tick = self._server.tick
        self._publish()
        self._misses.check_keeper()
        if self._server.requests == self._seen_requests:
            self._reader.rest()
        self._seen_requests = self._server.requests
        self._loop.call_later(FLUSH_SECONDS, self._flush)

    def _publish(self) -> None:
        tally = self._tally
        self._hits.tell()
        tally.set(Counter.TICK_NS, clock.now_ns())
        tally.set(Counter.HOT_RECORDS, self._hits.hot_records)
        tally.set(Counter.WAITING, self._misses.waiting)
        tally.set(Counter.PASSING, self._passing.running)
        tally.flush()

    def _metrics_page(self) -> bytes:
        self._publish()
        return render(self._board, clock.now_ns())


def main() -> None:
    """Entry point of the worker process."""
    parser = argparse.ArgumentParser(prog="cache.worker")
    parser.add_argument("--data", required=True, help="data folder (shown in the process list)")
    for name in ("port", "worker", "settings-fd", "board-fd", "arena-fd", "index-fd", "area-fd", "talk-fd", "ready-fd"):
        parser.add_argument(f"--{name}", type=int, required=True)
    arguments = parser.parse_args()
    log_as_worker()
    settings = WorkerSettings.load(arguments.settings_fd)
    board = Board.attach(arguments.board_fd)
    reader = MemoryReader(arguments.arena_fd, arguments.index_fd, arguments.area_fd)
    for fd in (arguments.arena_fd, arguments.index_fd, arguments.area_fd):
        os.close(fd)
    keeper = socket.socket(fileno=arguments.talk_fd)
    keep_what_exists()
    uvloop.run(Worker(settings, board, reader, keeper).run(ready_on(arguments.ready_fd)))


if __name__ == "__main__":
    main()
