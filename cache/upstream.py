"""Requests of a Cache to Stores: kept connections, and patience.

An answer has to begin, and then to go on, within :data:`PATIENCE_SECONDS`. A kept connection that its Store has closed
meanwhile is replaced by a new one, once, without anybody being told.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping

from cache.store_connection import StoreConnection, StoreSilent, Taker
from haystack.addresses import split
from haystack.errors import HaystackError

PATIENCE_SECONDS = 1.0
"""Without a byte from a Store: then it counts as one that does not answer."""

MAX_IDLE_CONNECTIONS = 32
"""Kept for each Store."""


class Upstreams:
    """The connections to all Stores. Lives on one event loop."""

    def __init__(self, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self.patience_seconds = patience_seconds
        self._idle: dict[str, deque[StoreConnection]] = {}
        self._calls: set[Call] = set()
        self._closed = False

    def ask(self, address: str, method: str, path: str, taker: Taker, headers: Mapping[str, str] | None = None) -> Call:
        """Begin a request.

        Parameters
        ----------
        address: ``host:port`` of a Store.
        path: percent-encoded.
        """
        lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        request = f"{method} {path} HTTP/1.1\r\nHost: {address}\r\n{lines}\r\n".encode("latin-1")
        call = Call(self, address, request, taker, head_only=method == "HEAD")
        self._calls.add(call)
        call.start()
        return call

    def close(self) -> None:
        """Break off what is under way, and close all connections."""
        self._closed = True
        for call in list(self._calls):
            call.cancel()
        for waiting in self._idle.values():
            for connection in waiting:
                connection.abort()
        self._idle.clear()

    def take_idle(self, address: str) -> StoreConnection | None:
        """A kept connection, if there is one."""
        waiting = self._idle.get(address)
        while waiting:
            connection = waiting.pop()
            if connection.usable:
                return connection
        return None

    def keep(self, connection: StoreConnection) -> None:
        """Keep a connection for a later request."""
        waiting = self._idle.setdefault(connection.address, deque())
        waiting.append(connection)
        if self._closed:
            connection.abort()
        while len(waiting) > MAX_IDLE_CONNECTIONS:
            waiting.popleft().abort()

    def forget(self, connection: StoreConnection) -> None:
        """A kept connection is gone."""
        waiting = self._idle.get(connection.address)
        if waiting is not None and connection in waiting:
            waiting.remove(connection)

    def over(self, call: Call) -> None:
        """A call has ended."""
        self._calls.discard(call)


class Call:
    """One request that is under way."""

    def __init__(self, upstreams: Upstreams, address: str, request: bytes, taker: Taker, *, head_only: bool) -> None:
        self.address = address
        self.request = request
        self.taker = taker
        self.head_only = head_only
        self.progress = 0.0
        """When the last bytes came, by the loop's clock."""
        self.begun = False
        """Whether a byte of the answer has come."""
        self._upstreams = upstreams
        self._connection: StoreConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._reused = False
        self._timer: asyncio.TimerHandle | None = None
        self._over = False
        self._paused = False
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """Send the request on a kept connection, or make one."""
        self.progress = self._loop.time()
        self._timer = self._loop.call_later(self._upstreams.patience_seconds, self._check)
        connection = self._upstreams.take_idle(self.address)
        if connection is not None:
            self._reused = True
            self._use(connection)
        else:
            self._connecting = self._loop.create_task(self._connect())

    def cancel(self) -> None:
        """Nobody wants the answer any more; the taker hears nothing."""
        if not self._over:
            self._end()
            if self._connection is not None:
                self._connection.abort()

    def pause(self) -> None:
        """Receive nothing for now: whoever takes the bytes is not ready for more."""
        self._paused = True
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """Go on receiving."""
        self._paused = False
        self.progress = self._loop.time()
        if self._connection is not None:
            self._connection.resume()

    async def _connect(self) -> None:
        host, port = split(self.address)
        try:
            _, connection = await self._loop.create_connection(
                lambda: StoreConnection(self.address, self._upstreams), host, port
            )
        except OSError as error:
            self._connecting = None
            self.fail(StoreSilent(f"Store {self.address} cannot be reached: {error.strerror or error}"))
            return
        self._connecting = None
        if self._over:
            self._upstreams.keep(connection)
        else:
            self._use(connection)

    def _use(self, connection: StoreConnection) -> None:
        self._connection = connection
        connection.ask(self)

    def _check(self) -> None:
        left = self.progress + self._upstreams.patience_seconds - self._loop.time()
        if self._paused or left > 0:
            self._timer = self._loop.call_later(max(left, 0.05), self._check)
        else:
            self.fail(
                StoreSilent(f"Store {self.address} was silent for {self._upstreams.patience_seconds:g} s"), abort=True
            )

    def fail(self, error: HaystackError, *, abort: bool = False) -> None:
        """End with an error; a kept connection that was closed before it said anything is replaced first."""
        if self._over:
            return
        connection = self._connection
        if self._reused and not self.begun and not abort:
            self._reused = False
            self._connection = None
            self._connecting = self._loop.create_task(self._connect())
            return
        self._end()
        if connection is not None:
            connection.abort()
        self.taker.failed(error)

    def done(self) -> None:
        """The answer is complete; its connection was kept or closed already."""
        self._end()
        self.taker.end()

    def _end(self) -> None:
        self._over = True
        self._upstreams.over(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._connecting is not None:
            self._connecting.cancel()


OnDone = Callable[[int, Mapping[str, str], bytes], None]


class SmallAnswer:
    """A taker of answers that fit into memory easily: what HEAD gives, errors.

    Parameters
    ----------
    done: called with status, fields and body.
    failed: called with the error when there is no answer.
    """

    MAX_BYTES = 64 * 1024

    def __init__(self, done: OnDone, failed: Callable[[HaystackError], None]) -> None:
        self._done = done
        self._failed = failed
        self._status = 0
        self._fields: Mapping[str, str] = {}
        self._body = bytearray()
        self._have = 0

    def begin(self, status: int, fields: Mapping[str, str], body_bytes: int) -> None:
        if body_bytes > self.MAX_BYTES:
            raise StoreSilent(f"a Store answers with {body_bytes} bytes where few are expected")
        self._status, self._fields = status, fields
        self._body = bytearray(body_bytes)

    def buffer(self) -> memoryview:
        return memoryview(self._body)[self._have :]

    def received(self, count: int) -> None:
        self._have += count

    def end(self) -> None:
        self._done(self._status, self._fields, bytes(self._body))

    def failed(self, error: HaystackError) -> None:
        self._failed(error)
