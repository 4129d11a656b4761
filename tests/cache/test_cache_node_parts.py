"""Parts of a Cache node by themselves: talk, board, names, and taking a needle however its bytes come."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photo_memory import small_plan

from cache.board import ALL_SPECIAL, MAX_SPECIAL_VOLUMES, NEVER_NS, STATUS_CELL, Board, Cell, Counter, Histogram, Tally
from cache.fetch import STREAM_BYTES, Fetch
from cache.levels import Levels
from cache.memory import PhotoMemory
from cache.names import PhotoTarget, parse_path
from cache.needle_taker import NeedleTaker
from cache.policies import make_policy
from cache.store_connection import StoreConnection, StoreSilent, parse_answer_head
from cache.talk import Talk
from cache.upstream import Call, Upstreams
from haystack.errors import HaystackError, InvalidFid, NeedleNotFound
from haystack.fid import Fid
from haystack.signed_urls import UrlSigner
from haystack.store.answers import etag
from haystack.store.targets import Target
from haystack.volume.layout import NEEDLE_TYPE, NeedleHeader, NeedleMeta, pack_needle

SEED = 0x1234_5678_9ABC_DEF0
FID = Fid(3, 77, 88, 2)


class FakeTransport(asyncio.Transport):
    """Takes what is written; can be closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def splits(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    """The data in pieces of these sizes, over and over."""
    position = turn = 0
    while position < len(data):
        size = sizes[turn % len(sizes)]
        yield data[position : position + size]
        position += size
        turn += 1


@given(st.lists(st.lists(st.integers() | st.binary() | st.text(), max_size=4), max_size=6), st.lists(st.integers(1, 9)))
@settings(max_examples=50, deadline=None)
def test_messages_arrive_however_they_are_cut(messages: list[list[Any]], sizes: list[int]) -> None:
    messages = [[one if not isinstance(one, int) else one % 2**63 for one in message] for message in messages]

    async def run() -> None:
        got: list[Any] = []
        sender, receiver = Talk(lambda _: None, lambda: None), Talk(got.extend, lambda: None)
        transport = FakeTransport()
        sender.connection_made(transport)
        for message in messages:
            sender.say(*message)
        await asyncio.sleep(0)
        receiver.connection_made(FakeTransport())
        for piece in splits(bytes(transport.written), sizes or [1]):
            receiver.data_received(piece)
        assert got == messages

    asyncio.run(run())


def test_a_talk_bounds_what_it_takes() -> None:
    talk = Talk(lambda _: None, lambda: None)
    transport = FakeTransport()
    talk.connection_made(transport)
    talk.data_received(b"\xff\xff\xff\xff")
    assert transport.closed


def test_the_board_says_what_is_vouched_for() -> None:
    board = Board.create(2)
    worker = Board.attach(board.fd)
    assert not worker.read_vouching().covers(1, NEVER_NS - 1), "nothing at first"
    board.publish_vouching(100, {7: 200, 8: NEVER_NS})
    vouched = worker.read_vouching()
    assert vouched.covers(1, 100) and not vouched.covers(1, 99)
    assert vouched.covers(7, 200) and not vouched.covers(7, 199)
    assert not vouched.covers(8, 2**62)
    assert vouched.version == worker.cells[Cell.VOUCHING]
    board.publish_vouching(100, None)
    assert not worker.read_vouching().covers(1, 2**62)
    board.publish_vouching(0, dict.fromkeys(range(MAX_SPECIAL_VOLUMES + 1), 5))
    assert worker.cells[Cell.SPECIAL_COUNT] == ALL_SPECIAL
    board.cells[Cell.VOUCHING] += 1  # in the middle of a change
    assert worker.read_vouching().version == -1
    with pytest.raises(ValueError, match="no board"):
        board.cells[Cell.MAGIC] = 1
        Board.attach(board.fd)


def test_counters_come_to_the_board() -> None:
    board = Board.create(2)
    tally = Tally(board, 1)
    tally.fast_hits(3, 300)
    for _ in range(3):
        tally.took(Histogram.HIT, 1500)
    tally.took(Histogram.MISS, 10**9)
    tally.responded(206)
    tally.responded(418)
    assert board.sum(Counter.HITS) == 0
    tally.flush()
    assert (board.sum(Counter.HITS), board.sum(Counter.HIT_BYTES)) == (3, 300)
    assert board.histogram(Histogram.HIT) == ([0, 3, *[0] * 24], 4)
    assert board.histogram(Histogram.MISS)[1] == 10**6
    assert board.cells[board.base(1) + STATUS_CELL[206]] == 1
    assert board.cells[board.base(1) + STATUS_CELL[416]] == 1
    board.cells[board.base(1) + Counter.PID] = 5
    board.forget_worker(1)
    assert board.sum(Counter.PID) == 0 and board.sum(Counter.HITS) == 3


def test_paths() -> None:
    assert parse_path("/photo/1f") == PhotoTarget(0x1F, 0)
    assert parse_path("/photo/1f/3.jpg") == PhotoTarget(0x1F, 3)
    assert parse_path(f"/{FID}.jpg") == Target(FID)
    for wrong in ("/photo/", "/photo/xyz", "/photo/1/99999999999", "/photo/1/2/3", "/nothing"):
        with pytest.raises(InvalidFid):
            parse_path(wrong)


def test_heads_of_answers() -> None:
    assert parse_answer_head(b"HTTP/1.1 200 OK\r\nETag: x\r\nA:  b ", "s") == (200, {"etag": "x", "a": "b"})
    for wrong in (b"HTTP/1.0 200 OK", b"HTTP/1.1 20 OK", b"HTTP/1.1", b"HTTP/1.1 200 OK\r\nno colon"):
        with pytest.raises(StoreSilent):
            parse_answer_head(wrong, "s")


class Notes:
    """Counts what a fetch tells."""

    def __init__(self) -> None:
        self.grown: list[int] = []

    def growing(self, fetch: Fetch) -> None:
        self.grown.append(0)

    def grew(self, fetch: Fetch) -> None:
        if fetch.filling is not None:
            self.grown.append(fetch.filling.filled_bytes)

    def failed_over(self) -> None:
        pass


def needle(body: bytes, fid: Fid = FID, mime: str = "image/x") -> tuple[bytes, int]:
    meta = NeedleMeta("a.jpg", mime).pack() if mime else b""
    header = NeedleHeader(fid.key, fid.cookie, fid.alternate, len(body), len(meta), 1000)
    pieces, checksum = pack_needle(header, meta, [body], SEED)
    return b"".join(bytes(piece) for piece in pieces), checksum


def answer_of(raw: bytes, tag: str) -> bytes:
    return (
        f"HTTP/1.1 200 OK\r\nContent-Type: {NEEDLE_TYPE}\r\nETag: {tag}\r\nContent-Length: {len(raw)}\r\n\r\n".encode()
        + raw
    )


@contextmanager
def a_memory() -> Iterator[PhotoMemory]:
    memory = PhotoMemory(small_plan(4096), make_policy("lru"))
    try:
        yield memory
    finally:
        memory.close()


def take(
    memory: PhotoMemory,
    answers: list[bytes],
    sizes: list[int],
    notes: Notes | None = None,
    fetches: list[Fetch] | None = None,
) -> Fetch:
    """Receive answers one after the other, as from Stores of which all but the last break off. Raises what came."""

    async def run() -> Fetch:
        fetch = Fetch(FID, None, None, Levels(memory, None), UrlSigner(None), lambda place: True, notes or Notes())  # type: ignore[arg-type]
        if fetches is not None:
            fetches.append(fetch)
        for number, raw in enumerate(answers):
            taker = NeedleTaker(fetch, "store:1", SEED)
            upstreams = Upstreams()
            connection = StoreConnection("store:1", upstreams)
            connection.connection_made(FakeTransport())
            call = Call(upstreams, "store:1", b"GET", taker, head_only=False)
            call._connection = connection
            connection.ask(call)
            for piece in splits(raw, sizes):
                while piece and not taker.done.done():
                    buffer = connection.get_buffer(-1)
                    count = min(len(buffer), len(piece))
                    buffer[:count] = piece[:count]
                    connection.buffer_updated(count)
                    piece = piece[count:]
            if not taker.done.done():
                connection.connection_lost(None)
            if number == len(answers) - 1:
                taker.done.result()
            else:
                assert isinstance(taker.done.exception(), HaystackError)
        return fetch

    return asyncio.run(run())


@given(st.integers(0, 3000), st.lists(st.integers(1, 500), min_size=1, max_size=5), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_needle_is_taken_however_it_comes(size: int, sizes: list[int], with_meta: bool) -> None:
    body = random.Random(size).randbytes(size)
    raw, checksum = needle(body, mime="image/x" if with_meta else "")
    with a_memory() as memory:
        fetch = take(memory, [answer_of(raw, etag(checksum))], sizes)
        assert fetch.filling is not None
        assert b"".join(fetch.filling.views()) == body
        assert fetch._finish() is not None
        kept = memory.find(FID.volume, FID.key, FID.alternate)
        assert kept is not None and (kept.cookie, kept.checksum, kept.data_bytes) == (FID.cookie, checksum, size)


@given(st.integers(0, 2999), st.integers(0, 2999), st.integers(1, 700))
@settings(max_examples=40, deadline=None)
def test_what_one_store_broke_off_another_goes_on_with(first: int, second: int, size: int) -> None:
    body = random.Random(5).randbytes(2500)
    raw, checksum = needle(body)
    whole = answer_of(raw, etag(checksum))
    cut = [whole[: len(whole) - len(raw) + part % len(raw)] for part in (first, second)]
    with a_memory() as memory:
        fetch = take(memory, [*cut, whole], [size])
        assert fetch.filling is not None and b"".join(fetch.filling.views()) == body
        fetch.give_up()


@given(st.integers(0, 10**6), st.integers(1, 255))
@settings(max_examples=80, deadline=None)
def test_a_wrong_byte_anywhere_is_noticed(place: int, change: int) -> None:
    raw, checksum = needle(random.Random(6).randbytes(1000))
    wrong = bytearray(raw)
    wrong[place % len(raw)] ^= change
    with a_memory() as memory:
        with pytest.raises(StoreSilent):
            take(memory, [answer_of(bytes(wrong), etag(checksum))], [300])
        assert memory.find(FID.volume, FID.key, FID.alternate) is None


def test_who_goes_on_with_wrong_bytes_may_be_right() -> None:
    raw, checksum = needle(random.Random(8).randbytes(1000))
    wrong = bytearray(raw)
    wrong[400] ^= 1
    cut = answer_of(bytes(wrong), etag(checksum))[:-300]
    with a_memory() as memory:
        for answers, mixed in (
            ([cut, answer_of(raw, etag(checksum))], True),
            ([answer_of(bytes(wrong), etag(checksum))], False),
        ):
            fetches: list[Fetch] = []
            with pytest.raises(StoreSilent):
                take(memory, answers, [100], fetches=fetches)
            assert fetches[0].mixed is mixed and fetches[0].filling is None


def test_needles_that_are_not_what_was_asked_for() -> None:
    other, checksum = needle(b"x" * 100, Fid(3, 78, 88, 2))
    good, good_checksum = needle(b"x" * 100)
    refusal = b'HTTP/1.1 404 Not Found\r\nContent-Length: 17\r\n\r\n{"error": "gone"}'
    with a_memory() as memory:
        for raw in (
            answer_of(other, etag(checksum)),
            answer_of(good, etag(good_checksum ^ 1)),
            answer_of(good, "nonsense"),
            answer_of(good[:-8], etag(good_checksum)),
            answer_of(good + bytes(8), etag(good_checksum)),
            answer_of(b"short", etag(good_checksum)),
            b"HTTP/1.1 200 OK\r\nContent-Type: image/x\r\n\r\n",
            b"junk\r\n\r\n",
        ):
            with pytest.raises(StoreSilent):
                take(memory, [raw], [1000])
        with pytest.raises(NeedleNotFound, match="gone"):
            take(memory, [refusal], [7])


def test_a_large_photo_is_told_of_while_it_comes() -> None:
    body = random.Random(7).randbytes(STREAM_BYTES)
    raw, checksum = needle(body)
    notes = Notes()
    with a_memory() as memory:
        fetch = take(memory, [answer_of(raw, etag(checksum))], [50_000], notes)
        assert fetch.streams and notes.grown[0] == 0 and notes.grown[-1] == STREAM_BYTES
        assert notes.grown == sorted(notes.grown)
        fetch.give_up()
