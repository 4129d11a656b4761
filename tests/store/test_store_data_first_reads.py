"""The first read of a photo on the fast way, of which nothing is kept, beside the strict way and the cached answers."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from store_data_harness import Client, drop_cache, new_fid, running

from haystack.fid import Fid, Locator
from haystack.http.answering import JOINED_ANSWER_BYTES
from haystack.http.response import prepared_head
from haystack.store.answers import photo_head, photo_headers
from haystack.store.fast_reads import REUSED_BYTES
from haystack.volume import NeedleMeta

ENTRIES = "haystack_store_cached_entries"
META = (("Content-Type", "image/x"), ("X-Haystack-Meta-A", "b"))


def know_the_header_lines(client: Client) -> None:
    """From now on this client's GETs go the fast way."""
    fid = new_fid()
    client.put(f"/{fid}", b"x")
    assert client.get(f"/{fid}").status == 200


@pytest.mark.parametrize("size", [0, 1, 3000, REUSED_BYTES - 100, REUSED_BYTES, 2 * REUSED_BYTES, 300_000])
def test_first_second_and_third_read_are_the_strict_answer(tmp_path: Path, size: int) -> None:
    body, other = random.Random(size).randbytes(size), random.Random(1).randbytes(size)
    with running(tmp_path) as store, store.client() as client:
        know_the_header_lines(client)
        fid, noise = new_fid(), new_fid()
        for name, photo in ((fid, body), (noise, other)):
            assert client.put(f"/{name}", photo, *META).status == 201
        strict = client.get(f"/{fid}.jpg")
        assert strict.body == body
        for _ in range(3):
            answer = client.get(f"/{fid}")
            assert (answer.status, answer.body) == (200, body)
            assert {**answer.headers, "date": ""} == {**strict.headers, "date": ""}
            assert list(answer.headers) == list(strict.headers)
            assert client.get(f"/{noise}").body == other


def test_a_photo_that_is_asked_for_once_leaves_no_entry(tmp_path: Path) -> None:
    fids = [new_fid() for _ in range(20)]
    with running(tmp_path) as store:
        with store.client() as client:
            for fid in fids:
                client.put(f"/{fid}", b"photo")
        store.kill(0)  # its map ends before what was appended to it
        store.restart(0)
        with store.client() as client:
            know_the_header_lines(client)
            before = store.metrics()[ENTRIES]
            for expected in (before, before + len(fids), before + len(fids)):
                for fid in fids:
                    assert client.get(f"/{fid}").body == b"photo"
                assert store.metrics()[ENTRIES] == expected


def test_answers_that_wait_for_their_client_are_not_overwritten_by_later_ones(tmp_path: Path) -> None:
    """All first reads of small photos share one buffer."""
    size = JOINED_ANSWER_BYTES - 1000
    bodies = {new_fid(): random.Random(number).randbytes(size) for number in range(400)}
    with running(tmp_path) as store, store.client() as client:
        know_the_header_lines(client)
        for fid, body in bodies.items():
            client.put(f"/{fid}", body)
        with store.client(receive_buffer_bytes=4096) as slow:
            know_the_header_lines(slow)
            for fid in bodies:
                slow.send(_get(fid))
            for fid, body in reversed(bodies.items()):
                assert client.get(f"/{fid}").body == body
            for body in bodies.values():
                assert slow.answer().body == body


def test_any_wrong_byte_is_found_by_a_first_read(tmp_path: Path) -> None:
    """Each byte of a needle, in a photo of its own: as on the strict way, the footer's magic counts too."""
    body = b"the photo of which each byte counts"
    with running(tmp_path) as store, store.client() as client:
        know_the_header_lines(client)
        start, end = _needle(client, store.tail, new_fid(), body)
        for place in range(end - start):
            fid = new_fid()
            offset = _needle(client, store.tail, fid, body)[0] + place
            with store.path().open("r+b", buffering=0) as file:
                byte = os.pread(file.fileno(), 1, offset)
                os.pwrite(file.fileno(), bytes([byte[0] ^ (1 << place % 8)]), offset)
            answer = client.get(f"/{fid}")
            assert answer.status == 500, place
            assert answer.error


def test_names_that_lead_nowhere(tmp_path: Path) -> None:
    with running(tmp_path) as store, store.client() as client:
        know_the_header_lines(client)
        fid = new_fid()
        client.put(f"/{fid}", b"photo")
        text = str(fid)
        wrong_cookie = text[:-1] + ("0" if text[-1] != "0" else "1")
        for path in (f"/{new_fid()}", f"/{wrong_cookie}", f"/2{text[1:]}", f"/{fid}_1"):
            assert client.get(path).status == 404
        assert client.get(f"/{text.upper()}").body == b"photo"
        assert client.delete(f"/{fid}").status == 202
        assert client.get(f"/{text.upper()}").status == 404
        assert client.get(f"/{fid}").status == 404


def test_a_first_read_from_disk(tmp_path: Path) -> None:
    with running(tmp_path) as store, store.client() as client:
        know_the_header_lines(client)
        fid = new_fid()
        client.put(f"/{fid}", b"photo")
        drop_cache(store.path())
        assert client.get(f"/{fid}").body == b"photo"


def test_head_in_one_piece_is_the_one_put_together() -> None:
    raw = NeedleMeta("grüße.jpg", "image/jpeg", (("place", "Oslo"),)).pack()
    for meta in (b"", raw, b"\xff"):
        for time_ms in (0, 1_700_000_000_123, 2**64 - 1):
            expected = prepared_head(200, photo_headers(meta, 0xABC, time_ms), 17)
            assert photo_head(meta, 0xABC, time_ms, 17) == expected


def _get(fid: Fid) -> bytes:
    return f"GET /{fid} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def _needle(client: Client, tail: object, fid: Fid, body: bytes) -> tuple[int, int]:
    assert callable(tail)
    locator = Locator.parse(client.put(f"/{fid}", body, *META).json()["locator"])
    assert locator.offset is not None
    return locator.offset, tail()
