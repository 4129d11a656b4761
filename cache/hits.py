"""The fast way of a hit: on the worker's event loop, without the parser, a message or a lock.

1. **hot**: the request line was answered before, and its photo is still the same: the generation of its entry says so.
2. **plain**: a line of the plainest form, judged by a regular expression that accepts a part of what the strict parser
   accepts; the photo is found in the shared table.

Both ask whether the photo may be vouched for (see :mod:`cache.feed_state`). Whatever is unusual in the slightest (not
here, not vouched for, with an end, for signed URLs alone, in several pieces) goes the strict way.
"""

from __future__ import annotations

import re
import time
from typing import Final

from cache.answers import fast_head
from cache.board import Board, Cell, Tally, Vouched
from cache.memory import MemoryReader, Record
from cache.memory.layout import LOOKING_CELL
from cache.signatures import SIGNED
from haystack.bounded import BoundedCache
from haystack.http.connection import HttpConnection
from haystack.http.request import RequestHeaders

_PLAIN_LINE = re.compile(rb"GET /([0-9]{1,10}),([0-9a-fA-F]{17,32})(?:_([0-9]{1,10}))? HTTP/1\.1")
"""Key and cookie are one group, since a regular expression that has to find their border takes four times as long."""

_COOKIE_BITS: Final = 64
_COOKIE_MASK: Final = 2**_COOKIE_BITS - 1
_FRESH: Final = int(Cell.FRESH_UNTIL_NS)
_VOUCHING: Final = int(Cell.VOUCHING)

_clock_ns = time.clock_gettime_ns
_BOOTTIME: Final = time.CLOCK_BOOTTIME


class _Hot:
    """A line that was answered, with its photo and its head as of ``tick``."""

    __slots__ = ("body", "cell", "generation", "head", "looking", "record", "size_bytes", "tick", "volume", "vouched")

    def __init__(self, record: Record, body: memoryview, volume: int, vouched: int, head: bytes, tick: float) -> None:
        self.record = record
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
        self._count = tally.fast_hit
        self._hot = BoundedCache[bytes, _Hot](hot_records)
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
        hot = self._hot.get(line)
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
            hot.head = fast_head(record)
            hot.tick = self.tick
        connection.respond_fast_lent(hot.head, hot.body, record)
        self._note(record)
        self._count(_clock_ns(_BOOTTIME) - started, hot.size_bytes)
        return True

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
        head = fast_head(record)
        connection.respond_fast_lent(head, body, record)
        self._note(record)
        self._hot.add(line, _Hot(record, body, volume, self._vouched.version, head, self.tick))
        self._count(_clock_ns(_BOOTTIME) - started, len(body))
        return True

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
