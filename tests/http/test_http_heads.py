"""What is a request and what is not: tables, each case fed whole, byte by byte, pipelined and with trailing data."""

from __future__ import annotations

import json

import pytest
from http_harness import Drive, RecordingHandler, one_by_one, parse_responses

from haystack.http.limits import HttpLimits

LIMITS = HttpLimits(max_target_bytes=1000, max_cached_block_bytes=1000, max_header_bytes=4000)
HOST = b"Host: photos.example:8080\r\n"
GET = b"GET /a HTTP/1.1\r\n" + HOST
POST = b"POST /a HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\n" + HOST + b"\r\n"

REFUSED: dict[str, tuple[bytes, int]] = {
    # The request line.
    "no method": (b" /a HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "two spaces": (b"GET  /a HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "two spaces before version": (b"GET /a  HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "tab": (b"GET\t/a HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "space after version": (b"GET /a HTTP/1.1 \r\n" + HOST + b"\r\n", 400),
    "no version": (b"GET /a\r\n" + HOST + b"\r\n", 400),
    "lower-case version": (b"GET /a http/1.1\r\n" + HOST + b"\r\n", 400),
    "space in target": (b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "version 0.9": (b"GET /a HTTP/0.9\r\n" + HOST + b"\r\n", 505),
    "version 1.2": (b"GET /a HTTP/1.2\r\n" + HOST + b"\r\n", 505),
    "version 2.0": (b"GET /a HTTP/2.0\r\n" + HOST + b"\r\n", 505),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "RTSP": (b"GET /a RTSP/1.0\r\n" + HOST + b"\r\n", 400),
    "ICE": (b"SOURCE /a ICE/1.0\r\n" + HOST + b"\r\n", 400),
    "lower-case method": (b"get /a HTTP/1.1\r\n" + HOST + b"\r\n", 501),
    "unknown method": (b"FETCH /a HTTP/1.1\r\n" + HOST + b"\r\n", 501),
    "CONNECT": (b"CONNECT x:80 HTTP/1.1\r\n" + HOST + b"\r\n", 501),
    "TRACE": (b"TRACE /a HTTP/1.1\r\n" + HOST + b"\r\n", 501),
    "method with a colon": (b"GE:T /a HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "relative target": (b"GET a HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "authority target": (b"GET example.com:80 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "asterisk target": (b"GET * HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "other scheme": (b"GET ftp://x/a HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "absolute target without host": (b"GET http:///a HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "absolute target with user": (b"GET http://u@x/a HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "fragment": (b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "NUL in target": (b"GET /a\x00 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "raw UTF-8 in target": (b"GET /\xc3\xa4 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "bad percent": (b"GET /%zz HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "cut percent": (b"GET /%4 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "percent NUL": (b"GET /%00 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "percent line feed": (b"GET /%0a HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "percent not UTF-8": (b"GET /%ff HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "long target": (b"GET /" + b"a" * 1000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
    "very long target": (b"GET /" + b"a" * 9000, 414),
    # Line ends.
    "bare LF": (b"GET /a HTTP/1.1\nHost: x\n\n", 400),
    "bare LF in headers": (GET + b"A: b\n\r\n", 400),
    "bare LF at the end": (GET + b"\n", 400),
    "bare CR in value": (GET + b"A: b\rc\r\n\r\n", 400),
    "bare CR in line": (b"GET /a\r HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "CR CR LF": (GET + b"A: b\r\r\n\r\n", 400),
    "CR first": (b"\rGET /a HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "LF first": (b"\nGET /a HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "only empty lines": (b"\r\n" * 5, 400),
    # Header lines.
    "folded": (GET + b"A: b\r\n c\r\n\r\n", 400),
    "folded with tab": (GET + b"A: b\r\n\tc\r\n\r\n", 400),
    "space before first header": (b"GET /a HTTP/1.1\r\n " + HOST + b"\r\n", 400),
    "space before colon": (b"GET /a HTTP/1.1\r\nHost : x\r\n\r\n", 400),
    "tab before colon": (GET + b"A\t: b\r\n\r\n", 400),
    "no colon": (GET + b"A b\r\n\r\n", 400),
    "no name": (GET + b": b\r\n\r\n", 400),
    "NUL in value": (GET + b"A: b\x00c\r\n\r\n", 400),
    "control in value": (GET + b"A: b\x01c\r\n\r\n", 400),
    "DEL in value": (GET + b"A: b\x7fc\r\n\r\n", 400),
    "control in name": (GET + b"A\x01: b\r\n\r\n", 400),
    "UTF-8 in name": (GET + b"\xc3\xa4: b\r\n\r\n", 400),
    "brackets in name": (GET + b"a[0]: b\r\n\r\n", 400),
    "many headers": (GET + b"A: b\r\n" * 101 + b"\r\n", 431),
    "long headers": (GET + b"A: " + b"b" * 4000 + b"\r\n\r\n", 431),
    "endless header": (GET + b"A: " + b"b" * 9000, 431),
    # Host.
    "no Host": (b"GET /a HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (GET + b"Host: y\r\n\r\n", 400),
    "two Hosts alike": (GET + HOST + b"\r\n", 400),
    "Host with path": (b"GET /a HTTP/1.1\r\nHost: x/y\r\n\r\n", 400),
    "Host with user": (b"GET /a HTTP/1.1\r\nHost: u@x\r\n\r\n", 400),
    "Host with space": (b"GET /a HTTP/1.1\r\nHost: x y\r\n\r\n", 400),
    "Host with bad port": (b"GET /a HTTP/1.1\r\nHost: x:y\r\n\r\n", 400),
    # Framing.
    "two lengths": (POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
    "two different lengths": (POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400),
    "list of lengths": (POST + b"Content-Length: 3, 3\r\n\r\nabc", 400),
    "plus length": (POST + b"Content-Length: +3\r\n\r\nabc", 400),
    "minus length": (POST + b"Content-Length: -3\r\n\r\nabc", 400),
    "hex length": (POST + b"Content-Length: 0x3\r\n\r\nabc", 400),
    "length with junk": (POST + b"Content-Length: 3a\r\n\r\nabc", 400),
    "length with space inside": (POST + b"Content-Length: 3 3\r\n\r\nabc", 400),
    "empty length": (POST + b"Content-Length:\r\n\r\nabc", 400),
    "huge length": (POST + b"Content-Length: 99999999999999999999\r\n\r\nabc", 400),
    "length in the quadrillions": (POST + b"Content-Length: 1234567890123456789\r\n\r\nabc", 400),
    "length and chunked": (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked and length": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400),
    "gzip": (POST + b"Transfer-Encoding: gzip\r\n\r\n", 400),
    "chunked not last": (POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n", 400),
    "chunked twice": (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked in two lines": (
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "gzip in a line before": (POST + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
    "gzip before chunked": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "identity": (POST + b"Transfer-Encoding: identity\r\n\r\n", 400),
    "xchunked": (POST + b"Transfer-Encoding: xchunked\r\n\r\n", 400),
    "quoted chunked": (POST + b'Transfer-Encoding: "chunked"\r\n\r\n', 400),
    "chunked with parameter": (POST + b"Transfer-Encoding: chunked;a=b\r\n\r\n", 400),
    "vertical tab chunked": (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n", 400),
    "empty coding": (POST + b"Transfer-Encoding:\r\n\r\n", 400),
    "chunked in 1.0": (b"POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "GET with a bad length": (GET + b"Content-Length: x\r\n\r\n", 400),
    "unknown expectation": (POST + b"Expect: tea\r\nContent-Length: 3\r\n\r\nabc", 417),
    # Chunks.
    "no size": (CHUNKED + b"\r\nabc\r\n0\r\n\r\n", 400),
    "size not hex": (CHUNKED + b"g\r\nabc\r\n0\r\n\r\n", 400),
    "size with 0x": (CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n", 400),
    "signed size": (CHUNKED + b"+3\r\nabc\r\n0\r\n\r\n", 400),
    "negative size": (CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n", 400),
    "underscore in size": (CHUNKED + b"0_3\r\nabc\r\n0\r\n\r\n", 400),
    "space before size": (CHUNKED + b" 3\r\nabc\r\n0\r\n\r\n", 400),
    "space after size": (CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n", 400),
    "size overflow": (CHUNKED + b"fffffffffffffffff\r\nabc", 400),
    "bare LF after size": (CHUNKED + b"3\nabc\r\n0\r\n\r\n", 400),
    "bare CR after size": (CHUNKED + b"3\rabc\r\n0\r\n\r\n", 400),
    "bare LF in extension": (CHUNKED + b"3;a\nb\r\nabc\r\n0\r\n\r\n", 400),
    "control in extension": (CHUNKED + b"3;a=\x01\r\nabc\r\n0\r\n\r\n", 400),
    "long extension": (CHUNKED + b"3;" + b"a" * 300 + b"\r\nabc\r\n0\r\n\r\n", 400),
    "many extensions": (CHUNKED + (b"1;" + b"a" * 250 + b"\r\nx\r\n") * 70 + b"0\r\n\r\n", 400),
    "chunk longer than its size": (CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n", 400),
    "chunk without CRLF": (CHUNKED + b"3\r\nabc0\r\n\r\n", 400),
    "chunk with bare LF": (CHUNKED + b"3\r\nabc\n0\r\n\r\n", 400),
    "trailer not a field": (CHUNKED + b"3\r\nabc\r\n0\r\nnothing\r\n\r\n", 400),
    "trailer with space before colon": (CHUNKED + b"0\r\nA : b\r\n\r\n", 400),
    "trailer with bare LF": (CHUNKED + b"0\r\nA: b\n\r\n", 400),
    "folded trailer": (CHUNKED + b"0\r\nA: b\r\n c\r\n\r\n", 400),
    "long trailer": (CHUNKED + b"0\r\nA: " + b"b" * 5000 + b"\r\n\r\n", 431),
    "many trailers": (CHUNKED + b"0\r\n" + b"A: b\r\n" * 2000 + b"\r\n", 431),
    # Bodies over the limit (the handler's is 1,000,000 bytes).
    "declared too large": (POST + b"Content-Length: 1000001\r\n\r\nabc", 413),
    "declared too large, asking first": (POST + b"Expect: 100-continue\r\nContent-Length: 1000001\r\n\r\n", 413),
    "refused before the body": (b"PUT /refused HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nabc", 404),
    "GET with a body": (b"GET /missing HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nabc", 404),
}

ACCEPTED: dict[str, tuple[bytes, list[int]]] = {
    "plain": (GET + b"\r\n", [200]),
    "empty lines before": (b"\r\n\r\n" + GET + b"\r\n", [200]),
    "empty Host": (b"GET /a HTTP/1.1\r\nHost:\r\n\r\n", [200]),
    "IPv6 Host": (b"GET /a HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", [200]),
    "absolute target": (b"GET http://x:80/a?b HTTP/1.1\r\n" + HOST + b"\r\n", [200]),
    "absolute target, no path": (b"GET HTTPS://x HTTP/1.1\r\n" + HOST + b"\r\n", [200]),
    "asterisk": (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", [200]),
    "percent": (b"GET /3%2c1f/na%C3%AFve HTTP/1.1\r\n" + HOST + b"\r\n", [200]),
    "query": (b"GET /a?b=%20&c HTTP/1.1\r\n" + HOST + b"\r\n", [200]),
    "blanks around a value": (GET + b"A: \t b \t\r\n\r\n", [200]),
    "empty value": (GET + b"A:\r\n\r\n", [200]),
    "latin-1 value": (GET + b"A: \xe4\r\n\r\n", [200]),
    "offer of h2c": (GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n", [200]),
    "offer of a websocket": (GET + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n", [200]),
    "upload with an offer of h2c": (
        POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc",
        [201],
    ),
    "upload": (POST + b"Content-Length: 3\r\n\r\nabc", [201]),
    "upload that looks like a request": (POST + b"Content-Length: %d\r\n\r\n" % len(NEXT) + NEXT, [201]),
    "leading zeros in the length": (POST + b"Content-Length: 003\r\n\r\nabc", [201]),
    "empty upload": (POST + b"Content-Length: 0\r\n\r\n", [201]),
    "upload without a length": (POST + b"\r\n", [201]),
    "chunked": (CHUNKED + b"3\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n", [201]),
    "chunked, capitals": (POST + b"TRANSFER-ENCODING: Chunked\r\n\r\n00A\r\n0123456789\r\n000\r\n\r\n", [201]),
    "chunked, empty": (CHUNKED + b"0\r\n\r\n", [201]),
    "chunked, extension": (CHUNKED + b'3;a=b;c="d"\r\nabc\r\n0;e\r\n\r\n', [201]),
    "chunked, trailers": (CHUNKED + b"3\r\nabc\r\n0\r\nA: b\r\nContent-Length: 9\r\n\r\n", [201]),
    "missing": (b"GET /missing HTTP/1.1\r\n" + HOST + b"\r\n", [404]),
    "three": ((GET + b"\r\n") * 3, [200, 200, 200]),
    "mixed": (
        CHUNKED + b"3\r\nabc\r\n0\r\n\r\n" + GET + b"\r\n" + POST + b"Content-Length: 3\r\n\r\nabc",
        [201, 200, 201],
    ),
    "no content": (b"GET /nothing HTTP/1.1\r\n" + HOST + b"\r\n", [204]),
    "not modified": (b"GET /same HTTP/1.1\r\n" + HOST + b"\r\n", [304]),
    "keep-alive in 1.0": (b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", [200]),
}

CLOSING: dict[str, bytes] = {
    "close": GET + b"Connection: close\r\n\r\n",
    "close among others": GET + b"Connection: foo, Close\r\n\r\n",
    "1.0": b"GET /a HTTP/1.0\r\n\r\n",
    "1.0 with Host": b"GET /a HTTP/1.0\r\n" + HOST + b"\r\n",
    "upload": POST + b"Connection: close\r\nContent-Length: 3\r\n\r\nabc",
}


def cut(data: bytes, way: str) -> list[bytes]:
    if way == "whole":
        return [data]
    if way == "bytes":
        return one_by_one(data)
    return [data[: len(data) // 2], data[len(data) // 2 :]]


WAYS = ["whole", "bytes", "halves"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", REFUSED)
def test_malformed_request_is_refused_and_the_connection_closed(case: str, way: str) -> None:
    data, status = REFUSED[case]
    drive = Drive(limits=LIMITS).feed(*cut(data, way))
    ((got, headers, body),) = parse_responses(drive.output)
    assert got == status
    assert headers["connection"] == "close"
    assert headers["content-type"] == "application/json"
    assert json.loads(body)["error"]
    assert drive.transport.ended
    assert all(sink.aborted == 1 for sink in drive.handler.sinks)
    assert [seen.path for seen in drive.handler.seen] == (["/missing"] if case == "GET with a body" else [])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", REFUSED)
def test_nothing_behind_a_malformed_request_is_read(case: str, way: str) -> None:
    data, _ = REFUSED[case]
    alone = Drive(limits=LIMITS).feed(data).output
    drive = Drive(limits=LIMITS).feed(*cut(data + NEXT * 3, way))
    assert drive.output == alone
    assert "/next" not in [seen.path for seen in drive.handler.seen]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", REFUSED)
def test_good_requests_before_a_malformed_one_are_answered(case: str, way: str) -> None:
    data, _ = REFUSED[case]
    good = Drive(limits=LIMITS).feed(NEXT, NEXT).output
    alone = Drive(limits=LIMITS).feed(data).output
    drive = Drive(limits=LIMITS).feed(*cut(NEXT + NEXT + data, way))
    assert drive.output == good + alone


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", ACCEPTED)
def test_good_request_is_answered_and_the_connection_stays(case: str, way: str) -> None:
    data, statuses = ACCEPTED[case]
    drive = Drive(limits=LIMITS).feed(*cut(data, way))
    assert drive.statuses == statuses
    assert not drive.transport.ended
    alone, seen = drive.output, list(drive.handler.seen)
    assert drive.feed(NEXT).statuses[-1] == 200
    pipelined = Drive(limits=LIMITS).feed(*cut(NEXT + data + NEXT, way))
    next_answer = Drive(limits=LIMITS).feed(NEXT).output
    assert pipelined.output == next_answer + alone + next_answer
    assert pipelined.handler.seen[1:-1] == seen


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CLOSING)
def test_connection_is_closed_when_the_client_asks_for_it(case: str, way: str) -> None:
    drive = Drive().feed(*cut(CLOSING[case], way))
    ((status, headers, _),) = parse_responses(drive.output)
    assert status in (200, 201)
    assert headers["connection"] == "close"
    assert drive.transport.ended
    trailing = Drive().feed(*cut(CLOSING[case] + NEXT, way))
    assert trailing.output == drive.output
    assert len(trailing.handler.seen) == 1


@pytest.mark.parametrize("way", WAYS)
def test_chunked_body_over_the_limit_is_refused(way: str) -> None:
    drive = Drive(RecordingHandler(max_body_bytes=10))
    drive.feed(*cut(CHUNKED + b"6\r\nabcdef\r\n6\r\nabcdef\r\n0\r\n\r\n" + NEXT, way))
    assert drive.statuses == [413]
    assert drive.transport.ended
    (sink,) = drive.handler.sinks
    assert sink.aborted == 1
    assert len(sink.received) <= 10


def test_bodies_arrive_as_sent() -> None:
    for case, (data, _) in ACCEPTED.items():
        for way in WAYS:
            drive = Drive().feed(*cut(data, way))
            if case == "chunked":
                assert drive.handler.seen[0].body == b"abc0123456789abcdef"
            if case == "upload that looks like a request":
                assert drive.handler.seen[0].body == NEXT


def test_parts_of_the_target() -> None:
    drive = Drive()
    for target in (b"/3%2C1f/na%C3%AFve?x=%20y&z", b"http://h:80/a?b", b"http://h?b", b"http://h"):
        drive.feed(b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")
    assert [(seen.path, seen.query) for seen in drive.handler.seen] == [
        ("/3,1f/naïve", "x=%20y&z"),
        ("/a", "b"),
        ("/", "b"),
        ("/", ""),
    ]


def test_repeated_fields_are_joined_and_blanks_taken_off() -> None:
    drive = Drive().feed(GET + b"A: \t1 \r\nB: x\r\na: 2\r\n\r\n")
    assert dict(drive.handler.seen[0].headers)["a"] == "1, 2"
