"""Reads that cost the one who asks next to nothing: thousands a second beside the servers that are measured.

No task, no stream and no header object a read: a request is some bytes, an answer is looked at where it was received.
Kept connections, one read at a time on each; nothing is asked for again. It works on any event loop, and is cheapest on
uvloop's (:func:`run_light`).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

import uvloop

FIRST_BUFFER_BYTES = 128 * 1024
"""Of each connection; it grows with the answers."""

MOST_CONNECTIONS = 256
"""To one address; further reads wait until one is free."""

SWEEP_SECONDS = 0.05
"""How often it is looked for reads that have waited for too long."""

IDLE_SECONDS = 20.0
"""Then an idle connection is closed, before the server does so in the moment that it is used again."""

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)
_now = time.monotonic
_RESULT = TypeVar("_RESULT")


class LightRead:
    """One GET. Derive from it to know what was asked for; each is begun once.

    Parameters
    ----------
    address: host:port.
    path: what is asked for, with its slash, as bytes.

    ``begun_seconds`` is when it was begun, by ``time.monotonic()`` (uvloop's own clock knows milliseconds only).
    """

    __slots__ = ("address", "begun_seconds", "path")

    def __init__(self, address: str, path: bytes) -> None:
        self.address = address
        self.path = path
        self.begun_seconds = 0.0

    def answered(self, status: int, body: memoryview) -> None:
        """There is a whole answer; its body is there during the call only. Must not raise."""
        raise NotImplementedError

    def unanswered(self, problem: str) -> None:
        """There was no whole answer: refused, cut off, or not in time. Must not raise."""
        raise NotImplementedError


class LightClient:
    """Makes reads. To be made in the event loop that runs it.

    Parameters
    ----------
    timeout_seconds: from the begin of a read until its answer is whole.
    """

    def __init__(self, *, timeout_seconds: float, most_connections: int = MOST_CONNECTIONS) -> None:
        self.loop = asyncio.get_running_loop()
        self.most_connections = most_connections
        self.in_flight = 0
        """Reads that were begun and have not ended."""
        self._timeout_seconds = timeout_seconds
        self._pools: dict[str, _Pool] = {}
        self._sweeper = self.loop.call_later(SWEEP_SECONDS, self._sweep)

    def begin(self, read: LightRead) -> None:
        """Begin a read; it is told what came of it, never before this returns."""
        pool = self._pools.get(read.address)
        if pool is None:
            pool = self._pools[read.address] = _Pool(self, read.address)
        self.in_flight += 1
        read.begun_seconds = _now()
        pool.begin(read)

    async def close(self) -> None:
        """Wait until all reads have ended, then close all connections."""
        while self.in_flight:  # noqa: ASYNC110 - an event would cost something for each read
            await asyncio.sleep(SWEEP_SECONDS)
        self._sweeper.cancel()
        for pool in self._pools.values():
            pool.close()
        await asyncio.sleep(0)

    def _sweep(self) -> None:
        self._sweeper = self.loop.call_later(SWEEP_SECONDS, self._sweep)
        now = _now()
        for pool in self._pools.values():
            pool.sweep(now - self._timeout_seconds, now - IDLE_SECONDS)


class _Pool:
    """Connections to one address, and the reads that wait for one."""

    def __init__(self, client: LightClient, address: str) -> None:
        self.client = client
        self.address = address
        self.tail = f" HTTP/1.1\r\nHost: {address}\r\n\r\n".encode()
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._connections: set[_Connection] = set()
        self._idle: list[_Connection] = []
        self._waiting: deque[LightRead] = deque()
        self._connecting: set[asyncio.Task[None]] = set()

    def begin(self, read: LightRead) -> None:
        if self._idle:
            self._idle.pop().send(read)
            return
        self._waiting.append(read)
        self._connect_more()

    def opened(self, connection: _Connection) -> None:
        self._connections.add(connection)
        self.free(connection)

    def free(self, connection: _Connection) -> None:
        """Give a connection something to do, or keep it."""
        if self._waiting:
            connection.send(self._waiting.popleft())
        else:
            connection.idle_since_seconds = _now()
            self._idle.append(connection)

    def lost(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._connect_more()

    def sweep(self, begun_before: float, idle_before: float) -> None:
        """End what was begun, and close what is idle, since before these moments."""
        waiting = self._waiting
        while waiting and waiting[0].begun_seconds < begun_before:
            self.end(waiting.popleft(), "not in time: no connection was free")
        for connection in list(self._connections):
            read = connection.read
            if read is not None and read.begun_seconds < begun_before:
                connection.give_up(f"not in time, {connection.filled} bytes came")
        while self._idle and self._idle[0].idle_since_seconds < idle_before:  # the last one that was used is last
            self._idle.pop(0).abort()

    def end(self, read: LightRead, problem: str) -> None:
        self.client.in_flight -= 1
        read.unanswered(f"GET {self.address}{read.path.decode()}: {problem}")

    def close(self) -> None:
        for task in self._connecting:
            task.cancel()
        for connection in list(self._connections):
            connection.abort()

    def _connect_more(self) -> None:
        """Open connections for those that wait."""
        coming = len(self._connecting)
        room = self.client.most_connections - len(self._connections) - coming
        for _ in range(min(room, len(self._waiting) - coming)):
            task = self.client.loop.create_task(self._connect())
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self) -> None:
        try:
            await self.client.loop.create_connection(lambda: _Connection(self), self._host, self._port)
        except OSError as error:
            if self._waiting:
                self.end(self._waiting.popleft(), f"{type(error).__name__} {error}")


class _Connection(asyncio.BufferedProtocol):
    """One connection; its buffer holds the answer from the first byte of its head on."""

    __slots__ = ("_body_at", "_buffer", "_end", "_pool", "_transport", "_view", "filled", "idle_since_seconds", "read")

    def __init__(self, pool: _Pool) -> None:
        self.read: LightRead | None = None
        self.filled = 0
        self.idle_since_seconds = 0.0
        self._pool = pool
        self._body_at = self._end = 0
        self._buffer = bytearray(FIRST_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._transport: asyncio.Transport

    def send(self, read: LightRead) -> None:
        self.read = read
        self.filled = self._end = 0
        self._transport.write(b"GET " + read.path + self._pool.tail)

    def give_up(self, problem: str) -> None:
        """End the read that is under way, and the connection with it."""
        read, self.read = self.read, None
        if read is not None:
            self._pool.end(read, problem)
        self.abort()

    def abort(self) -> None:
        self._transport.abort()  # not closed: a frozen peer would keep it waiting

    # -- asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._pool.opened(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view[self.filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self.filled += nbytes
        if not self._end and not self._parse_head():
            return
        if self.filled < self._end:
            return
        read = self.read
        if read is None or self.filled > self._end:
            self.give_up("more bytes than an answer has")
            return
        self.read = None
        self._pool.client.in_flight -= 1
        read.answered(int(self._buffer[9:12]), self._view[self._body_at : self._end])
        if self._buffer.find(b"\r\nConnection: close\r\n", 0, self._body_at) >= 0:
            self.abort()
        else:
            self._pool.free(self)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.give_up(f"cut off after {self.filled} bytes: {exc or 'closed'}")
        self._pool.lost(self)

    def _parse_head(self) -> bool:
        """Whether the head is there; then it is known where the body begins and ends."""
        found = self._buffer.find(b"\r\n\r\n", 0, self.filled)
        if found < 0:
            if self.filled == len(self._buffer):
                self.give_up("a head without an end")
            return False
        self._body_at = found + 4
        length = _LENGTH.search(self._buffer, 0, self._body_at)
        if length is None:
            self.give_up("an answer without Content-Length")
            return False
        self._end = self._body_at + int(length[1])
        if self._end > len(self._buffer):
            larger = bytearray(self._end)
            larger[: self.filled] = self._buffer[: self.filled]
            self._buffer, self._view = larger, memoryview(larger)
        return True


class Ticker:
    """Calls a function so many times a second, evenly, and catches up when it was late.

    Parameters
    ----------
    act: must not raise, and should cost little.
    tick_seconds: it looks so often for what is due.
    """

    def __init__(self, per_second: float, act: Callable[[], None], *, tick_seconds: float = 0.001) -> None:
        self.most_late_seconds = 0.0
        """How long it could not run: more than a moment, and what is measured is about the machine."""
        self._loop = asyncio.get_running_loop()
        self._per_second = per_second
        self._act = act
        self._tick_seconds = tick_seconds
        self._began = self._expected = _now()
        self._done = 0
        self._timer = self._loop.call_later(tick_seconds, self._tick)

    def stop(self) -> None:
        self._timer.cancel()

    def _tick(self) -> None:
        now = _now()
        self.most_late_seconds = max(self.most_late_seconds, now - self._expected - self._tick_seconds)
        self._expected = now
        due = int((now - self._began) * self._per_second)
        for _ in range(due - self._done):
            self._act()
        self._done = due
        self._timer = self._loop.call_later(self._tick_seconds, self._tick)


def run_light(main: Coroutine[Any, Any, _RESULT]) -> _RESULT:
    """Run a coroutine in an event loop of uvloop's, from a test that is no coroutine itself."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
