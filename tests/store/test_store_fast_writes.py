"""The fast way of uploads: what it takes, and that its answers and effects are those of the strict way."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from store_data_harness import Client, head, new_fid, running

from haystack.errors import HaystackError, OutOfSpace, VolumeNotFound
from haystack.http.request import RequestHeaders
from haystack.store.control_cells import Counter, Reason, VolumeState
from haystack.store.fast_writes import FastWriter
from haystack.store.uploads import UploadMemory
from haystack.store.writes import UploadFields
from haystack.volume.operations import NewNeedle, Put, Stored

COOKIE = "00000000000000a1"
LINE = b"PUT /3,1f00000000000000a1 HTTP/1.1"
BODY = b"\xff\xd8\xff photo"


class Stand:
    """What a FastWriter asks for, without a Store; it is also the connection, the served volume and its lane."""

    def __init__(self) -> None:
        self.number = 3
        self.writable = True
        self.pins = 0
        self.counts: list[object] = []
        self.submitted: list[tuple[Put, Any]] = []
        self.answers: list[object] = []
        self.lane = self
        self.memory = UploadMemory(100, 150, self)  # type: ignore[arg-type]  # stands in for a Tally
        writer = SimpleNamespace(
            expires=lambda key, cookie, ttl_seconds, moment_ms: 0,
            catalog=self,
            tally=self,
            memory=self.memory,
            max_photo_bytes=50,
        )
        self.fast = FastWriter(writer)  # type: ignore[arg-type]  # as far as it is used
        self.headers = RequestHeaders(
            {}, content_length=len(BODY), chunked=False, expect_continue=False, connection_options=frozenset()
        )
        self.headers.notes = UploadFields("å.jpg", "", ())

    def get(self, number: int) -> Stand:
        if number != self.number:
            raise VolumeNotFound(f"volume {number}")
        return self

    def pin(self) -> None:
        self.pins += 1

    def unpin(self) -> None:
        self.pins -= 1

    def submit(self, served: Stand, put: Put, done: Any) -> None:
        self.submitted.append((put, done))

    def count(self, *what: object) -> None:
        self.counts.append(what)

    add = set = fast_write = count

    def finish_promised(self, head: bytes, body: bytes) -> None:
        assert f"Content-Length: {len(body)}\r\n".encode() in head
        self.answers.append(body)

    def finish_deferred(self, error: Exception | None = None) -> None:
        self.answers.append(error)

    def put(self, line: bytes = LINE, body: bytes = BODY) -> bool:
        return self.fast.fast_put(self, line, self.headers, body)  # type: ignore[arg-type]  # stands in for a connection


def test_a_plain_upload_is_taken_and_answered_when_it_is_stored() -> None:
    stand = Stand()
    assert stand.put()
    ((put, done),) = stand.submitted
    (needle,) = put.needles
    assert isinstance(needle, NewNeedle)
    assert (needle.key, needle.cookie, needle.alternate, needle.data) == (0x1F, 0xA1, 0, (BODY,))
    assert stand.pins == 1
    assert stand.answers == []
    assert not stand.memory.take(0, 145)
    done([Stored(64, len(BODY), 0xABC)])
    assert stand.memory.take(0, 100)
    assert stand.pins == 0
    assert stand.answers == [
        '{"name": "å.jpg", "size": 9, "eTag": "0000000000000abc", "fid": "3,1f00000000000000a1", '
        '"locator": "3@40,1f00000000000000a1"}\n'.encode()
    ]


def test_a_failure_is_handed_to_the_connection() -> None:
    stand = Stand()
    stand.put()
    error: HaystackError = OutOfSpace("the disk is full")
    stand.submitted[0][1](error)
    assert stand.answers == [error]
    assert stand.pins == 0
    assert stand.memory.take(0, 100)


@pytest.mark.parametrize(
    "line",
    [
        b"PUT /4,1f00000000000000a1 HTTP/1.1",
        b"PUT /03,1f00000000000000a1 HTTP/1.1",
        b"PUT /3,01f00000000000000a1 HTTP/1.1",
        b"PUT /3,1F00000000000000a1 HTTP/1.1",
        b"PUT /3,1f00000000000000a1_0 HTTP/1.1",
        b"PUT /3,1f00000000000000a1_4294967296 HTTP/1.1",
        b"PUT /3,1f00000000000000a1.jpg HTTP/1.1",
        b"PUT /3@40,1f00000000000000a1 HTTP/1.1",
        b"PUT /3,00000000000000a1 HTTP/1.1",
        b"PUT /3,11f1f1f1f1f1f1f1f1f00000000000000a1 HTTP/1.1",
        b"PUT /3,1f00000000000000a1?a HTTP/1.1",
        b"PUT /3,1f00000000000000a1 HTTP/1.0",
        b"PUT /3,1f00000000000000a1 HTTP/1.1 ",
        b"DELETE /3,1f00000000000000a1 HTTP/1.1",
    ],
)
def test_other_lines_go_the_strict_way(line: bytes) -> None:
    stand = Stand()
    assert not stand.put(line)
    assert stand.submitted == []
    assert stand.pins == 0


def test_what_may_be_refused_goes_the_strict_way() -> None:
    stand = Stand()
    assert not stand.put(body=bytes(51))
    stand.headers.notes = None
    assert not stand.put()
    stand.headers.notes = UploadFields("", "multipart/form-data; boundary=x", ())
    assert not stand.put()
    stand.headers.notes = UploadFields("", "image/png", ())
    stand.writable = False
    assert not stand.put()
    stand.writable = True
    assert stand.memory.take(0, 100)
    assert not stand.put(body=bytes(50) + b"x")
    assert not stand.memory.take(0, 51)
    assert stand.put(body=bytes(50))
    assert stand.pins == 1


def _put(client: Client, path: str, body: bytes, *headers: tuple[str, str]) -> Any:
    client.send(head("PUT", path, body, list(headers)) + body)  # in one piece
    return client.answer()


def test_both_ways_store_and_answer_the_same(tmp_path: Path) -> None:
    headers = (
        ("Content-Disposition", 'inline; filename="a \\" b.jpg"'),
        ("X-Haystack-Meta-Place", "Oslo"),
        ("Content-Type", "application/octet-stream"),
    )
    with running(tmp_path, max_photo_bytes=100_000) as store, store.client() as client:
        found = []
        for number in range(6):
            fid, body = str(new_fid()), BODY + b"%d" % number
            path = f"/{fid}.jpg" if number % 2 else f"/{fid}"  # an ending goes the strict way
            answer = _put(client, path, body, *headers)
            assert answer.status == 201
            told = answer.json()
            assert (told["fid"], told["size"]) == (fid, len(body))
            assert _put(client, path, body + b"!", *headers).status == 201  # replaces it
            read = client.get(f"/{fid}")
            assert read.body == body + b"!"
            assert client.get(f"/{told['locator']}").body == body + b"!"
            found.append((sorted(answer.headers), told["name"], {**read.headers, "etag": "", "date": ""}))
        assert all(one[0] == found[0][0] and one[1] == 'a " b.jpg' for one in found)
        assert len({str({**one[2], "last-modified": ""}) for one in found}) == 1
        assert store.counter(Counter.PUT) == 12
        assert store.counter(Counter.BYTES_IN) == 6 * (2 * len(BODY) + 3)
        metrics = store.metrics()
        assert metrics['haystack_store_responses_total{status="201"}'] == 12
        assert metrics['haystack_store_volume_writes_total{volume="1"}'] == 12
        assert metrics["haystack_store_upload_memory_bytes"] == 0


def test_refusals_are_the_same_on_a_connection_that_was_on_the_fast_way(tmp_path: Path) -> None:
    with running(tmp_path, max_photo_bytes=1000) as store, store.client() as client:
        fid = str(new_fid())
        for _ in range(3):
            assert _put(client, f"/{fid}", BODY).status == 201
        wrong = fid[:-16] + COOKIE
        assert _put(client, f"/{wrong}", BODY).status == 409
        assert client.get(f"/{wrong}").status == 404
        store.set_state(VolumeState.READONLY, Reason.DISK_FULL)
        with store.client() as other:
            assert _put(other, f"/{fid}", BODY).status == 507
        store.set_state(VolumeState.WRITABLE)
        assert _put(client, f"/{fid}", BODY + b"").status == 201
        assert client.get(f"/{fid}").body == BODY
        assert client.request("DELETE", f"/{fid}").status == 202
        assert client.get(f"/{fid}").status == 404
