"""Properties of the protocol: how bytes are split changes nothing, and no bytes do harm."""

from __future__ import annotations

from http_harness import Drive, RecordingHandler, parse_responses, split_at
from httptools import HttpParserError, HttpRequestParser
from hypothesis import given, settings
from hypothesis import strategies as st
from test_http_heads import ACCEPTED, CLOSING, LIMITS, REFUSED

from haystack.errors import ProtocolError
from haystack.http.chunked import ChunkedDecoder
from haystack.http.limits import HttpLimits

CASES = [data for data, _ in REFUSED.values()] + [data for data, _ in ACCEPTED.values()] + list(CLOSING.values())
BITS = st.sampled_from(
    [
        b"GET ",
        b"PUT ",
        b"/a",
        b" HTTP/1.1",
        b" HTTP/1.0",
        b"\r\n",
        b"\r",
        b"\n",
        b"Host: x\r\n",
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Expect: 100-continue\r\n",
        b"Connection: close\r\n",
        b"Connection: upgrade\r\nUpgrade: h2c\r\n",
        b"abc",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b"\r\n\r\n",
        b" ",
        b":",
        b"\x00",
        b"\xff",
        b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PUT /a HTTP/1.1\r\nHost: x\r\n",
    ]
)
JUNK = st.lists(BITS | st.binary(max_size=6), max_size=30).map(b"".join)


def outcome(drive: Drive) -> tuple[bytes, bool, list[object]]:
    return drive.output.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b""), drive.transport.ended, list(drive.handler.seen)


def check_nothing_leaks(drive: Drive) -> None:
    drive.end_of_input()
    assert drive.transport.closed
    assert drive.server.connections_now == 0
    for sink in drive.handler.sinks:
        assert sink.aborted + sink.ended == 1


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(CASES), min_size=1, max_size=4).map(b"".join), st.lists(st.integers(0, 20_000)))
def test_splits_change_nothing(data: bytes, cuts: list[int]) -> None:
    whole = Drive(limits=LIMITS).feed(data)
    split = Drive(limits=LIMITS).feed(*split_at(data, cuts))
    assert outcome(split) == outcome(whole)
    check_nothing_leaks(split)


@settings(max_examples=500, deadline=None)
@given(JUNK, st.lists(st.integers(0, 500)))
def test_junk_is_refused_or_awaited(data: bytes, cuts: list[int]) -> None:
    whole = Drive().feed(data)
    split = Drive().feed(*split_at(data, cuts))
    assert outcome(split) == outcome(whole)
    assert whole.server.refusals["handler"] == 0
    for status, headers, _ in parse_responses(whole.output):
        assert status in (100, 200, 201, 400, 404, 413, 414, 417, 431, 501, 505)
        if status >= 400:
            assert headers["connection"] == "close"
    check_nothing_leaks(split)
    check_nothing_leaks(whole)


@settings(max_examples=300, deadline=None)
@given(JUNK)
def test_junk_is_timed_out(data: bytes) -> None:
    drive = Drive().feed(data)
    for _ in range(6):
        drive.after(30)
    assert drive.transport.closed
    assert drive.server.connections_now == 0


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=3000), st.lists(st.integers(1, 500), min_size=1), st.lists(st.integers(0, 9000)))
def test_chunked_bodies_round_trip_and_leave_what_follows(body: bytes, sizes: list[int], cuts: list[int]) -> None:
    encoded, position, index = b"", 0, 0
    while position < len(body):
        chunk = body[position : position + sizes[index % len(sizes)]]
        encoded += b"%x\r\n%b\r\n" % (len(chunk), chunk)
        position += len(chunk)
        index += 1
    encoded += b"0\r\n\r\n"
    decoder, buffer, decoded = ChunkedDecoder(HttpLimits()), bytearray(), b""
    for piece in split_at(encoded + b"NEXT", cuts):
        buffer += piece
        while (data := decoder.next_piece(buffer)) is not None:
            decoded += data
    assert decoder.finished
    assert decoded == body
    assert buffer == b"NEXT"


EXTENSIONS = st.sampled_from([b"3", b"a", b";x", b"=", b"y", b'"', b"\\", b"\t", b"\r\n", b"0;", b"A: b\r\n"])


@settings(max_examples=1000, deadline=None)
@given(st.lists(BITS | EXTENSIONS, max_size=12).map(b"".join))
def test_chunked_decoder_takes_nothing_that_llhttp_refuses(data: bytes) -> None:
    decoder, buffer, decoded = ChunkedDecoder(HttpLimits()), bytearray(data), b""
    try:
        while (piece := decoder.next_piece(buffer)) is not None:
            decoded += piece
    except ProtocolError:
        return
    taken = data[: len(data) - len(buffer)]

    class Judge:
        body = b""
        complete = False

        def on_body(self, piece: bytes) -> None:
            self.body += piece

        def on_message_complete(self) -> None:
            self.complete = True

    judge = Judge()
    parser = HttpRequestParser(judge)
    parser.feed_data(b"PUT /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    try:
        parser.feed_data(taken)
    except HttpParserError as error:
        # llhttp does not look at what a trailer is for; it applies the rules for framing headers to it.
        assert b"content-length" in data.lower() or b"transfer-encoding" in data.lower(), error
        return
    assert judge.body == decoded
    assert judge.complete == decoder.finished


def test_harness_counts_every_sink() -> None:
    handler = RecordingHandler()
    check_nothing_leaks(Drive(handler).feed(b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nab"))
    assert handler.sinks[0].aborted == 1
