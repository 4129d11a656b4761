"""What keeper and workers say to each other: msgpack over a Unix socket, all messages of a loop turn in one piece.

A message is a list: its kind, the number of the question that it belongs to, and what the kind needs. A question has a
photo; the keeper answers each of them once, but for ``GROWS``, which is followed by ``GREW`` until the photo is
complete or given up.
"""

from __future__ import annotations

import asyncio
import enum
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import msgpack

MAX_PIECE_BYTES: Final = 64 * 2**20
"""Of messages that come together: what a keeper says in one turn to a worker with all its questions open."""

_LENGTH: Final = struct.Struct("<I")


class Said(enum.IntEnum):
    """Kinds of messages, with what stands behind the number of the question."""

    # from a worker
    ASK = 0  # volume, key, cookie, alternate, through a CDN
    ASK_PHOTO = 1  # photo id, alternate, through a CDN: answered with NAMED instead of REFUSED
    # from the keeper
    HAVE = 10  # entry, generation, until when it holds by itself (ns), fetched for this question
    GROWS = 11  # as HAVE, for a photo whose first bytes are there
    GREW = 12  # no number, but entry: of all who were told GROWS
    PASS = 13  # addresses of Stores
    REFUSED = 14  # status, message
    STALE = 15  # entry, generation
    NAMED = 16  # volume, key, cookie, alternate: ask again for this


Message = Sequence[Any]
OnMessages = Callable[[list[Message]], None]


class Talk(asyncio.Protocol):
    """One end of a connection.

    Parameters
    ----------
    on_messages: gets what the other side said in one turn.
    on_lost: called once when the other side is gone.
    """

    def __init__(self, on_messages: OnMessages, on_lost: Callable[[], None]) -> None:
        self._on_messages = on_messages
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._outgoing: list[Message] = []
        self._incoming = bytearray()

    @property
    def connected(self) -> bool:
        """Whether there is somebody to talk to."""
        return self._transport is not None

    def say(self, *message: Any) -> None:
        """Send a message at the end of the loop's turn."""
        if not self._outgoing:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outgoing.append(message)

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._on_lost()

    def data_received(self, data: bytes) -> None:
        incoming = self._incoming
        incoming += data
        while len(incoming) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(incoming)
            if length > MAX_PIECE_BYTES:
                self.close()
                return
            end = _LENGTH.size + length
            if len(incoming) < end:
                return
            messages = msgpack.unpackb(bytes(incoming[_LENGTH.size : end]))
            del incoming[:end]
            self._on_messages(messages)

    def _flush(self) -> None:
        messages, self._outgoing = self._outgoing, []
        if self._transport is not None:
            piece = msgpack.packb(messages)
            self._transport.write(_LENGTH.pack(len(piece)) + piece)
