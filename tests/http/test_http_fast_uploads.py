"""The fast way of uploads gives nothing that the strict way would not, and the same for everything it takes."""

from __future__ import annotations

import logging

import pytest
from http_harness import Drive, RecordingHandler, parse_responses, split_at
from hypothesis import example, given, settings
from hypothesis import strategies as st

from haystack.errors import OutOfSpace
from haystack.http.fast_uploads import UploadingConnection
from haystack.http.request import RequestHeaders

HEAD = b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
UPLOAD = HEAD + b"photo"


def warm() -> Drive:
    """A server that has seen the header block on the strict way."""
    drive = Drive().feed(HEAD, b"photo")
    assert drive.statuses == [201]
    assert drive.handler.fast_uploads == 0
    drive.take_output()
    return drive


def test_an_upload_in_one_piece_is_taken_and_answered_as_on_the_strict_way() -> None:
    drive = warm().feed(UPLOAD)
    strict = Drive(RecordingHandler(use_fast=False)).feed(UPLOAD)
    assert drive.handler.fast_uploads == 1
    assert drive.output == strict.output
    assert drive.handler.seen[-1] == strict.handler.seen[-1]
    assert drive.server.deferred == 0
    assert drive.server.requests == 2
    assert drive.feed(UPLOAD, UPLOAD).handler.fast_uploads == 3


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"phot",
        HEAD + b"photoPUT",
        b"\r\n" + UPLOAD,
        UPLOAD.replace(b"/a", b"/b"),
        UPLOAD.replace(b"1.1", b"1.0"),
        UPLOAD.replace(b"Host", b"Connection: close\r\nHost"),
        HEAD.replace(b"5", b"0"),
        UPLOAD.replace(b"Host", b"Expect: 100-continue\r\nHost"),
        UPLOAD.replace(b"PUT", b"PATCH"),
        UPLOAD.replace(b" /a", b"  /a"),
    ],
)
def test_what_is_not_exactly_one_plain_upload_goes_the_strict_way(data: bytes) -> None:
    fast, strict = warm(), Drive(RecordingHandler(use_fast=False))
    strict.feed(data, b"o")
    fast.feed(data, b"o")
    assert fast.handler.fast_uploads == 0
    assert fast.output == strict.output


def test_what_comes_behind_an_upload_waits_for_its_answer() -> None:
    drive = warm()
    drive.releasing = False
    drive.feed(UPLOAD, UPLOAD, b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
    assert drive.output == b""
    assert drive.server.deferred == 1
    drive.handler.release()
    assert [body for _, _, body in parse_responses(drive.output)] == [b"5", b"5", b"hello"]
    assert drive.server.deferred == 0
    assert drive.handler.fast_uploads == 1


def test_an_upload_that_fails_later_is_answered_with_the_error_and_the_connection_goes_on() -> None:
    drive = warm()
    drive.releasing = False
    drive.feed(UPLOAD)
    drive.handler.taken.pop()[0].finish_deferred(OutOfSpace("the disk is full"))
    assert drive.statuses == [507]
    drive.take_output()
    drive.releasing = True
    assert drive.feed(UPLOAD).statuses == [201]
    assert drive.handler.fast_uploads == 2


def test_a_client_that_has_gone_is_not_answered() -> None:
    drive = warm()
    drive.releasing = False
    drive.feed(UPLOAD)
    drive.transport.close()
    drive.transport.settle()
    drive.handler.release()
    assert drive.output == b""
    assert drive.server.deferred == 0


def test_a_client_that_has_half_closed_gets_its_answer_and_the_end() -> None:
    drive = warm()
    drive.releasing = False
    drive.feed(UPLOAD).end_of_input()
    drive.handler.release()
    ((status, headers, _),) = parse_responses(drive.output)
    assert (status, headers["connection"]) == (201, "close")
    assert drive.transport.closed


async def test_a_server_that_stops_answers_and_closes() -> None:
    drive = warm()
    drive.releasing = False
    drive.feed(UPLOAD)
    drive.server.stopping = True
    drive.connection.stop()
    drive.handler.release()
    ((status, headers, _),) = parse_responses(drive.output)
    assert (status, headers["connection"]) == (201, "close")
    assert drive.transport.closed


def test_a_handler_that_fails_on_the_fast_way(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(RecordingHandler):
        def fast_put(
            self, connection: UploadingConnection, request_line: bytes, headers: RequestHeaders, body: bytes
        ) -> bool:
            raise ZeroDivisionError

    with caplog.at_level(logging.ERROR):
        drive = Drive(Broken()).feed(HEAD, b"photo", UPLOAD)
    assert drive.transport.aborted
    assert "ZeroDivisionError" in caplog.text


LINES = st.sampled_from(
    [b"PUT /a HTTP/1.1"] * 3
    + [
        b"POST /a HTTP/1.1",
        b"PUT /b HTTP/1.1",
        b"PUT /a?b HTTP/1.1",
        b"PUT /a HTTP/1.0",
        b"PUT  /a HTTP/1.1",
        b"PUT /a\nHost: y HTTP/1.1",
        b"PATCH /a HTTP/1.1",
        b"GET /a HTTP/1.1",
        b"P",
    ]
)
FIELDS = st.lists(
    st.sampled_from(
        [
            b"Connection: close",
            b"Connection: keep-alive",
            b"Content-Length: 5",
            b"Content-Length: 05",
            b"Content-Length: 0",
            b"Transfer-Encoding: chunked",
            b"Expect: 100-continue",
            b"Upgrade: x",
            b"A: b\nB: c",
            b"A : b",
        ]
    ),
    max_size=3,
)
BODIES = st.sampled_from([b"photo"] * 3 + [b"", b"phot", b"photos", b"a\r\n\r\n", UPLOAD, b"5\r\nphoto\r\n0\r\n\r\n"])
MESSAGES = st.tuples(LINES, FIELDS, BODIES).map(
    lambda parts: parts[0] + b"".join(b"\r\n" + line for line in [b"Host: x", *parts[1]]) + b"\r\n\r\n" + parts[2]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(MESSAGES, min_size=1, max_size=6), st.lists(st.integers(0, 200), max_size=3))
@example([UPLOAD, UPLOAD], [])
@example([HEAD + b"a\r\n\r\n"] * 2, [])
def test_with_and_without_the_fast_way_the_same_comes_out(messages: list[bytes], cuts: list[int]) -> None:
    fast, strict = Drive(), Drive(RecordingHandler(use_fast=False))
    for drive in (fast, strict):
        for message in [*messages, *split_at(messages[0], cuts), *messages]:
            if drive.transport.ended:  # A client opens another connection; the caches live on.
                drive.end_of_input()
                drive.take_output()
                drive.connection, drive.transport = drive.connect()
            drive.feed(message)
    assert fast.output == strict.output
    assert fast.handler.seen == strict.handler.seen
