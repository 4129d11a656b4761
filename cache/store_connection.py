"""One connection of a Cache to a Store, for one request after the other.

An answer's bytes are received straight to where they belong, which a :class:`Taker` says; nothing is copied on the way
but what came together with the answer's head.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol, cast

from haystack.errors import HaystackError

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


class Pool(Protocol):
    """Keeps connections that wait for a request."""

    def keep(self, connection: StoreConnection) -> None:
        """It can be used again."""

    def forget(self, connection: StoreConnection) -> None:
        """It is gone."""


class Asked(Protocol):
    """A request that a connection is at.

    Parameters
    ----------
    head_only: no body comes with the answer.
    begun: whether a byte of the answer has come.
    progress: when the last bytes came, by the loop's clock.
    """

    @property
    def request(self) -> bytes: ...

    @property
    def taker(self) -> Taker: ...

    @property
    def head_only(self) -> bool: ...

    begun: bool
    progress: float

    def fail(self, error: HaystackError, *, abort: bool = False) -> None:
        """There is no answer, or not all of it."""

    def done(self) -> None:
        """The answer is complete."""


class StoreConnection(asyncio.BufferedProtocol):
    """One connection to a Store, for one request after the other."""

    def __init__(self, address: str, pool: Pool) -> None:
        self.address = address
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._call: Asked | None = None
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

    def ask(self, call: Asked) -> None:
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
        self._pool.forget(self)
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

    def _read_head(self, call: Asked) -> None:
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

    def _done(self, call: Asked) -> None:
        self._call = None
        self.resume()
        if self._stays_open and self.usable:
            self._pool.keep(self)
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
