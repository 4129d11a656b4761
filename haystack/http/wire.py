"""The transport's side of a connection: phases, back-pressure in both directions, closing, slow clients.

Nothing here knows what a request is; :class:`~haystack.http.connection.HttpConnection` is built on top.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, cast

from haystack.errors import ClientGone

if TYPE_CHECKING:
    from haystack.http.server import Server


class Phase(enum.Enum):
    """What the connection is doing."""

    HEAD = enum.auto()
    """Waiting for a request, or in the middle of its head."""
    BODY = enum.auto()
    """A sink is being given the body."""
    HANDLING = enum.auto()
    """The handler has the request; its answer is awaited."""
    LINGER = enum.auto()
    """The last answer was written; input is discarded until the client closes."""
    CLOSED = enum.auto()
    """Closed, or closing as soon as the last answer is out."""


class Lender(Protocol):
    """Lends memory out of which something is sent, and will use it again."""

    def pin(self) -> None:
        """Some of it could not be sent at once: leave it as it is."""

    def unpin(self) -> None:
        """All of it is out, or nobody wants it any more. Called once for each :meth:`pin`."""


class Wire(asyncio.Protocol):
    """What a connection is when the requests are left out."""

    __slots__ = (
        "_aborted",
        "_body_left",
        "_body_paused",
        "_buffer",
        "_drain_waiter",
        "_eof",
        "_gathers",
        "_lender",
        "_linger_tick",
        "_lingered_bytes",
        "_pending_seen",
        "_phase",
        "_reading_paused",
        "_ready",
        "_server",
        "_tick",
        "_transport",
        "_write",
        "_write_paused",
        "_write_tick",
        "_writelines",
    )

    _transport: asyncio.Transport

    def __init__(self, server: Server) -> None:
        self._server = server
        self._phase = Phase.HEAD
        self._ready = False
        """The fast way is open: at the start of a request, nothing buffered, output flowing, not stopping."""
        self._buffer = bytearray()
        """Input that was received and not yet processed."""
        self._body_left = 0
        """Bytes of the current request's body that were not taken yet; -1 when it is not known."""
        self._body_paused = False
        self._aborted = False
        self._gathers = False
        """The transport gathers output until the end of the loop's turn."""
        self._eof = False
        """The client has half-closed: it sends nothing more."""
        self._drain_waiter: asyncio.Future[None] | None = None
        self._lender: Lender | None = None
        """Whose memory the transport still has to send."""
        self._reading_paused = False
        self._write_paused = False
        self._tick = server.tick
        """When the client last did something, by the server's tick."""
        self._write_tick = 0.0
        self._pending_seen = 0
        self._linger_tick = 0.0
        self._lingered_bytes = 0

    def _attach(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has the methods, not the base class.
        self._write = self._transport.write
        self._writelines = self._transport.writelines
        self._gathers = self._server.limits.write_buffer_bytes > 0
        self._transport.set_write_buffer_limits(high=self._server.limits.write_buffer_bytes)

    def _pump(self) -> None:
        """Go on with the input; called when output flows again."""
        raise NotImplementedError

    def _abort_sink(self) -> None:
        """Forget the body that is being received."""
        raise NotImplementedError

    def pause_writing(self) -> None:
        self._write_paused = True
        self._ready = False

    def resume_writing(self) -> None:
        self._write_paused = False
        self._pending_seen = 0
        if self._lender is not None:
            self._give_back()
        if self._drain_waiter is not None and not self._drain_waiter.done():
            self._drain_waiter.set_result(None)
        self._pump()

    def _write_lent(self, pieces: Sequence[bytes | bytearray | memoryview], lender: Lender) -> None:
        """Write memory that is only lent: what the kernel does not take at once keeps it pinned until it is out.

        Nothing is gathered here until the end of the loop's turn: then the memory may be another photo's.
        """
        if self._gathers:
            self._transport.set_write_buffer_limits(high=0)
        self._writelines(pieces)
        if self._write_paused:  # and so no further request is begun before all of it is out
            lender.pin()
            self._lender = lender
        elif self._gathers:
            self._transport.set_write_buffer_limits(high=self._server.limits.write_buffer_bytes)

    def _give_back(self) -> None:
        lender, self._lender = self._lender, None
        if lender is not None:
            lender.unpin()
            if self._gathers and self._phase is not Phase.CLOSED:
                self._transport.set_write_buffer_limits(high=self._server.limits.write_buffer_bytes)

    @property
    def closed(self) -> bool:
        """The client can no longer be answered."""
        return self._phase is Phase.CLOSED or self._phase is Phase.LINGER

    @property
    def peer(self) -> str:
        """Address of the client, for messages."""
        return str(self._transport.get_extra_info("peername"))

    @property
    def has_unsent(self) -> bool:
        """Whether the client has not taken all of what was written."""
        return not self._aborted and self._transport.get_write_buffer_size() > 0

    async def drain(self) -> None:
        """Wait until the client has taken enough of what was written. Raises :class:`ClientGone`."""
        if self._phase is Phase.CLOSED:
            raise ClientGone("the client closed its connection")
        while self._write_paused:
            self._drain_waiter = asyncio.get_running_loop().create_future()
            try:
                await self._drain_waiter
            finally:
                self._drain_waiter = None

    def _regulate_reading(self) -> None:
        if self._phase is Phase.CLOSED:
            return
        full = len(self._buffer) >= self._server.limits.max_pipeline_bytes
        pause = full or (self._phase is Phase.BODY and self._body_paused)
        if pause != self._reading_paused:
            self._reading_paused = pause
            if pause:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def _close(self) -> None:
        """Close after what was written is out; linger when the client may still be sending."""
        self._ready = False
        if self._body_left or self._buffer:
            self._phase = Phase.LINGER
            self._linger_tick = self._tick = self._server.tick
            self._buffer.clear()
            self._regulate_reading()
            if not self._eof:
                self._transport.write_eof()
                return
        self._phase = Phase.CLOSED
        self._transport.close()

    def abort(self) -> None:
        """Reset the connection now; what was not sent yet is lost."""
        self._ready = False
        if self._phase is Phase.BODY:
            self._abort_sink()
        self._phase = Phase.CLOSED
        self._aborted = True
        self._transport.abort()

    def _discard(self, count: int) -> None:
        self._lingered_bytes += count
        self._tick = self._server.tick
        if self._lingered_bytes > self._server.limits.max_linger_bytes:
            self.abort()

    def _check_linger(self, tick: float) -> None:
        limits = self._server.limits
        quiet = tick - self._tick >= limits.linger_idle_seconds
        if quiet or tick - self._linger_tick >= limits.linger_timeout_seconds:
            self.abort()

    def _check_output(self, tick: float) -> bool:
        """Whether output waits for the client; resets the connection when it has not moved for too long."""
        pending = 0 if self._aborted else self._transport.get_write_buffer_size()
        if not pending:
            self._pending_seen = 0
            return False
        limits = self._server.limits
        moved = pending <= self._pending_seen - limits.min_progress_bytes
        if moved or not self._pending_seen or pending > self._pending_seen:
            self._pending_seen, self._write_tick = pending, tick
        elif tick - self._write_tick >= limits.stall_timeout_seconds:
            self._server.count("stalled")
            self.abort()
        return True
