"""Answers, uploads, back-pressure, streams and time-outs of one connection, on a transport without a socket."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest
from http_harness import DATE, Drive, RecordingHandler, one_by_one, parse_responses

from haystack.errors import ClientGone
from haystack.http.connection import HttpConnection
from haystack.http.limits import HttpLimits
from haystack.http.request import Request
from haystack.http.response import header_block

HOST = b"Host: x\r\n"


def get(path: str, method: str = "GET", headers: bytes = b"") -> bytes:
    return f"{method} {path} HTTP/1.1\r\n".encode() + HOST + headers + b"\r\n"


def put(path: str, body: bytes, headers: bytes = b"") -> bytes:
    return f"PUT {path} HTTP/1.1\r\n".encode() + HOST + headers + b"Content-Length: %d\r\n\r\n" % len(body) + body


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# Answers.


def test_answer_is_exact() -> None:
    drive = Drive().feed(get("/a"))
    assert drive.output == (
        b'HTTP/1.1 200 OK\r\nServer: haystack\r\nETag: "1"\r\nContent-Length: 5\r\nDate: ' + DATE + b"\r\n\r\nhello"
    )


def test_error_answer_is_exact() -> None:
    drive = Drive().feed(get("/missing"))
    assert drive.output == (
        b"HTTP/1.1 404 Not Found\r\nServer: haystack\r\nContent-Type: application/json\r\n"
        b"Cache-Control: no-store\r\nContent-Length: 27\r\nDate: " + DATE + b'\r\n\r\n{"error": "no such photo"}\n'
    )


@pytest.mark.parametrize("path", ["/a", "/missing", "/big", "/bug", "/nothing", "/same"])
def test_head_has_the_headers_of_get_and_no_body(path: str) -> None:
    of_get = Drive().feed(get(path)).output
    of_head = Drive().feed(get(path, "HEAD")).output
    assert of_head == of_get.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


def test_bodiless_statuses_have_no_length() -> None:
    for path in ("/nothing", "/same"):
        ((_, headers, body),) = parse_responses(Drive().feed(get(path)).output)
        assert "content-length" not in headers
        assert body == b""


def test_keep_alive_is_said_to_http_10() -> None:
    drive = Drive().feed(b"GET /a HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
    ((_, headers, _),) = parse_responses(drive.output)
    assert headers["connection"] == "keep-alive"


def test_exception_of_a_handler_is_500_without_details(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        drive = Drive().feed(get("/bug"))
    ((status, _, body),) = parse_responses(drive.output)
    assert status == 500
    assert b"ZeroDivision" not in body
    assert "ZeroDivisionError" in caplog.text
    assert drive.server.refusals["handler"] == 1
    assert drive.feed(get("/a")).statuses == [500, 200]


async def test_what_is_away_for_a_moment_says_when_to_come_back() -> None:
    drive = Drive().feed(get("/away") + get("/async-away") + get("/missing"))
    drive.handler.gate.set()
    await turns(20)
    answers = parse_responses(drive.output)
    assert [(status, headers.get("retry-after")) for status, headers, _ in answers] == [
        (503, "1"),
        (503, "1"),
        (404, None),
    ]


def test_handler_that_forgets_to_answer_is_500() -> None:
    assert Drive().feed(get("/silent")).statuses == [500]


def test_second_answer_to_a_request_is_refused_and_the_connection_reset() -> None:
    drive = Drive().feed(get("/twice"))
    assert drive.output.endswith(b"\r\n\r\n1")
    assert drive.transport.aborted


async def test_coroutine_answers_and_pipelined_requests_wait_in_order() -> None:
    drive = Drive().feed(get("/async") + get("/a") + get("/missing"))
    await turns()
    assert drive.output == b""
    drive.handler.gate.set()
    await turns()
    assert drive.statuses == [200, 200, 404]


async def test_errors_of_coroutines() -> None:
    drive = Drive().feed(get("/async-missing") + get("/async-bug") + get("/async-silent") + get("/a"))
    drive.handler.gate.set()
    await turns(20)
    assert drive.statuses == [404, 500, 500, 200]


async def test_client_that_half_closes_gets_its_answers() -> None:
    drive = Drive().feed(get("/async") + get("/a")).end_of_input()
    drive.handler.gate.set()
    await turns()
    drive.transport.settle()
    assert drive.statuses[0] == 200
    assert drive.transport.closed


def test_client_that_closes_when_idle_is_forgotten() -> None:
    drive = Drive().feed(get("/a")).end_of_input()
    assert drive.transport.closed
    assert drive.server.connections_now == 0


async def test_answer_after_the_client_has_gone_is_dropped() -> None:
    drive = Drive().feed(get("/async"))
    await turns()
    drive.transport.abort()
    drive.transport.settle()
    drive.handler.gate.set()
    await turns()
    assert drive.output == b""
    assert drive.server.refusals["handler"] == 0


async def test_many_pipelined_requests_take_turns_with_others() -> None:
    drive = Drive(RecordingHandler(use_fast=False), HttpLimits(max_requests_per_turn=10))
    drive.feed(get("/a") * 35)
    assert len(drive.statuses) == 10
    await turns(3)
    assert len(drive.statuses) >= 20
    await turns(5)
    assert len(drive.statuses) == 35
    drive.feed(get("/a"))
    assert len(drive.statuses) == 36


async def test_half_close_behind_many_pipelined_requests() -> None:
    drive = Drive(RecordingHandler(use_fast=False), HttpLimits(max_requests_per_turn=10))
    drive.feed(get("/a") * 35).end_of_input()
    await turns(10)
    drive.transport.settle()
    assert len(drive.statuses) == 35
    assert drive.transport.closed


# Back-pressure.


async def test_input_beyond_the_pipeline_bound_is_left_in_the_socket() -> None:
    limits = HttpLimits(max_pipeline_bytes=20_000)
    drive = Drive(limits=limits).feed(get("/async"))
    await turns()
    while drive.transport.reading:
        drive.feed(get("/a") * 10)
    assert len(drive.connection._buffer) < 20_000 + 1_000
    drive.handler.gate.set()
    await turns(500)
    assert drive.transport.reading
    assert len(drive.statuses) > 100


def test_client_that_does_not_read_gets_no_more_answers() -> None:
    drive = Drive(limits=HttpLimits(write_buffer_bytes=200_000))
    drive.transport.flowing = False
    drive.feed(get("/big") * 10)
    assert drive.transport.get_write_buffer_size() < 310_000
    assert len(drive.handler.seen) == 1
    drive.transport.drain()
    assert len(drive.handler.seen) == 2
    for _ in range(8):
        drive.transport.drain()
    drive.transport.flowing = True
    drive.transport.drain()
    assert drive.statuses == [200] * 10


def test_paused_body_stays_in_a_bounded_buffer_and_goes_on() -> None:
    handler = RecordingHandler(on_sink=lambda sink: setattr(sink, "pause_after_each", True))
    drive = Drive(handler)
    data = put("/a", b"x" * 1000)
    drive.feed(data[:100], data[100:500], data[500:])
    (sink,) = handler.sinks
    assert not drive.transport.reading
    received = len(sink.received)
    assert received < 500
    while not sink.ended:
        drive.connection.resume_body()
        assert len(sink.received) > received or sink.ended
        received = len(sink.received)
    assert drive.statuses == [201]
    assert drive.transport.reading
    assert drive.feed(get("/a")).statuses == [201, 200]


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 3\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"]
)
def test_end_of_a_paused_body_waits_too(framing: bytes) -> None:
    handler = RecordingHandler(on_sink=lambda sink: setattr(sink, "pause_after_each", True))
    drive = Drive(handler).feed(b"PUT /a HTTP/1.1\r\nHost: x\r\n" + framing + get("/a"))
    (sink,) = handler.sinks
    assert sink.received == b"abc"
    assert not sink.ended
    drive.connection.resume_body()
    drive.connection.resume_body()
    assert sink.ended
    assert drive.statuses == [201, 200]


# Uploads.


@pytest.mark.parametrize("pieces", ["whole", "bytes"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_upload_is_streamed(framing: str, pieces: str) -> None:
    body = bytes(range(256)) * 8
    if framing == "length":
        data = put("/a", body)
    else:
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(body[i : i + 100]), body[i : i + 100]) for i in range(0, 2048, 100))
        data = get("/a", "PUT", b"Transfer-Encoding: chunked\r\n") + chunks + b"0\r\n\r\n"
    drive = Drive().feed(*([data] if pieces == "whole" else one_by_one(data)))
    assert drive.handler.seen[0].body == body
    assert drive.statuses == [201]
    assert drive.transport.reading


def test_large_pieces_are_not_copied() -> None:
    taken: list[bytes] = []
    drive = Drive(RecordingHandler(on_sink=lambda sink: setattr(sink, "data", taken.append)))
    drive.feed(get("/a", "PUT", b"Content-Length: 1000\r\n"))
    piece = b"x" * 500
    drive.feed(piece)
    assert taken[0] is piece


async def test_upload_answered_by_a_coroutine() -> None:
    drive = Drive().feed(put("/async", b"abc") + get("/a"))
    await turns()
    assert drive.output == b""
    drive.handler.gate.set()
    await turns()
    assert [body for _, _, body in parse_responses(drive.output)] == [b"later 3", b"hello"]


def test_continue_is_sent_when_the_body_is_wanted() -> None:
    drive = Drive().feed(get("/a", "PUT", b"Expect: 100-Continue\r\nContent-Length: 3\r\n"))
    assert drive.output == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert drive.feed(b"abc").statuses == [100, 201]


def test_continue_is_not_sent_when_refused_or_no_longer_needed() -> None:
    head = b"Expect: 100-continue\r\nContent-Length: 3\r\n"
    assert Drive().feed(get("/refused", "PUT", head)).statuses == [404]
    assert Drive().feed(get("/a", "PUT", head) + b"abc").statuses == [201]
    assert Drive().feed(get("/a", "PUT", b"Expect: 100-continue\r\nContent-Length: 0\r\n")).statuses == [201]
    assert Drive().feed(b"PUT /a HTTP/1.0\r\n" + head + b"\r\n").output == b""


def test_continue_waits_for_a_paused_sink() -> None:
    drive = Drive(RecordingHandler(on_sink=lambda sink: sink.connection.pause_body()))
    drive.feed(get("/a", "PUT", b"Expect: 100-continue\r\nContent-Length: 3\r\n"))
    assert drive.output == b""
    drive.connection.resume_body()
    assert drive.statuses == [100]
    assert drive.feed(b"abc").statuses == [100, 201]


def test_upload_that_the_client_aborts_leaves_nothing_behind() -> None:
    for ending in ("eof", "reset"):
        drive = Drive().feed(put("/a", b"abc" * 100)[:-50])
        if ending == "eof":
            drive.end_of_input()
        else:
            drive.transport.abort()
            drive.transport.settle()
        (sink,) = drive.handler.sinks
        assert sink.aborted == 1
        assert not sink.ended
        assert drive.transport.closed
        assert drive.server.refusals["aborted"] == 1
        assert drive.server.connections_now == 0


@pytest.mark.parametrize("setting", ["fail_at", "answer_at"])
def test_sink_that_gives_up_in_the_middle(setting: str) -> None:
    drive = Drive(RecordingHandler(on_sink=lambda sink: setattr(sink, setting, 100)))
    data = put("/a", b"x" * 1000)
    drive.feed(*[data[i : i + 50] for i in range(0, len(data), 50)])
    ((status, headers, _),) = parse_responses(drive.output)
    assert status == 507
    assert headers["connection"] == "close"
    (sink,) = drive.handler.sinks
    assert sink.aborted == 1
    assert drive.transport.eof_written
    drive.feed(get("/a"))
    assert drive.statuses == [507]


def test_sink_that_fails_on_the_last_piece_keeps_the_connection() -> None:
    drive = Drive(RecordingHandler(on_sink=lambda sink: setattr(sink, "fail_at", 100)))
    drive.feed(put("/a", b"x" * 100) + get("/a"))
    assert drive.statuses == [507, 200]
    assert drive.handler.sinks[0].aborted == 1


async def test_sink_may_answer_from_outside() -> None:
    drive = Drive().feed(put("/a", b"x" * 100)[:-50])
    drive.connection.respond_error(507, "the disk is full")
    assert drive.statuses == [507]
    assert drive.handler.sinks[0].aborted == 1
    assert drive.transport.eof_written


def test_sink_whose_abort_fails_does_not_hurt_the_server(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    drive = Drive(RecordingHandler(on_sink=lambda sink: setattr(sink, "abort", fail)))
    drive.feed(put("/a", b"x" * 100)[:-50]).end_of_input()
    assert "ZeroDivisionError" in caplog.text
    assert drive.server.connections_now == 0


def test_refused_upload_is_discarded_until_the_client_has_read_the_answer() -> None:
    drive = Drive().feed(put("/refused", b"x" * 1000)[:100])
    assert drive.statuses == [404]
    assert drive.transport.eof_written
    assert not drive.transport.closed
    drive.feed(b"x" * 500)
    assert not drive.transport.closed
    drive.end_of_input()
    assert drive.transport.closed


def test_discarding_ends() -> None:
    limits = HttpLimits(max_linger_bytes=10_000)
    drive = Drive(limits=limits).feed(put("/refused", b"x" * 100_000)[:100])
    drive.feed(b"x" * 10_001)
    assert drive.transport.aborted
    quiet = Drive(limits=limits).feed(put("/refused", b"x" * 100_000)[:100]).after(4.9)
    assert not quiet.transport.closed
    assert quiet.after(0.2).transport.aborted
    slow = Drive(limits=limits).feed(put("/refused", b"x" * 100_000)[:100])
    for _ in range(6):
        slow.after(4.9)
        slow.feed(b"x")
    assert not slow.transport.closed
    assert slow.after(1).transport.aborted


# Streams.


class StreamHandler(RecordingHandler):
    pieces: tuple[bytes, ...] = (b"a" * 100_000,) * 5
    announced = 500_000
    error: BaseException | None = None
    made = 0

    def answer(self, connection: HttpConnection, request: Request) -> Coroutine[Any, Any, None] | None:
        if request.path != "/stream":
            return super().answer(connection, request)
        return self.stream(connection)

    async def stream(self, connection: HttpConnection) -> None:
        try:
            await connection.respond_stream(200, b"", self.announced, self.make())
        except BaseException as error:
            self.error = error
            raise

    async def make(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            self.made += 1
            yield piece


async def test_stream_waits_for_a_slow_client() -> None:
    handler = StreamHandler()
    drive = Drive(handler, HttpLimits(write_buffer_bytes=150_000))
    drive.transport.flowing = False
    drive.feed(get("/stream") + get("/a"))
    await turns()
    assert handler.made == 2
    for made in (4, 5):
        drive.transport.drain()
        await turns()
        assert handler.made == made
    drive.transport.drain()
    await turns()
    drive.transport.drain()
    assert drive.statuses == [200, 200]


async def test_stream_that_is_short_or_fails_is_cut_off() -> None:
    short = StreamHandler()
    short.announced = 500_001
    drive = Drive(short).feed(get("/stream"))
    await turns(20)
    assert drive.transport.aborted
    assert drive.server.refusals["broken_stream"] == 1
    long = StreamHandler()
    long.announced = 499_999
    drive = Drive(long).feed(get("/stream"))
    await turns(20)
    assert drive.transport.aborted
    assert isinstance(long.error, ValueError)


async def test_stream_to_a_client_that_goes_away() -> None:
    handler = StreamHandler()
    drive = Drive(handler)
    drive.transport.flowing = False
    drive.feed(get("/stream"))
    await turns()
    drive.transport.abort()
    drive.transport.settle()
    await turns()
    assert isinstance(handler.error, ClientGone)
    assert drive.server.refusals["handler"] == 0


async def test_stream_to_head_makes_no_body() -> None:
    handler = StreamHandler()
    drive = Drive(handler).feed(get("/stream", "HEAD") + get("/a"))
    await turns()
    assert handler.made == 0
    assert [status for status, _, _ in parse_responses(drive.output, ["HEAD", "GET"])] == [200, 200]


# Slow clients.


def test_idle_connection_is_closed_without_a_word() -> None:
    drive = Drive().feed(get("/a")).after(74.9)
    drive.take_output()
    assert not drive.transport.closed
    drive.after(0.2)
    assert drive.transport.closed
    assert drive.output == b""
    assert drive.server.refusals["idle"] == 1


def test_each_request_starts_the_idle_time_anew() -> None:
    drive = Drive().feed(get("/a"))
    for _ in range(5):
        drive.after(70).feed(get("/a"))
    assert len(drive.statuses) == 6


def test_slow_header_is_408() -> None:
    drive = Drive()
    for byte in one_by_one(get("/a")[:9]):
        drive.feed(byte).after(1)
    assert drive.output == b""
    drive.feed(b"H").after(1)
    assert drive.statuses == [408]
    assert drive.transport.ended
    assert drive.server.refusals["timeout"] == 1


def test_slow_body_is_408() -> None:
    drive = Drive().feed(put("/a", b"x" * 10_000)[:500]).after(29).feed(b"x" * 2000).after(29)
    assert drive.output == b""
    drive.after(2)
    assert drive.statuses == [408]
    assert drive.handler.sinks[0].aborted == 1
    assert drive.transport.ended


def test_dripping_body_is_408() -> None:
    drive = Drive().feed(put("/a", b"x" * 10_000)[:100])
    for _ in range(30):
        drive.feed(b"x").after(1)
    assert drive.statuses == [408]


def test_body_that_the_sink_paused_is_not_the_clients_fault() -> None:
    drive = Drive(RecordingHandler(on_sink=lambda sink: setattr(sink, "pause_after_each", True)))
    drive.feed(put("/a", b"x" * 10_000)[:500]).after(1000)
    assert drive.output == b""
    drive.connection.resume_body()
    assert drive.after(29).output == b""


async def test_slow_handler_is_not_the_clients_fault() -> None:
    drive = Drive().feed(get("/async")).after(1000)
    drive.handler.gate.set()
    await turns()
    assert drive.statuses == [200]
    assert not drive.transport.closed


def test_client_that_does_not_read_is_reset() -> None:
    drive = Drive()
    drive.transport.flowing = False
    drive.feed(get("/big")).after(1).after(29)
    drive.transport.drain(5_000)
    drive.after(1).after(28)
    assert not drive.transport.closed
    drive.transport.drain(10)
    drive.after(2)
    assert drive.transport.aborted
    assert drive.server.refusals["stalled"] == 1


# Limits of the server.


def test_one_connection_too_many_is_told_so() -> None:
    drive = Drive(limits=HttpLimits(max_connections=1, max_lingering_refusals=2))
    refused = [drive.connect()[1] for _ in range(3)]
    for transport in refused[:2]:
        ((status, headers, body),) = parse_responses(bytes(transport.output))
        assert status == 503
        assert headers["connection"] == "close"
        assert "connections" in json.loads(body)["error"]
        assert transport.eof_written
    assert refused[2].aborted
    assert drive.server.connections_now == 3
    drive.after(6)
    assert drive.server.connections_now == 1
    assert drive.feed(get("/a")).statuses == [200]
    drive.end_of_input()
    _, transport = drive.connect()
    assert not transport.output


def test_connection_that_comes_while_stopping_is_closed() -> None:
    drive = Drive()
    drive.server.stopping = True
    _, transport = drive.connect()
    assert transport.closed
    assert not transport.output


def test_wrong_limits_are_refused() -> None:
    with pytest.raises(ValueError, match="max_header_bytes"):
        HttpLimits(max_target_bytes=16_000)
    with pytest.raises(ValueError, match="max_pipeline_bytes"):
        HttpLimits(max_pipeline_bytes=1_000)


def test_header_block_cannot_be_forged() -> None:
    assert header_block([("A", "b"), ("C", "")]) == b"A: b\r\nC: \r\n"
    for name, value in (("A", "b\r\nC: d"), ("A\r\n", "b"), ("A", "\x00"), ("A b", "c"), ("A", "ж"), ("", "a")):
        with pytest.raises(ValueError, match="cannot be sent"):
            header_block([(name, value)])


def test_query_values() -> None:
    values: list[str | None] = []

    class Handler(RecordingHandler):
        def answer(self, connection: HttpConnection, request: Request) -> None:
            values.extend(request.query_value(name) for name in ("a", "b", "none"))
            connection.respond(200)

    drive = Drive(Handler()).feed(get("/a?a=%C3%A4&b=&a=2"), get("/a?a=%ff"), get("/a?" + "&".join(["a"] * 65)))
    assert values == ["ä", "", None]
    assert drive.statuses == [200, 400, 400]
