"""What a worker and its supervisor tell each other about copies: datagrams on a pair of sockets.

A worker reports who failed; the supervisor tells when a membership has changed, so that who waits for that looks again.
Nothing rests on a datagram's arrival: reports are repeated by the next operation that fails, and who waits also looks
by itself now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable

from haystack.store.replication.copying import Report

MAX_DATAGRAM_BYTES = 16 * 1024


class WorkerLink:
    """The worker's end.

    Parameters
    ----------
    fd: inherited; -1 for a worker that has no supervisor to talk to (tests).
    """

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd) if fd >= 0 else None
        if self._socket is not None:
            self._socket.setblocking(False)
        self._waiting: set[asyncio.Event] = set()

    def start(self) -> None:
        """Listen to the supervisor, on the running event loop."""
        if self._socket is not None:
            asyncio.get_running_loop().add_reader(self._socket, self._notice)

    def report(self, report: Report) -> None:
        """Tell the supervisor; from any thread, never blocks. One that does not listen gets the next report."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.send(json.dumps(report._asdict()).encode())

    async def notice(self, timeout_seconds: float) -> None:
        """Wait for a change of some membership, at most so long."""
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(event.wait(), timeout_seconds)
        finally:
            self._waiting.discard(event)

    def close(self) -> None:
        """Stop listening."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _notice(self) -> None:
        assert self._socket is not None
        try:
            datagram = self._socket.recv(MAX_DATAGRAM_BYTES)
        except BlockingIOError:
            return
        except OSError:
            datagram = b""
        if not datagram:  # the supervisor has gone, and we are told to stop as well
            asyncio.get_running_loop().remove_reader(self._socket)
        for event in self._waiting:
            event.set()


class SupervisorLinks:
    """The supervisor's ends, one a worker.

    Parameters
    ----------
    on_report: called with each report.
    """

    def __init__(self, on_report: Callable[[Report], None]) -> None:
        self._on_report = on_report
        self._ends: dict[int, socket.socket] = {}

    def open(self, worker: int) -> int:
        """A new pair for a worker that is to be started; returns the descriptor of its end, which the caller closes."""
        self._close(worker)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._ends[worker] = ours
        asyncio.get_running_loop().add_reader(ours, self._receive, worker, ours)
        return theirs.detach()

    def notify(self) -> None:
        """Tell all workers that a membership has changed."""
        for end in self._ends.values():
            # A worker that does not read has enough notices already.
            with contextlib.suppress(OSError):
                end.send(b"changed")

    def close(self) -> None:
        """Close all."""
        for worker in list(self._ends):
            self._close(worker)

    def _close(self, worker: int) -> None:
        end = self._ends.pop(worker, None)
        if end is not None:
            asyncio.get_running_loop().remove_reader(end)
            end.close()

    def _receive(self, worker: int, end: socket.socket) -> None:
        try:
            datagram = end.recv(MAX_DATAGRAM_BYTES)
        except BlockingIOError:
            return
        except OSError:
            datagram = b""
        if not datagram:
            if self._ends.get(worker) is end:
                self._close(worker)
            return
        fields = json.loads(datagram)
        self._on_report(Report(**fields | {"suspects": tuple(fields["suspects"])}))
