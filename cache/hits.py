"""The fast way of a hit: on the worker's event loop, without the parser, a message or a lock.

1. **hot**: the request line was answered before, and its photo is still the same: the generation of its entry says so.
2. **plain**: a line of the plainest form, judged by a regular expression that accepts a part of what the strict parser
   accepts; the photo is found in the shared table.

Both ask whether the photo may be vouched for (see :mod:`cache.feed_state`). Whatever is unusual in the slightest (not
here, not vouched for, with an end, for signed URLs alone, in several pieces) goes the strict way.

A hit is counted with its line; policy and counters are told of many at once, see :meth:`HitPath.tell`.
"""

from __future__ import annotations

import re
import time
from typing import Final

from cache.answers import fast_head
from cache.board import Board, Cell, Histogram, Tally, Vouched
from cache.memory import MemoryReader, Record
from cache.memory.layout import LOOKING_CELL
from cache.signatures import SIGNED
from haystack.bounded import BoundedCache
from haystack.http.connection import HttpConnection
from haystack.http.request import RequestHeaders

_PLAIN_LINE = re.compile(rb"GET /([0-9]{1,10}),([0-9a-fA-F]{17,32})(?:_([0-9]{1,10}))? HTTP/1\.1")
"""Key and cookie are one group, since a regular expression that has to find their border takes four times as long."""

TOLD_AT_ONCE: Final = 512
"""Photos whose hits are told of in one go: a seventh of a millisecond."""

_TIMED_MASK: Final = 15
"""A hit that begins in a nanosecond with none of these bits is timed: one of 16, without any pattern of its own."""

_COOKIE_BITS: Final = 64
_COOKIE_MASK: Final = 2**_COOKIE_BITS - 1
_FRESH: Final = int(Cell.FRESH_UNTIL_NS)
_VOUCHING: Final = int(Cell.VOUCHING)

_clock_ns = time.clock_gettime_ns
_BOOTTIME: Final = time.CLOCK_BOOTTIME


class _Hot:
    """A line that was answered, with its photo, its head as of ``tick``, and its hits that nobody was told of."""

    __slots__ = (
        "body",
        "cell",
        "generation",
        "head",
        "hits",
        "looking",
        "record",
        "size_bytes",
        "tick",
        "volume",
        "vouched",
    )

    def __init__(self, record: Record, body: memoryview, volume: int, vouched: int, head: bytes, tick: float) -> None:
        self.record = record
        self.hits = 1
        self.body = body
        self.size_bytes = len(body)
        self.cell = record.generation_cell
        self.generation = record.generation
        self.looking = record.entry + 1
        self.volume = volume
        self.vouched = vouched
        self.head = head
        self.tick = tick


class HitPath:
    """Answers plain GETs out of memory.

    Parameters
    ----------
    hot_records: how many lines are remembered.
    """

    def __init__(self, board: Board, reader: MemoryReader, tally: Tally, hot_records: int) -> None:
        self._board = board
        self._board_cells = board.cells
        self._reader = reader
        self._cells = reader.cells
        self._area = reader.area
        self._note = reader.hit
        self._count = tally.fast_hits
        self._took = tally.took
        self._hot = BoundedCache[bytes, _Hot](hot_records)
        self._get = self._hot.get
        self._touched: list[_Hot] = []
        self._vouched = Vouched(-1, 0, {})
        self.tick = 0.0
        """Set by the worker every second: heads say how old their photo is, in seconds."""

    @property
    def hot_records(self) -> int:
        """Lines that are remembered."""
        return len(self._hot)

    def fast_get(self, connection: HttpConnection, line: bytes, headers: RequestHeaders) -> bool:
        """Answer a plain GET at once, or return False. See ``haystack.http.handler.Handler.fast_get``."""
        started = _clock_ns(_BOOTTIME)
        hot = self._get(line)
        if hot is None:
            return self._find(connection, line, started)
        record = hot.record
        # What MemoryReader.valid does, without a call.
        self._area[LOOKING_CELL] = hot.looking
        if self._cells[hot.cell] != hot.generation:
            del self._hot[line]
            return self._find(connection, line, started)
        board = self._board_cells
        if started >= board[_FRESH] or (hot.vouched != board[_VOUCHING] and not self._vouches_still(hot)):
            return False
        if hot.tick != self.tick:
            hot.head = fast_head(record) + connection.fast_tail
            hot.tick = self.tick
        connection.respond_fast_lent(hot.head, hot.body, record)
        hits = hot.hits
        hot.hits = hits + 1
        if not hits:
            self._touch(hot)
        if not started & _TIMED_MASK:
            self._took(Histogram.HIT, _clock_ns(_BOOTTIME) - started)
        return True

    def tell(self) -> None:
        """Count the hits since the last call, and tell the keeper of them. To be called a few times a second."""
        touched, self._touched = self._touched, []
        cells, note = self._cells, self._note
        count = size_bytes = 0
        for hot in touched:
            hits = hot.hits
            hot.hits = 0
            count += hits
            size_bytes += hits * hot.size_bytes
            if cells[hot.cell] == hot.generation:  # else its entry may be another photo's by now
                note(hot.record, hits)
        if count:
            self._count(count, size_bytes)

    def vouches(self, volume: int, record: Record, now_ns: int) -> bool:
        """Whether the photo may be given out without a question."""
        return now_ns < self._board_cells[_FRESH] and self._current().covers(volume, record.verified_ns)

    def _find(self, connection: HttpConnection, line: bytes, started: int) -> bool:
        match = _PLAIN_LINE.fullmatch(line)
        if match is None:
            return False
        volume, name, alternate = int(match[1]), int(match[2], 16), int(match[3] or 0)
        record = self._reader.find(volume, name >> _COOKIE_BITS, name & _COOKIE_MASK, alternate)
        if record is None or record.expires or record.flags & SIGNED or not self.vouches(volume, record, started):
            return False
        body = record.body
        if body is None:
            return False
        head = fast_head(record) + connection.fast_tail
        connection.respond_fast_lent(head, body, record)
        hot = _Hot(record, body, volume, self._vouched.version, head, self.tick)
        self._hot.add(line, hot)
        self._touch(hot)
        return True

    def _touch(self, hot: _Hot) -> None:
        """Its first hit since the last telling."""
        self._touched.append(hot)
        if len(self._touched) >= TOLD_AT_ONCE:
            self.tell()

    def _vouches_still(self, hot: _Hot) -> bool:
        vouched = self._current()
        if not vouched.covers(hot.volume, hot.record.verified_ns):
            return False
        hot.vouched = vouched.version
        return True

    def _current(self) -> Vouched:
        if self._vouched.version != self._board_cells[_VOUCHING]:
            self._vouched = self._board.read_vouching()
        return self._vouched
