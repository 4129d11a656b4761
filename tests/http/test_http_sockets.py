"""The server on real sockets and uvloop: what a fake transport cannot show."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
import uvloop
from http_harness import FakeClock, RecordingHandler, RecordingSink, parse_responses

from haystack.http.connection import HttpConnection
from haystack.http.limits import HttpLimits
from haystack.http.request import Request
from haystack.http.server import Server, sweep_pause_seconds

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
WAIT_SECONDS = 20


class StreamingHandler(RecordingHandler):
    """Also streams /stream: 20 MB in pieces, counting them."""

    pieces = 0
    stream_ended: asyncio.Event

    def answer(self, connection: HttpConnection, request: Request) -> Coroutine[Any, Any, None] | None:
        if request.path == "/stream":
            return self.stream(connection)
        return super().answer(connection, request)

    async def stream(self, connection: HttpConnection) -> None:
        try:
            await connection.respond_stream(200, b"", 20_000_000, self.make())
        finally:
            self.stream_ended.set()

    async def make(self) -> AsyncIterator[bytes]:
        for _ in range(200):
            self.pieces += 1
            yield b"s" * 100_000


class Running:
    """A running server and its means of control."""

    def __init__(self, server: Server, handler: StreamingHandler, clock: FakeClock, port: int) -> None:
        self.server = server
        self.handler = handler
        self.clock = clock
        self.port = port

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while not condition():  # noqa: ASYNC110 - the server offers no events for its inner states
                await asyncio.sleep(0.001)


def run(test: Callable[[Running], Coroutine[Any, Any, None]], limits: HttpLimits | None = None) -> None:
    """Run a test with a server on uvloop, and check that nothing is left at its end."""

    async def main() -> None:
        handler, clock = StreamingHandler(), FakeClock()
        handler.stream_ended = asyncio.Event()
        server = Server(handler, limits, monotonic_clock=clock)
        port = await server.start()
        try:
            async with asyncio.timeout(60):
                await test(Running(server, handler, clock, port))
        finally:
            await server.graceful_stop(5)
        assert server.connections_now == 0
        assert len(asyncio.all_tasks()) == 1
        for sink in handler.sinks:
            assert sink.aborted + sink.ended == 1

    uvloop.run(main())


async def answers(reader: asyncio.StreamReader, count: int) -> list[tuple[int, dict[str, str], bytes]]:
    """Read until ``count`` answers have come."""
    output = b""
    while True:
        with contextlib.suppress(AssertionError):
            responses = parse_responses(output)
            if len(responses) >= count:
                return responses
        data = await reader.read(65536)
        assert data, output
        output += data


def test_pipelined_requests() -> None:
    async def test(running: Running) -> None:
        reader, writer = await running.connect()
        writer.write(GET * 500)
        assert [status for status, _, _ in await answers(reader, 500)] == [200] * 500
        writer.write(GET)
        await answers(reader, 1)
        writer.write(GET)
        await answers(reader, 1)
        assert running.handler.fast_answers >= 2
        writer.close()
        await running.until(lambda: running.server.connections_now == 0)

    run(test)


def test_upload_with_continue_and_a_large_body() -> None:
    async def test(running: Running) -> None:
        running.handler.max_body_bytes = 50_000_000
        body = bytes(range(256)) * 100_000
        reader, writer = await running.connect()
        writer.write(b"PUT /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
        assert (await answers(reader, 1))[0][0] == 100
        writer.write(body)
        assert (await answers(reader, 1))[0][0] == 201
        assert running.handler.seen[0].body == body
        writer.close()

    run(test)


def test_sink_with_back_pressure_holds_the_client_back() -> None:
    async def test(running: Running) -> None:
        running.handler.max_body_bytes = 100_000_000
        running.handler.on_sink = lambda sink: setattr(sink, "pause_after_each", True)
        reader, writer = await running.connect()
        writer.write(b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000\r\n\r\n" + b"x" * 30_000_000)
        await running.until(lambda: bool(running.handler.sinks and running.handler.sinks[0].received))
        sink: RecordingSink = running.handler.sinks[0]
        assert len(sink.received) < 1_000_000
        while not sink.ended:
            sink.connection.resume_body()
            await asyncio.sleep(0)
        assert len(sink.received) == 30_000_000
        assert (await answers(reader, 1))[0][0] == 201
        writer.close()

    run(test)


def test_refusal_reaches_a_client_that_sends_all_before_it_reads() -> None:
    async def test(running: Running) -> None:
        reader, writer = await running.connect()
        writer.write(b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000\r\n\r\n")
        for _ in range(30):
            writer.write(b"x" * 1_000_000)
            await writer.drain()
        assert (await answers(reader, 1))[0][0] == 413
        assert await reader.read() == b""
        writer.close()

    run(test)


def test_aborted_upload() -> None:
    async def test(running: Running) -> None:
        _, writer = await running.connect()
        writer.write(b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + b"x" * 500)
        await running.until(lambda: bool(running.handler.sinks and len(running.handler.sinks[0].received) == 500))
        writer.transport.abort()
        await running.until(lambda: running.server.connections_now == 0)
        assert running.handler.sinks[0].aborted == 1
        assert running.server.refusals["aborted"] == 1

    run(test)


def test_stream_to_a_client_that_does_not_read_is_bounded_and_ends() -> None:
    async def test(running: Running) -> None:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", running.port))
        await asyncio.get_running_loop().sock_sendall(client, b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        made = -1
        while running.handler.pieces != made:  # It stops when the kernel's and our buffers are full.
            made = running.handler.pieces
            await asyncio.sleep(0.05)
        assert made < 100
        (connection,) = running.server._connections
        assert connection._transport.get_write_buffer_size() < 500_000
        for _ in range(4):
            running.clock.now += 15
            running.server.sweep()
        await asyncio.wait_for(running.handler.stream_ended.wait(), WAIT_SECONDS)
        await running.until(lambda: running.server.connections_now == 0)
        assert running.server.refusals["stalled"] == 1
        client.close()

    run(test)


def test_stream_arrives_whole() -> None:
    async def test(running: Running) -> None:
        reader, writer = await running.connect()
        writer.write(b"GET /stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        ((status, _, body),) = parse_responses(await reader.read())
        assert status == 200
        assert body == b"s" * 20_000_000
        writer.close()

    run(test)


def test_slow_header() -> None:
    async def test(running: Running) -> None:
        reader, writer = await running.connect()
        writer.write(GET[:10])
        await running.until(lambda: any(c._buffer for c in running.server._connections))
        running.clock.now += 11
        running.server.sweep()
        ((status, _, _),) = parse_responses(await reader.read())
        assert status == 408
        writer.close()
        await running.until(lambda: running.server.connections_now == 0)

    run(test)


def test_connection_limit() -> None:
    async def test(running: Running) -> None:
        kept = [await running.connect() for _ in range(2)]
        for reader, writer in kept:
            writer.write(GET)
            await answers(reader, 1)
        reader, writer = await running.connect()
        writer.write(GET)
        ((status, headers, _),) = parse_responses(await reader.read())
        assert (status, headers["connection"]) == (503, "close")
        writer.close()
        kept.pop()[1].close()
        await running.until(lambda: running.server.connections_now == 1)
        reader, writer = await running.connect()
        writer.write(GET)
        assert (await answers(reader, 1))[0][0] == 200
        writer.close()
        kept.pop()[1].close()

    run(test, HttpLimits(max_connections=2))


def test_half_closing_client() -> None:
    async def test(running: Running) -> None:
        reader, writer = await running.connect()
        writer.write(b"GET /async HTTP/1.1\r\nHost: x\r\n\r\n" + GET)
        writer.write_eof()
        await running.until(lambda: bool(running.handler.seen))
        running.handler.gate.set()
        assert [status for status, _, _ in parse_responses(await reader.read())] == [200, 200]
        writer.close()

    run(test)


def test_graceful_stop_finishes_requests_in_flight() -> None:
    async def test(running: Running) -> None:
        idle_reader, idle_writer = await running.connect()
        idle_writer.write(GET)
        await answers(idle_reader, 1)
        reader, writer = await running.connect()
        writer.write(b"GET /async HTTP/1.1\r\nHost: x\r\n\r\n")
        upload_reader, upload_writer = await running.connect()
        upload_writer.write(b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc")
        await running.until(lambda: len(running.handler.seen) == 2 and bool(running.handler.sinks))
        stopping = asyncio.create_task(running.server.graceful_stop(WAIT_SECONDS))
        assert await idle_reader.read() == b""
        with pytest.raises(ConnectionRefusedError):
            await running.connect()
        running.handler.gate.set()
        ((status, headers, _),) = parse_responses(await reader.read())
        assert (status, headers["connection"]) == (200, "close")
        assert not stopping.done()
        upload_writer.write(b"def")
        ((status, headers, _),) = parse_responses(await upload_reader.read())
        assert (status, headers["connection"]) == (201, "close")
        await stopping
        for each in (idle_writer, writer, upload_writer):
            each.close()

    run(test)


def test_graceful_stop_gives_up_after_its_time() -> None:
    async def test(running: Running) -> None:
        reader, writer = await running.connect()
        writer.write(b"GET /async HTTP/1.1\r\nHost: x\r\n\r\n")
        _, upload_writer = await running.connect()
        upload_writer.write(b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc")
        await running.until(lambda: bool(running.handler.seen and running.handler.sinks))
        await running.server.graceful_stop(0.05)
        assert running.server.connections_now == 0
        assert running.handler.sinks[0].aborted == 1
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        upload_writer.close()

    run(test)


def test_given_socket_and_shared_port() -> None:
    async def main() -> None:
        first, second = Server(RecordingHandler()), Server(RecordingHandler())
        port = await first.start()
        assert await second.start(port=port) == port
        third = Server(RecordingHandler())
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        assert await third.start(sock=sock) == sock.getsockname()[1]
        for server in (first, second, third):
            await server.graceful_stop(1)

    uvloop.run(main())


@pytest.mark.parametrize(("host", "calm"), [("127.0.0.1", True), ("0.0.0.0", False)])
def test_what_goes_to_the_own_machine_is_not_paced(host: str, calm: bool) -> None:
    """Elsewhere it is as the system has it."""
    with socket.socket() as other:
        usual = other.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)

    async def main() -> None:
        server = Server(RecordingHandler())
        with socket.socket() as listener:
            listener.bind((host, 0))
            await server.start(sock=listener.dup())
            found = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
            assert found.rstrip(b"\0") == (b"reno" if calm else usual.rstrip(b"\0"))
        await server.graceful_stop(1)

    uvloop.run(main())


def test_a_second_begins_with_its_date() -> None:
    now = 1_700_000_000.75
    assert sweep_pause_seconds(now) == pytest.approx(0.25, abs=0.003)
    assert sweep_pause_seconds(now + 0.25) == pytest.approx(1.0, abs=0.003)
    assert sweep_pause_seconds(now + 0.2499) > 0.001, "a timer that was early is not set again and again"


def test_observer_is_told() -> None:
    class Counts:
        opened = closed = 0
        kinds: tuple[str, ...] = ()
        statuses: tuple[int, ...] = ()

        def connection_opened(self) -> None:
            self.opened += 1

        def connection_closed(self) -> None:
            self.closed += 1

        def responded(self, status: int) -> None:
            self.statuses += (status,)

        def refused(self, kind: str) -> None:
            self.kinds += (kind,)

    async def main() -> None:
        counts = Counts()
        server = Server(RecordingHandler(), observer=counts)
        port = await server.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /missing HTTP/1.1\r\nHost: x\r\n\r\nnonsense\r\n\r\n")
        async with asyncio.timeout(WAIT_SECONDS):
            statuses = [status for status, _, _ in parse_responses(await reader.read())]
        writer.close()
        await server.graceful_stop(5)
        assert statuses == [404, 400]
        assert (counts.opened, counts.closed, counts.kinds) == (1, 1, ("malformed",))
        assert counts.statuses == (404, 400)

    uvloop.run(main())
