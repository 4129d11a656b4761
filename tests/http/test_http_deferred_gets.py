"""GETs whose answer a handler promises on the fast way: the same as an answer at once, only later."""

from __future__ import annotations

from http_harness import HELLO, HELLO_HEAD, Drive, RecordingHandler, parse_responses

from haystack.errors import NeedleNotFound
from haystack.http.connection import HttpConnection
from haystack.http.request import Request, RequestHeaders

GET = b"GET /later HTTP/1.1\r\nHost: x\r\n\r\n"
BODY = b"photo" * 50_000


class Promising(RecordingHandler):
    """Promises answers for ``/later`` on the fast way."""

    def __init__(self) -> None:
        super().__init__()
        self.promised: list[tuple[HttpConnection, Request]] = []

    def fast_get(self, connection: HttpConnection, request_line: bytes, headers: RequestHeaders) -> bool:
        if request_line != b"GET /later HTTP/1.1":
            return super().fast_get(connection, request_line, headers)
        self.promised.append((connection, connection.defer_get(request_line, headers)))
        return True

    def keep(self, body: bytes = BODY) -> None:
        promised, self.promised = self.promised, []
        for connection, _ in promised:
            connection.finish_promised(HELLO_HEAD.replace(b": %d" % len(HELLO), b": %d" % len(body)), body)


def warm() -> tuple[Drive, Promising]:
    """A connection to a server that has seen the header block on the strict way."""
    handler = Promising()
    drive = Drive(handler).feed(GET.replace(b"later", b"hello"))
    drive.take_output()
    return drive, handler


def test_promised_answer_comes_later_and_the_connection_goes_on() -> None:
    drive, handler = warm()
    for count in (1, 2, 3):
        drive.feed(GET)
        assert drive.output == b"" and drive.server.deferred == 1
        assert handler.promised[0][1].path == "/later" and handler.promised[0][1].method == "GET"
        handler.keep()
        drive.transport.settle()
        ((status, headers, body),) = parse_responses(drive.take_output())
        assert (status, body) == (200, BODY) and "date" in headers and "connection" not in headers
        assert drive.server.deferred == 0 and drive.server.requests == 1 + count


def test_promised_answer_comes_before_what_was_asked_meanwhile() -> None:
    drive, handler = warm()
    drive.feed(GET, GET.replace(b"later", b"hello"))
    assert drive.output == b""
    handler.keep()
    drive.transport.settle()
    assert [body for _, _, body in parse_responses(drive.output)] == [BODY, HELLO]


def test_promised_answer_may_become_an_error() -> None:
    drive, handler = warm()
    drive.feed(GET)
    handler.promised.pop()[0].finish_deferred(NeedleNotFound("no such photo"))
    assert drive.statuses == [404]
    drive.take_output()
    drive.feed(GET)
    handler.keep()
    drive.transport.settle()
    assert drive.statuses == [200]


def test_promised_answer_of_a_client_that_has_gone_goes_nowhere() -> None:
    drive, handler = warm()
    drive.feed(GET)
    drive.transport.close()
    drive.transport.settle()
    handler.keep()
    assert drive.output == b"" and drive.server.deferred == 0


def test_promised_answer_of_a_client_that_has_half_closed_is_its_last() -> None:
    drive, handler = warm()
    drive.feed(GET).end_of_input()
    handler.keep()
    drive.transport.settle()
    ((status, headers, body),) = parse_responses(drive.output)
    assert (status, headers["connection"], body) == (200, "close", BODY)
    assert drive.transport.closed


def test_promised_answer_of_a_server_that_stops_is_the_last() -> None:
    drive, handler = warm()
    drive.feed(GET)
    drive.server.stopping = True
    drive.connection.stop()
    handler.keep()
    drive.transport.settle()
    ((status, headers, _),) = parse_responses(drive.output)
    assert (status, headers["connection"]) == (200, "close")
    assert drive.transport.closed
