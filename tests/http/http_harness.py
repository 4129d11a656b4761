"""What the HTTP tests share: a transport without a socket, a handler that keeps a record, and a way to drive both."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

from haystack.errors import NeedleNotFound, OutOfSpace, VolumeUnavailable
from haystack.http.connection import HttpConnection
from haystack.http.fast_uploads import UploadingConnection
from haystack.http.limits import HttpLimits
from haystack.http.request import Request, RequestHeaders
from haystack.http.response import prepared_head
from haystack.http.server import Server

NOW = 784111777.0
DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"
HELLO = b"hello"
HELLO_HEAD = prepared_head(200, b'ETag: "1"\r\n', len(HELLO))


class FakeClock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FakeTransport:
    """Records what is written. With ``flowing=False`` it stays in the write buffer: the client does not read."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        self.protocol = protocol
        self.output = bytearray()
        self.unsent = bytearray()
        self.flowing = True
        self.reading = True
        self.eof_written = False
        self.closed = False
        self.aborted = False
        self.lost = False
        self.high = 64 * 1024
        self.paused = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high is not None
        self.high = high

    def get_write_buffer_size(self) -> int:
        return len(self.unsent)

    def get_extra_info(self, name: str) -> Any:
        return ("192.0.2.1", 1234) if name == "peername" else None

    def write(self, data: Any) -> None:
        assert not self.eof_written, "written after write_eof"
        assert not self.closed, "written after close"
        (self.output if self.flowing else self.unsent).extend(data)
        if len(self.unsent) > self.high and not self.paused:
            self.paused = True
            self.protocol.pause_writing()

    def writelines(self, pieces: Iterable[Any]) -> None:
        for piece in pieces:
            self.write(piece)

    def drain(self, count: int | None = None) -> None:
        """The client reads ``count`` bytes, or everything."""
        count = len(self.unsent) if count is None else count
        self.output += self.unsent[:count]
        del self.unsent[:count]
        if self.paused and len(self.unsent) <= self.high // 4:
            self.paused = False
            self.protocol.resume_writing()

    def write_eof(self) -> None:
        assert not self.closed
        self.eof_written = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True
        self.unsent.clear()

    def settle(self) -> None:
        """Deliver connection_lost as a loop would: after the callback that closed."""
        if self.closed and not self.unsent and not self.lost:
            self.lost = True
            self.protocol.connection_lost(None)

    @property
    def ended(self) -> bool:
        """The client sees the end of the output."""
        return self.closed or self.eof_written


@dataclass
class Seen:
    """A request as the handler got it."""

    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    body: bytes = b""


class RecordingSink:
    """Collects a body; answers 201 with its length."""

    def __init__(self, handler: RecordingHandler, connection: HttpConnection, seen: Seen) -> None:
        self.handler = handler
        self.connection = connection
        self.seen = seen
        self.max_bytes = handler.max_body_bytes
        self.received = bytearray()
        self.ended = False
        self.aborted = 0
        self.fail_at: int | None = None
        self.answer_at: int | None = None
        self.pause_after_each = False

    def data(self, piece: bytes) -> None:
        assert piece and isinstance(piece, bytes)
        assert not self.ended and not self.aborted
        self.received += piece
        if self.fail_at is not None and len(self.received) >= self.fail_at:
            raise OutOfSpace("the disk is full")
        if self.answer_at is not None and len(self.received) >= self.answer_at:
            self.connection.respond_error(507, "enough")
        if self.pause_after_each:
            self.connection.pause_body()

    def end(self) -> Coroutine[Any, Any, None] | None:
        assert not self.aborted
        self.ended = True
        self.seen.body = bytes(self.received)
        self.handler.seen.append(self.seen)
        if self.seen.path.startswith("/async"):
            return self.answer_later()
        self.connection.respond(201, b"", b"%d" % len(self.received))
        return None

    async def answer_later(self) -> None:
        await self.handler.gate.wait()
        self.connection.respond(201, b"", b"later %d" % len(self.received))

    def abort(self) -> None:
        assert not self.ended
        self.aborted += 1


@dataclass
class RecordingHandler:
    """Answers by path, keeps what it was asked."""

    max_body_bytes: int = 1_000_000
    use_fast: bool = True
    seen: list[Seen] = field(default_factory=list)
    sinks: list[RecordingSink] = field(default_factory=list)
    lines: set[bytes] = field(default_factory=set)
    fast_answers: int = 0
    fast_uploads: int = 0
    taken: list[tuple[UploadingConnection, bytes]] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    on_sink: Callable[[RecordingSink], None] = lambda sink: None

    def fast_get(self, connection: HttpConnection, request_line: bytes, headers: RequestHeaders) -> bool:
        if not self.use_fast or request_line not in self.lines:
            return False
        assert headers.plain
        self.fast_answers += 1
        method, target, _ = request_line.decode().split(" ")
        path, _, query = target.partition("?")
        self.seen.append(Seen(method, path, query, headers.items()))
        connection.respond_prepared(HELLO_HEAD, None if method == "HEAD" else HELLO)
        return True

    def fast_put(
        self, connection: UploadingConnection, request_line: bytes, headers: RequestHeaders, body: bytes
    ) -> bool:
        if not self.use_fast or request_line not in (b"PUT /a HTTP/1.1", b"POST /a HTTP/1.1"):
            return False
        assert headers.content_length == len(body) > 0
        self.fast_uploads += 1
        self.seen.append(Seen(request_line.split()[0].decode(), "/a", "", headers.items(), body))
        self.taken.append((connection, body))
        return True

    def release(self) -> None:
        """Answer the uploads that were taken on the fast way."""
        taken, self.taken = self.taken, []
        for connection, body in taken:
            length = b"%d" % len(body)
            connection.finish_promised(prepared_head(201, b"", len(length)), length)

    def begin(self, connection: HttpConnection, request: Request) -> RecordingSink | Coroutine[Any, Any, None] | None:
        seen = Seen(request.method, request.path, request.query, request.headers.items())
        if request.method in ("PUT", "POST"):
            if request.path == "/refused":
                raise NeedleNotFound("no such place")
            sink = RecordingSink(self, connection, seen)
            self.sinks.append(sink)
            self.on_sink(sink)
            return sink
        self.seen.append(seen)
        return self.answer(connection, request)

    def answer(self, connection: HttpConnection, request: Request) -> Coroutine[Any, Any, None] | None:
        path = request.path
        if path == "/missing":
            raise NeedleNotFound("no such photo")
        if path == "/away":
            raise VolumeUnavailable("come back in a moment")
        if path == "/bug":
            raise ZeroDivisionError("a bug")
        if path == "/silent":
            return None
        if path == "/twice":
            connection.respond(200, b"", b"1")
            connection.respond(200, b"", b"2")
        elif path.startswith("/async"):
            return self.answer_later(connection, request)
        elif path == "/big":
            connection.respond(200, b"", b"b" * 300_000)
        elif path == "/nothing":
            connection.respond(204, b"")
        elif path == "/same":
            connection.respond(304, b'ETag: "1"\r\n')
        else:
            if request.cacheable_line is not None:
                self.lines.add(request.cacheable_line)
            connection.respond_prepared(HELLO_HEAD, HELLO)
        return None

    async def answer_later(self, connection: HttpConnection, request: Request) -> None:
        await self.gate.wait()
        if request.path == "/async-missing":
            raise NeedleNotFound("no such photo")
        if request.path == "/async-away":
            raise VolumeUnavailable("come back in a moment")
        if request.path == "/async-bug":
            raise ZeroDivisionError("a bug")
        if request.path != "/async-silent":
            connection.respond(200, b"", b"later")


class Drive:
    """One server with one connection on a fake transport."""

    def __init__(self, handler: RecordingHandler | None = None, limits: HttpLimits | None = None) -> None:
        self.handler = handler or RecordingHandler()
        self.clock = FakeClock()
        self.server = Server(self.handler, limits, wall_clock=lambda: NOW, monotonic_clock=self.clock)
        self.transports: list[FakeTransport] = []
        self.releasing = True
        """Uploads of the fast way are answered as soon as they were taken."""
        self.connection, self.transport = self.connect()

    def connect(self) -> tuple[HttpConnection, FakeTransport]:
        connection = self.server.new_connection()
        transport = FakeTransport(connection)
        self.transports.append(transport)
        connection.connection_made(transport)  # type: ignore[arg-type]  # stands in for a Transport
        transport.settle()
        return connection, transport

    def feed(self, *pieces: bytes) -> Drive:
        for piece in pieces:
            if self.transport.closed:
                break
            self.connection.data_received(piece)
            if self.releasing:
                self.handler.release()
            self.transport.settle()
        return self

    def end_of_input(self) -> Drive:
        if not self.transport.closed:
            if not self.connection.eof_received():
                self.transport.close()
            self.transport.settle()
        return self

    def after(self, seconds: float) -> Drive:
        """Time passes, and the server sweeps."""
        self.clock.now += seconds
        self.server.sweep()
        for transport in self.transports:
            transport.settle()
        return self

    @property
    def output(self) -> bytes:
        return bytes(self.transport.output)

    def take_output(self) -> bytes:
        output = self.output
        self.transport.output.clear()
        return output

    @property
    def statuses(self) -> list[int]:
        return [status for status, _, _ in parse_responses(self.output)]


def parse_responses(output: bytes, methods: Iterable[str] = ()) -> list[tuple[int, dict[str, str], bytes]]:
    """Split what a server wrote into (status, headers, body). ``methods``: of the requests, where one was HEAD."""
    responses = []
    asked = iter(methods)
    while output:
        head, mark, output = output.partition(b"\r\n\r\n")
        assert mark, f"no end of head in {head!r}"
        status_line, *lines = head.decode("latin-1").split("\r\n")
        match = re.fullmatch(r"HTTP/1\.1 (\d{3}) [ -~]+", status_line)
        assert match, status_line
        status = int(match[1])
        headers = {}
        for line in lines:
            name, _, value = line.partition(": ")
            assert name.lower() not in headers, f"{name} twice"
            headers[name.lower()] = value
        if status == 100:
            assert not headers
        bodiless = status in (100, 204, 304) or next(asked, "GET") == "HEAD"
        length = 0 if bodiless else int(headers["content-length"])
        assert len(output) >= length, "short body"
        responses.append((status, headers, output[:length]))
        output = output[length:]
    return responses


def one_by_one(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def split_at(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    marks = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(marks)]
