"""Requests of a Cache to Stores: kept connections, answers received straight to where they belong, and patience.

What an answer's bytes are for, a :class:`Taker` says: it names the memory that the next ones are received into. Nothing
is copied on the way but what came together with the answer's head.

Patience: an answer has to begin, and then to go on, within :data:`PATIENCE_SECONDS`. A kept connection that its Store
has closed meanwhile is replaced by a new one, once, without anybody being told.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol, cast

from haystack.addresses import split
from haystack.errors import HaystackError

PATIENCE_SECONDS = 1.0
"""Without a byte from a Store: then it counts as one that does not answer."""

MAX_IDLE_CONNECTIONS = 32
"""Kept for each Store."""

MAX_HEAD_BYTES = 16 * 1024
RECEIVED_AT_ONCE_BYTES = 32 * 1024
"""The memory that a head is received into: small photos come with it."""

_SCRAP = memoryview(bytearray(64 * 1024))
"""Where bytes go that nobody wants."""

BODILESS = (204, 304)


class StoreSilent(HaystackError):
    """A Store was not reached, fell silent, or broke its answer off."""

    http_status = 503


class Taker(Protocol):
    """Takes one answer. After ``end`` or ``failed`` nothing more is called."""

    def begin(self, status: int, fields: Mapping[str, str], body_bytes: int) -> None:
        """The head has come. A HaystackError that this, or any other call, raises ends the request as ``failed``."""

    def buffer(self) -> memoryview:
        """Where the next bytes of the body belong; at least one byte long."""

    def received(self, count: int) -> None:
        """So many bytes were put there."""

    def end(self) -> None:
        """The body is complete."""

    def failed(self, error: HaystackError) -> None:
        """There is no answer, or not all of it."""


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


class StoreConnection(asyncio.BufferedProtocol):
    """One connection to a Store, for one request after the other."""

    def __init__(self, address: str, upstreams: Upstreams) -> None:
        self.address = address
        self._upstreams = upstreams
        self._transport: asyncio.Transport | None = None
        self._call: Call | None = None
        self._head = bytearray(RECEIVED_AT_ONCE_BYTES)
        self._have = 0
        self._left = 0
        """Bytes of the body that have not come yet."""
        self._in_body = False
        self._stays_open = True
        self._reading_paused = False

    @property
    def usable(self) -> bool:
        """Whether a request can be sent on it."""
        return self._transport is not None and not self._transport.is_closing()

    def ask(self, call: Call) -> None:
        """Send the request of a call."""
        assert self._transport is not None
        self._call = call
        self._have = 0
        self._in_body = False
        self._stays_open = True
        self._transport.write(call.request)

    def abort(self) -> None:
        """Close now."""
        self._call = None
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        """Stop receiving."""
        if self._transport is not None and not self._reading_paused and not self._transport.is_closing():
            self._reading_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Receive again."""
        if self._transport is not None and self._reading_paused and not self._transport.is_closing():
            self._reading_paused = False
            self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._upstreams.forget(self)
        call, self._call = self._call, None
        if call is not None:
            said = f": {error}" if error is not None else ""
            call.fail(StoreSilent(f"Store {self.address} closed the connection before its answer was complete{said}"))

    def get_buffer(self, sizehint: int) -> memoryview:
        call = self._call
        if call is None:
            return _SCRAP
        if not self._in_body:
            return memoryview(self._head)[self._have :]
        try:
            return call.taker.buffer()[: self._left]
        except HaystackError as problem:
            self._call = None
            asyncio.get_running_loop().call_soon(call.fail, problem)
            self._close_soon()
            return _SCRAP

    def buffer_updated(self, count: int) -> None:
        call = self._call
        if call is None:
            self._close_soon()  # nobody asked for anything
            return
        call.begun = True
        call.progress = asyncio.get_running_loop().time()
        try:
            if self._in_body:
                self._left -= count
                call.taker.received(count)
            else:
                self._have += count
                self._read_head(call)
                if not self._in_body:
                    return
        except HaystackError as problem:
            self._call = None
            call.fail(problem, abort=True)
            self._close_soon()
            return
        if not self._left:
            self._done(call)

    def eof_received(self) -> bool:
        return False

    def _read_head(self, call: Call) -> None:
        end = self._head.find(b"\r\n\r\n", 0, self._have)
        if end < 0:
            if self._have >= MAX_HEAD_BYTES:
                raise StoreSilent(f"Store {self.address} answers with a head of more than {MAX_HEAD_BYTES} bytes")
            return
        status, fields = parse_answer_head(bytes(self._head[:end]), self.address)
        bodiless = call.head_only or status in BODILESS
        length = 0 if bodiless else _length(fields, self.address)
        self._in_body = True
        self._left = length
        self._stays_open = "close" not in fields.get("connection", "").lower()
        call.taker.begin(status, fields, length)
        rest = memoryview(self._head)[end + 4 : self._have]
        if len(rest) > length:
            raise StoreSilent(f"Store {self.address} sent more than the {length} bytes that it announced")
        while len(rest):
            room = call.taker.buffer()
            count = min(len(room), len(rest))
            room[:count] = rest[:count]
            rest = rest[count:]
            self._left -= count
            call.taker.received(count)

    def _done(self, call: Call) -> None:
        self._call = None
        self.resume()
        if self._stays_open and self.usable:
            self._upstreams.keep(self)
        else:
            self._close_soon()
        call.done()

    def _close_soon(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def parse_answer_head(head: bytes, address: str) -> tuple[int, dict[str, str]]:
    """Status and fields (names in lower case) of an answer's head, without its empty line. Raises StoreSilent."""
    line, *rows = head.decode("latin-1").split("\r\n")
    words = line.split(" ", 2)
    if len(words) < 2 or words[0] != "HTTP/1.1" or not (len(words[1]) == 3 and words[1].isdecimal()):
        raise StoreSilent(f"Store {address} answers strangely: {line[:60]!r}")
    fields = {}
    for row in rows:
        name, colon, value = row.partition(":")
        if not colon:
            raise StoreSilent(f"Store {address} answers with a strange header line: {row[:60]!r}")
        fields[name.lower()] = value.strip(" \t")
    return int(words[1]), fields


def _length(fields: Mapping[str, str], address: str) -> int:
    text = fields.get("content-length", "")
    if not text.isdecimal() or len(text) > 18:
        raise StoreSilent(f"Store {address} answers without a length")
    return int(text)


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
