"""The fast way of hits by itself: what is answered, and what policy and counters hear of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from photo_memory import ListeningPolicy, ManualClock, content, cookie_of, keep, photo, small_plan

from cache.answers import HIT
from cache.board import Board, Cell, Counter, Histogram, Tally
from cache.hits import TOLD_AT_ONCE, HitPath
from cache.memory import MemoryReader, PhotoMemory
from cache.signatures import SIGNED
from haystack.http.request import RequestHeaders

HEADERS = RequestHeaders({}, content_length=None, chunked=False, expect_continue=False, connection_options=frozenset())
FOR_EVER_NS = 2**62


class FakeConnection:
    """Keeps what it was answered with."""

    fast_tail = b"Date: now\r\n\r\n"

    def __init__(self) -> None:
        self.answers: list[tuple[bytes, bytes]] = []

    def respond_fast_lent(self, head: bytes, body: memoryview, lender: object) -> None:
        self.answers.append((head, bytes(body)))


class Node:
    """A worker's way to hits, and the memory of its keeper."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.policy = ListeningPolicy()
        self.memory = PhotoMemory(small_plan(4096, max_entries=4096), self.policy, self.clock)
        self.board = Board.create(1)
        self.board.publish_vouching(0, {})
        self.board.cells[Cell.FRESH_UNTIL_NS] = FOR_EVER_NS
        self.reader = MemoryReader(*self.memory.open_worker(0).fds)
        self.tally = Tally(self.board, 0)
        self.hits = HitPath(self.board, self.reader, self.tally, hot_records=2 * TOLD_AT_ONCE)
        self.connection = FakeConnection()

    def ask(self, key: int) -> bool:
        return self.get(b"GET /1,%x%016x HTTP/1.1" % (key, cookie_of(key)))

    def get(self, line: bytes) -> bool:
        connection: Any = self.connection
        return self.hits.fast_get(connection, line, HEADERS)

    def told(self) -> list[int]:
        """Tell, and return what the policy heard: the keys."""
        self.hits.tell()
        self.policy.heard.clear()
        self.memory.take_hits()
        keys = (self.memory.descriptors.key(entry) for entry in self.policy.heard)
        return [key for key in keys if key is not None]

    def counted(self, counter: Counter) -> int:
        self.tally.flush()
        return self.board.sum(counter)


@pytest.fixture
def node() -> Iterator[Node]:
    made = Node()
    yield made
    made.memory.close()


def test_hits_are_told_of_together_and_counted_one_by_one(node: Node) -> None:
    for key in (1, 2):
        assert keep(node.memory, photo(key, 1, 1000 * key))
    assert [node.ask(key) for key in (1, 2, 1, 1, 2, 1)] == [True] * 6
    assert node.told() == [1, 1, 1, 1, 2, 2]
    assert node.told() == []
    assert node.counted(Counter.HITS) == 6
    assert node.counted(Counter.HIT_BYTES) == 4 * 1000 + 2 * 2000
    assert node.ask(2)
    assert node.told() == [2]
    head, body = node.connection.answers[-1]
    assert body == content(2, 1, 2000)
    assert head.startswith(b"headX-Cache: " + HIT) and head.endswith(FakeConnection.fast_tail)


def test_hits_of_a_photo_that_went_are_not_another_ones(node: Node) -> None:
    assert keep(node.memory, photo(1, 1, 1000))
    assert node.ask(1)
    entry = node.reader.find(1, 1, cookie_of(1))
    node.memory.drop(1, 1)
    node.reader.rest()
    node.clock.settle(node.memory)
    key = 2
    while not (keep(node.memory, photo(key, 1, 1000)) and entry is not None and _entry(node, key) == entry.entry):
        key += 1
    assert node.told() == []
    assert node.counted(Counter.HITS) == 1
    assert not node.ask(1)
    assert node.ask(key)
    assert node.told() == [key]


def test_photos_wait_in_bounded_number_to_be_told_of(node: Node) -> None:
    for key in range(TOLD_AT_ONCE):
        assert keep(node.memory, photo(key, 1, 100))
        assert node.ask(key)
    assert node.memory.take_hits() == TOLD_AT_ONCE


def test_about_one_of_sixteen_is_timed(node: Node) -> None:
    assert keep(node.memory, photo(1, 1, 100))
    for _ in range(8000):
        assert node.ask(1)
    node.hits.tell()
    node.tally.flush()
    assert 8000 // 64 < sum(node.board.histogram(Histogram.HIT)[0]) < 8000 // 4
    assert node.counted(Counter.HITS) == 8000


def test_a_new_second_makes_a_new_head(node: Node) -> None:
    assert keep(node.memory, photo(1, 1, 100))
    assert node.ask(1) and node.ask(1)
    node.connection.fast_tail = b"Date: later\r\n\r\n"
    assert node.ask(1)
    node.hits.tick += 1
    assert node.ask(1)
    ends = [head.rpartition(b"Date: ")[2] for head, _ in node.connection.answers]
    assert ends == [b"now\r\n\r\n"] * 3 + [b"later\r\n\r\n"]


def test_what_is_not_plain_goes_the_strict_way(node: Node) -> None:
    assert keep(node.memory, photo(1, 1, 100))
    line = b"GET /1,%x%016x HTTP/1.1" % (1, cookie_of(1))
    assert node.get(line)
    for other in (line[:-1] + b"0", line.replace(b"GET", b"HEAD"), line + b"\r\nRange: bytes=1-2", line + b"\n"):
        assert not node.get(other)
    new = photo(2, 1, 100)
    assert keep(node.memory, type(new)(**{name: getattr(new, name) for name in new.__slots__} | {"flags": SIGNED}))
    assert not node.ask(2)
    node.board.cells[Cell.FRESH_UNTIL_NS] = 0
    assert not node.get(line)
    assert len(node.connection.answers) == 1


def _entry(node: Node, key: int) -> int | None:
    record = node.reader.find(1, key, cookie_of(key))
    node.reader.rest()
    return None if record is None else record.entry
