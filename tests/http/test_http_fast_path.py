"""The fast way for plain GETs accepts nothing that the strict way would not, and means the same by it."""

from __future__ import annotations

import logging
from contextlib import suppress

import pytest
from http_harness import Drive, RecordingHandler, parse_responses
from hypothesis import example, given, settings
from hypothesis import strategies as st

from haystack.errors import ProtocolError
from haystack.http.connection import HttpConnection
from haystack.http.head import HeadParser
from haystack.http.limits import HttpLimits
from haystack.http.request import RequestHeaders

PLAIN = b"\r\nHost: x\r\nUser-Agent: test\r\n\r\n"
LINE = b"GET /a HTTP/1.1"


def warm(drive: Drive) -> Drive:
    drive.feed(LINE + PLAIN)
    drive.take_output()
    drive.handler.seen.clear()
    return drive


def test_second_request_is_answered_fast_and_alike() -> None:
    drive = Drive().feed(LINE + PLAIN)
    first = drive.take_output()
    assert drive.handler.fast_answers == 0
    assert drive.feed(LINE + PLAIN).output == first
    assert drive.handler.fast_answers == 1
    assert drive.handler.seen[0] == drive.handler.seen[1]
    assert drive.server.requests == 2


def test_head_is_answered_fast_without_a_body() -> None:
    drive = Drive().feed(b"HEAD /a HTTP/1.1" + PLAIN)
    first = drive.take_output()
    assert drive.feed(b"HEAD /a HTTP/1.1" + PLAIN).output == first
    assert drive.handler.fast_answers == 1


def test_block_serves_other_lines_and_connections() -> None:
    drive = Drive().feed(LINE + PLAIN, b"GET /b HTTP/1.1\r\nHost: other\r\n\r\n")
    assert drive.handler.fast_answers == 0
    drive.connection, drive.transport = drive.connect()
    drive.feed(b"GET /b HTTP/1.1" + PLAIN)
    assert drive.handler.fast_answers == 1


def test_block_of_the_last_request_is_no_licence_for_another() -> None:
    """A connection expects the block that it had last; what only ends alike, or begins alike, is looked at anew."""
    drive = warm(Drive()).feed(LINE + PLAIN)
    assert drive.handler.fast_answers == 1
    drive.take_output()
    drive.feed(LINE + b"\r\nX: y" + PLAIN, LINE + PLAIN, LINE + PLAIN[:-2] + b"A: b\r\n\r\n", LINE + PLAIN)
    assert drive.statuses == [200] * 4
    assert drive.handler.fast_answers == 3
    assert [("X", "y") in seen.headers or ("x", "y") in seen.headers for seen in drive.handler.seen[-4:]] == [
        True,
        False,
        False,
        False,
    ]
    drive.take_output()
    drive.feed(LINE + PLAIN + LINE + PLAIN)
    assert drive.statuses == [200, 200]
    assert drive.handler.fast_answers == 3


def test_an_upload_that_ends_like_the_last_request_is_an_upload() -> None:
    drive = warm(Drive()).feed(LINE + PLAIN)
    drive.take_output()
    body = b"...\r\n\r\n" + LINE + PLAIN
    drive.feed(b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body), LINE + PLAIN)
    assert drive.statuses == [201, 200]
    assert [seen.body for seen in drive.handler.seen[-2:]] == [body, b""]


def test_block_that_was_forgotten_serves_the_connection_that_has_it() -> None:
    drive = warm(Drive(limits=HttpLimits(max_cached_blocks=1))).feed(LINE + PLAIN)
    other, transport = drive.connect()
    other.data_received(LINE + b"\r\nHost: other\r\n\r\n")
    assert PLAIN not in drive.server.header_blocks
    drive.feed(LINE + PLAIN)
    assert drive.handler.fast_answers == 2
    assert transport.output.count(b"200 OK") == 1


NOT_CACHED = {
    "close": b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "1.0": b"GET /a HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n",
    "length": b"GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    "body": b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx",
    "chunked": b"PUT /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "expect": b"GET /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n",
    "upgrade": b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    "range": b"GET /a HTTP/1.1\r\nHost: x\r\nRange: bytes=0-1\r\n\r\n",
    "condition": b'GET /a HTTP/1.1\r\nHost: x\r\nIf-None-Match: "1"\r\n\r\n',
    "date condition": b"GET /a HTTP/1.1\r\nHost: x\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n",
    "absolute": b"GET http://x/a HTTP/1.1\r\nHost: x\r\n\r\n",
    "delete": b"DELETE /a HTTP/1.1\r\nHost: x\r\n\r\n",
    "long": b"GET /a HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 2048 + b"\r\n\r\n",
    "refused": b"GET /a HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("case", NOT_CACHED)
def test_what_is_not_plain_is_not_kept(case: str) -> None:
    drive = Drive().feed(NOT_CACHED[case])
    assert not drive.server.header_blocks


def test_cache_of_blocks_is_bounded() -> None:
    drive = Drive(limits=HttpLimits(max_cached_blocks=3))
    for number in range(10):
        drive.feed(b"GET /a HTTP/1.1\r\nHost: x%d\r\n\r\n" % number)
        assert len(drive.server.header_blocks) <= 3


def test_fast_way_is_closed_while_something_is_under_way() -> None:
    halves = warm(Drive())
    halves.feed(LINE[:5], LINE[5:] + PLAIN)
    assert halves.statuses == [200]
    assert halves.handler.fast_answers == 0
    blank = warm(Drive()).feed(b"\r\n", LINE + PLAIN)
    assert blank.statuses == [200]
    body = warm(Drive()).feed(b"PUT /b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(LINE + PLAIN))
    body.feed(LINE + PLAIN)
    assert body.statuses == [201]
    assert body.handler.fast_answers == 0
    assert body.handler.seen[-1].body == LINE + PLAIN


def test_fast_way_is_closed_while_the_client_does_not_read() -> None:
    drive = warm(Drive(limits=HttpLimits(write_buffer_bytes=200_000)))
    drive.transport.flowing = False
    drive.feed(b"GET /big HTTP/1.1" + PLAIN, LINE + PLAIN)
    assert drive.handler.fast_answers == 0
    drive.transport.drain()
    drive.feed(LINE + PLAIN)
    assert drive.handler.fast_answers == 1
    drive.transport.drain()
    assert [len(body) for _, _, body in parse_responses(drive.output)] == [300_000, 5, 5]


async def test_fast_way_is_closed_while_the_server_stops() -> None:
    drive = warm(Drive())
    drive.server.stopping = True
    drive.connection.stop()
    assert drive.transport.closed
    assert drive.output == b""


def test_handler_that_fails_on_the_fast_way(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(RecordingHandler):
        def fast_get(self, connection: HttpConnection, request_line: bytes, headers: RequestHeaders) -> bool:
            raise ZeroDivisionError

    with caplog.at_level(logging.ERROR):
        drive = warm(Drive(Broken())).feed(LINE + PLAIN)
    assert drive.transport.aborted
    assert "ZeroDivisionError" in caplog.text


LINES = st.sampled_from(
    [
        LINE,
        b"HEAD /a HTTP/1.1",
        b"GET /b?c=d HTTP/1.1",
        b"GET /a HTTP/1.0",
        b"GET  /a HTTP/1.1",
        b"GET /a HTTP/1.1 ",
        b"GET /a HTTP/2.0",
        b"GET http://x/a HTTP/1.1",
        b"PUT /a HTTP/1.1",
        b"POST /a HTTP/1.1",
        b"GET /a\nHost: y HTTP/1.1",
        b"GET /a HTTP/1.1\nHost: y",
        b"GET /a HTTP/1.1\rHost: y",
        b"GET /\x00 HTTP/1.1",
        b"",
        b"\r",
    ]
) | st.binary(max_size=20).filter(lambda line: b"\r\n" not in line)
BLOCKS = st.lists(
    st.sampled_from(
        [
            b"Host: x",
            b"Host: y",
            b"Connection: close",
            b"Connection: keep-alive",
            b"Content-Length: 5",
            b"Content-Length: 0",
            b"Transfer-Encoding: chunked",
            b"Expect: 100-continue",
            b"Range: bytes=0-0",
            b"A: b",
            b" folded",
            b"A : b",
            b"A: \x00",
            b"A: b\nB: c",
        ]
    ),
    max_size=4,
).map(lambda lines: b"".join(b"\r\n" + line for line in [b"Host: h", *lines]) + b"\r\n\r\n")


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(LINES, BLOCKS), min_size=1, max_size=8))
@example([(LINE, PLAIN), (b"GET /a HTTP/1.0", PLAIN), (LINE, PLAIN)])
def test_fast_and_strict_way_agree_on_every_composition(compositions: list[tuple[bytes, bytes]]) -> None:
    """Whatever lines and blocks went before, with and without the fast way the same comes out."""
    fast, strict = Drive(), Drive(RecordingHandler(use_fast=False))
    heads = [line + block for line, block in compositions]
    for drive in (fast, strict):
        for head in heads * 2:
            if drive.transport.ended:  # A client opens another connection; the caches live on.
                drive.end_of_input()
                drive.take_output()
                drive.connection, drive.transport = drive.connect()
            drive.feed(head)
    assert fast.output == strict.output
    assert fast.handler.seen == strict.handler.seen


def _with_length(block: bytes, count: int) -> bytes:
    return b"\r\nContent-Length: %d" % count + block


@settings(max_examples=300, deadline=None)
@given(LINES, BLOCKS)
def test_what_the_fast_way_would_take_the_strict_parser_takes(line: bytes, block: bytes) -> None:
    drive = warm(Drive())
    drive.feed(line + block)
    before = drive.handler.fast_answers
    if not drive.transport.ended:
        drive.take_output()
        drive.feed(line + block)
    if drive.handler.fast_answers == before:
        return
    try:
        request = HeadParser(HttpLimits()).parse(line + block)
    except ProtocolError as error:
        raise AssertionError(f"the fast way took what the strict parser refuses: {error}") from error
    assert request.line == line
    assert request.keep_alive
    assert not request.has_body
    seen = drive.handler.seen[-1]
    assert (seen.method, seen.path, seen.query) == (request.method, request.path, request.query)
    assert seen.headers == request.headers.items()


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["GET", "HEAD"]), st.from_regex(r"/[A-Za-z0-9._~,@/-]{0,60}", fullmatch=True), BLOCKS)
def test_lines_that_a_handler_may_judge_by_itself_are_never_refused(method: str, path: str, block: bytes) -> None:
    """The pattern that ``Handler.fast_get`` allows: such a line means what it says, whatever block it comes with."""
    line = f"{method} {path} HTTP/1.1".encode()
    drive = Drive().feed(LINE + block)
    if block not in drive.server.header_blocks:
        return
    request = HeadParser(HttpLimits()).parse(line + block)
    assert (request.method, request.path, request.query) == (method, path, "")
    assert request.cacheable_line == line
    assert request.headers.items() == drive.server.header_blocks[block].items()


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(["GET", "HEAD", "PUT", "POST", "DELETE"]),
    st.from_regex(r"/[A-Za-z0-9._,@~%-]{0,60}", fullmatch=True),
    BLOCKS | st.builds(_with_length, BLOCKS, st.integers(0, 9999)),
)
def test_a_known_block_changes_nothing_for_any_line(method: str, path: str, block: bytes) -> None:
    """A head put together from a line and a block that was parsed before is the head that the parser would give."""
    line = f"{method} {path} HTTP/1.1".encode()
    server = Drive().server
    with suppress(ProtocolError):
        server.parse_head(LINE + block)
    results: list[tuple[object, ...]] = []
    for parse in (server.parse_head, HeadParser(HttpLimits()).parse):
        try:
            request = parse(line + block)
        except ProtocolError as error:
            results.append((error.http_status, str(error)))
            continue
        fields = {name: getattr(request.headers, name) for name in RequestHeaders.__slots__ if name != "notes"}
        seen = (request.method, request.line, request.target, request.path, request.query, request.is_http_11)
        results.append((*seen, request.origin_form, request.keep_alive, request.has_body, fields))
    assert results[0] == results[1]


def test_a_known_block_is_not_parsed_again() -> None:
    server = Drive().server
    block = b"\r\nHost: a\r\nContent-Length: 4\r\n\r\n"
    first = server.parse_head(b"PUT /1,2 HTTP/1.1" + block)
    assert server.parse_head(b"POST /3,4 HTTP/1.1" + block).headers is first.headers
    longest = b"PUT /" + b"a" * server.limits.max_target_bytes + b" HTTP/1.1"
    with pytest.raises(ProtocolError) as refused:
        server.parse_head(longest + block)
    assert refused.value.http_status == 414
    chunked = b"\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert server.parse_head(b"PUT /1,2 HTTP/1.1" + chunked).headers is not (
        server.parse_head(b"PUT /1,2 HTTP/1.1" + chunked).headers
    )
