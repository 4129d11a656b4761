"""A worker process of a Store: the data path on one event loop.

Started by the supervisor as ``python -m haystack.store.worker --data … --port … --worker K`` with inherited descriptors
for its settings, the control block, and the pipe on which it says that it listens. It has nothing that the supervisor
needs: it may be killed at any moment and is started anew.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Callable

import uvloop

from haystack.http.server import Server
from haystack.sealed_ttl import LifeSeal
from haystack.signed_urls import UrlSigner
from haystack.store.catalog import Catalog
from haystack.store.cold_reads import ColdReads
from haystack.store.control import ControlBlock
from haystack.store.control_cells import Counter
from haystack.store.fast_cold import FastColdReads
from haystack.store.fast_reads import FastReader
from haystack.store.handler import StoreHandler
from haystack.store.lanes import Lane
from haystack.store.metrics import render_worker_page
from haystack.store.read_repair import ReadRepair
from haystack.store.reads import Reader
from haystack.store.recent import RecentReads
from haystack.store.replication.copying import Copies
from haystack.store.replication.deciding import Decider
from haystack.store.replication.link import WorkerLink
from haystack.store.replication.passing_on import Forwarder
from haystack.store.replication.peers import Peers
from haystack.store.replication.receiving import Receiver
from haystack.store.replication.sessions import Sessions
from haystack.store.sampling import ReadSampler
from haystack.store.settings import WorkerSettings
from haystack.store.tally import Tally
from haystack.store.uploads import UploadMemory
from haystack.store.writes import FORM_OVERHEAD_BYTES, Writer
from haystack.volume.commit import Done, Submission
from haystack.volume.operations import Outcome
from haystack.worker_process import (
    ConnectionCells,
    CountingObserver,
    http_limits,
    keep_what_exists,
    log_as_worker,
    ready_on,
)

SWITCH_SECONDS = 0.0005
"""How soon a thread that works for disks has to give way to the event loop; Python's own 5 ms is a long wait there."""

_log = logging.getLogger(__name__)

FLUSH_SECONDS = 0.25
"""How often counters move into the control block."""

PATIENT_TICKS = 8
"""Flushes for which slow clients may hold up the closing of a volume before their connections are reset."""

_CONNECTIONS = ConnectionCells(
    now=Counter.CONNECTIONS_OPEN,
    total=Counter.CONNECTIONS_TOTAL,
    refusals={
        "timeout": Counter.TIMEOUTS,
        "stalled": Counter.TIMEOUTS,
        "connection_limit": Counter.CONNECTIONS_REFUSED,
    },
)


class Worker:
    """All parts of one worker, put together.

    Parameters
    ----------
    settings: what the supervisor decided.
    control: the shared control block.
    link: to the supervisor.
    """

    def __init__(self, settings: WorkerSettings, control: ControlBlock, link: WorkerLink | None = None) -> None:
        self._settings = settings
        durable = settings.durability == "fsync"
        self.tally = Tally(control, settings.worker)
        self._link = link or WorkerLink(-1)
        self._peers = Peers(settings.secret)
        copies = Copies(self._peers, settings.store_id, self.tally, self._link.report)
        self._decider = Decider(copies, self._link)
        self._lanes = [
            Lane(folder, durable=durable, deliver=self._deliver, copies=copies, moved=self._submit_again)
            for folder in settings.folders
        ]
        self._catalog = Catalog(control, self._lanes, worker=settings.worker, synced=durable)
        ways = ColdReads(RecentReads(_memory_bytes() // 2 // control.workers))
        self._repair = ReadRepair(self.tally, settings.store_id, settings.secret)
        self._sampler = ReadSampler(control, settings.worker)
        reader = Reader(self._catalog, self.tally, self._sampler, ways, self._repair, UrlSigner(settings.secret))
        cold = FastColdReads(ways, reader, self.tally, self._sampler)
        self._fast = FastReader(self._catalog, self.tally, self._sampler, cold)
        memory = UploadMemory(settings.upload_memory_bytes, settings.upload_memory_total_bytes, self.tally)
        writer = Writer(
            self._catalog,
            self.tally,
            memory,
            max_photo_bytes=settings.max_photo_bytes,
            trash_retention_ms=int(settings.trash_retention_seconds * 1000),
            seal=LifeSeal(settings.secret),
            decider=self._decider,
        )
        receiver = Receiver(
            self._catalog, self.tally, Sessions(settings.secret), max_photo_bytes=settings.max_photo_bytes
        )
        forwarder = Forwarder(self._catalog, self.tally, max_body_bytes=settings.max_photo_bytes + FORM_OVERHEAD_BYTES)
        handler = StoreHandler(control, self._fast, reader, writer, receiver, forwarder, self.tally, self._metrics_page)
        self.server = Server(handler, http_limits(settings), observer=CountingObserver(self.tally, _CONNECTIONS))
        self._control = control
        self._held_ticks = 0
        self._loop: asyncio.AbstractEventLoop

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until SIGTERM, then stop gracefully.

        SIGINT is not for us: Ctrl-C in a terminal reaches all processes of the Store, and the supervisor stops us.

        Parameters
        ----------
        ready: called when the worker listens.
        """
        self._loop = asyncio.get_running_loop()
        self._link.start()
        stop = asyncio.Event()
        self._loop.add_signal_handler(signal.SIGTERM, stop.set)
        self.tally.set(Counter.PID, os.getpid())
        self.tally.set(Counter.STARTED_MS, time.time_ns() // 1_000_000)
        await self.server.start(self._settings.host, self._settings.port)
        self._flush()
        ready()
        await stop.wait()
        await self.server.graceful_stop(self._settings.stop_timeout_seconds)
        self._close()

    def _flush(self) -> None:
        """Publish counters, and set the tick by which the reader trusts that pages stay resident."""
        self._fast.tick = self.server.tick
        self._sampler.flush()
        self._publish()
        self._give_up_volumes()
        self._loop.call_later(FLUSH_SECONDS, self._flush)

    def _give_up_volumes(self) -> None:
        """Let go of what the supervisor has taken out of service; it waits for that."""
        self._fast.look_again()
        self._held_ticks = self._held_ticks + 1 if self._catalog.give_up() else 0
        if self._held_ticks > PATIENT_TICKS:
            # An answer that is still to be sent out of the page cache would change under the client's hands.
            self.server.abort_unsent()

    def _publish(self) -> None:
        self._catalog.flush()
        self.tally.set(Counter.CACHED_ENTRIES, self._fast.entry_count)
        self.tally.flush()

    def _metrics_page(self) -> bytes:
        self._publish()
        return render_worker_page(self._control, self._settings.folders)

    def _deliver(self, outcomes: list[tuple[Done, Outcome]]) -> None:
        self._loop.call_soon_threadsafe(_hand_out, outcomes)

    def _submit_again(self, operations: list[Submission]) -> None:
        self._loop.call_soon_threadsafe(self._catalog.submit_again, operations)

    def _close(self) -> None:
        self._decider.close()
        for lane in self._lanes:
            lane.close()
        self._link.close()
        self._peers.close()
        self._repair.close()
        self._fast.forget_all()
        self._catalog.close()
        self.tally.flush()


def _hand_out(outcomes: list[tuple[Done, Outcome]]) -> None:
    for done, outcome in outcomes:
        try:
            done(outcome)
        except Exception:  # a receiver that fails must not keep the others from their answers
            _log.exception("an outcome could not be handed out")


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Entry point of the worker process."""
    parser = argparse.ArgumentParser(prog="haystack.store.worker")
    parser.add_argument("--data", action="append", required=True, help="data folder (shown in the process list)")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--worker", type=int, required=True)
    parser.add_argument("--settings-fd", type=int, required=True)
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--ready-fd", type=int, required=True)
    parser.add_argument("--link-fd", type=int, default=-1)
    arguments = parser.parse_args()
    log_as_worker()
    settings = WorkerSettings.load(arguments.settings_fd)
    control = ControlBlock.attach(arguments.control_fd)
    keep_what_exists()
    sys.setswitchinterval(SWITCH_SECONDS)
    uvloop.run(Worker(settings, control, WorkerLink(arguments.link_fd)).run(ready_on(arguments.ready_fd)))


if __name__ == "__main__":
    main()
