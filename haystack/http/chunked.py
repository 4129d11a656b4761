"""Strict decoder of chunked bodies (RFC 9112, section 7.1).

The decoder takes input from the front of a buffer and leaves what comes after the body in it, so that a pipelined
request behind a chunked body is never lost or taken for a part of it. Lines end with CRLF and nothing else, a size is
hexadecimal digits and nothing else, extensions and trailers are checked, bounded and ignored.
"""

from __future__ import annotations

import enum
import re

from haystack.errors import ProtocolError
from haystack.http.limits import HttpLimits

_NAME = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = rb'"(?:[ !\x23-\x5b\x5d-\x7e]|\\[\x20-\x7e])*"'
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})((?:;%b(?:=(?:%b|%b))?)*)" % (_NAME, _NAME, _QUOTED))
_TRAILER_LINE = re.compile(rb"%b:[\t\x20-\x7e\x80-\xff]*" % _NAME)


class _Expect(enum.Enum):
    SIZE = enum.auto()
    DATA = enum.auto()
    DATA_END = enum.auto()
    TRAILER = enum.auto()
    NOTHING = enum.auto()


class ChunkedDecoder:
    """Decoder of one body. Ask :meth:`next_piece` until it gives None, then see :attr:`finished`."""

    __slots__ = ("_expect", "_extension_bytes", "_left", "_limits", "_trailer_bytes")

    def __init__(self, limits: HttpLimits) -> None:
        self._limits = limits
        self._expect = _Expect.SIZE
        self._left = 0
        self._extension_bytes = 0
        self._trailer_bytes = 0

    @property
    def finished(self) -> bool:
        """The end of the body, trailers included, was taken from the buffer."""
        return self._expect is _Expect.NOTHING

    def next_piece(self, buffer: bytearray) -> bytes | None:
        """Take the next bytes of the body from the front of ``buffer``.

        None when the buffer holds no more of them. Raises :class:`ProtocolError`.
        """
        while True:
            expect = self._expect
            if expect is _Expect.DATA:
                return self._take_data(buffer) if buffer else None
            if expect is _Expect.SIZE:
                more = self._take_size(buffer)
            elif expect is _Expect.DATA_END:
                more = self._take_data_end(buffer)
            elif expect is _Expect.TRAILER:
                more = self._take_trailer(buffer)
            else:
                return None
            if not more:
                return None

    def _take_data(self, buffer: bytearray) -> bytes:
        piece = bytes(memoryview(buffer)[: self._left])
        del buffer[: len(piece)]
        self._left -= len(piece)
        if not self._left:
            self._expect = _Expect.DATA_END
        return piece

    def _take_size(self, buffer: bytearray) -> bool:
        line = _take_line(buffer, self._limits.max_chunk_line_bytes, "chunk size line", 400)
        if line is None:
            return False
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise ProtocolError("malformed chunked body: a chunk must begin with its size in hexadecimal")
        self._extension_bytes += len(match[2])
        if self._extension_bytes > self._limits.max_chunk_extension_bytes:
            raise ProtocolError("malformed chunked body: too many chunk extensions")
        self._left = int(match[1], 16)
        self._expect = _Expect.DATA if self._left else _Expect.TRAILER
        return True

    def _take_data_end(self, buffer: bytearray) -> bool:
        if not b"\r\n".startswith(buffer[:2]):
            raise ProtocolError("malformed chunked body: chunk data must end with CRLF")
        if len(buffer) < 2:
            return False
        del buffer[:2]
        self._expect = _Expect.SIZE
        return True

    def _take_trailer(self, buffer: bytearray) -> bool:
        room = max(0, self._limits.max_trailer_bytes - self._trailer_bytes)
        line = _take_line(buffer, room, "trailer section", 431)
        if line is None:
            return False
        if not line:
            self._expect = _Expect.NOTHING
        elif _TRAILER_LINE.fullmatch(line) is None:
            raise ProtocolError("malformed chunked body: a trailer line is not 'name: value'")
        self._trailer_bytes += len(line) + 2
        return True


def _take_line(buffer: bytearray, max_bytes: int, what: str, status_when_long: int) -> bytes | None:
    """Take one CRLF-ended line of at most ``max_bytes`` (without CRLF) off the buffer; None when it is not whole."""
    end = buffer.find(b"\n", 0, max_bytes + 2)
    if end < 0:
        if len(buffer) >= max_bytes + 2:
            raise ProtocolError(
                f"malformed chunked body: {what} longer than {max_bytes} bytes", status_when_long, "too_large"
            )
        return None
    if end == 0 or buffer[end - 1] != 0x0D:
        raise ProtocolError("malformed chunked body: a line must end with CRLF")
    line = bytes(memoryview(buffer)[: end - 1])
    del buffer[: end + 1]
    return line
