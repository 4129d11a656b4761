"""One client connection: reads requests, hands them to the handler, writes the answers.

Two ways lead from received bytes to the handler.

**The strict way.** Bytes are collected up to the empty line, parsed by :class:`~haystack.http.head.HeadParser`, the
body is framed by ``Content-Length`` or :class:`~haystack.http.chunked.ChunkedDecoder`, and the next head begins where
the body ended. One request is handled at a time; what a client sends meanwhile waits in a bounded buffer, and then in
its socket.

**The fast way**, for what a photo store does most: ``data_received`` with exactly one plain GET. The bytes are cut into
request line and header block: at the first CRLF, or before the block of the connection's last request when they end
with that (what stands before it may then hold line ends, and is no line that a handler knows). The block must be one
that the strict way has parsed before, in a request that was HTTP/1.1, keep-alive, without a body, Expect, Upgrade or
conditions; the line must be one that the handler has seen on the strict way, or of a form so plain that it cannot be
refused there (see ``Handler.fast_get``). This accepts nothing that the strict way would not, and gives it the same
meaning:

1. A head is a line, and a block that begins with its CRLF and ends with the first empty line; the strict way cuts at
   the same place. The block in the cache ends with its only empty line, so nothing is behind the request.
2. Line and block are judged separately by every rule in :mod:`haystack.http.head`, except three which look at both: the
   version (Host, Expect, Transfer-Encoding and keep-alive depend on it), which is HTTP/1.1 in both; the limit on the
   bytes of both together, which is why the limits make room for a longest line beside a longest cached block; and the
   form of the target, which is an absolute path in cached lines, so that Host means the same for all.
3. It is taken only when the connection is at the start of a request with nothing buffered before it.

On the strict way, a head whose block was parsed before is not parsed again either, whatever the method (see
``Server.parse_head``): line and block are cut and limited as ever, the line must be ``METHOD /path HTTP/1.1`` of plain
characters alone, which no rule can refuse, and point 2 holds. Blocks with Upgrade or Transfer-Encoding always go
through the parser.

What a connection is apart from heads: its transport (:mod:`haystack.http.wire`), answering (``answering``), plain
uploads (``fast_uploads``), the outcomes of handlers (``outcomes``), bodies (``bodies``), each built on the one before.

Slow clients: nothing here has a timer. The server's sweep calls :meth:`HttpConnection.check` once a second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING

from haystack.errors import ClientGone, ProtocolError
from haystack.http.bodies import ReceivingConnection
from haystack.http.handler import DEFERRED
from haystack.http.head import MAX_BLANK_LINES, find_head_end
from haystack.http.wire import Phase

if TYPE_CHECKING:
    from haystack.http.request import Request, RequestHeaders
    from haystack.http.server import Server

logger = logging.getLogger(__name__)

_NO_BLOCK = b"\r\n\0"
"""The header block of no request."""

_P = b"P"
"""PUT, POST and PATCH begin with it; their fast way is in :mod:`haystack.http.fast_uploads`."""


class HttpConnection(ReceivingConnection):
    """Protocol of one connection, made by its :class:`~haystack.http.server.Server`."""

    __slots__ = (
        "_blank_lines",
        "_block",
        "_block_bytes",
        "_block_headers",
        "_blocks",
        "_fast_get",
        "_head_tick",
        "_pumping",
        "_scanned",
        "_turn_scheduled",
    )

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._fast_get = server.handler.fast_get
        self._blocks = server.header_blocks
        self._block = _NO_BLOCK
        """The header block of the last request on the fast way: a client usually sends the same with each request."""
        self._block_bytes = len(_NO_BLOCK)
        self._block_headers: RequestHeaders | None = None
        self._scanned = 0
        self._blank_lines = 0
        self._head_tick = 0.0
        """When a head began to arrive; 0 when none did."""
        self._pumping = False
        self._turn_scheduled = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._attach(transport)
        if self._server.admit(self):
            self._ready = True
            if self._server.stopping:  # Accepted by the kernel before the listener was closed.
                self._close()
        elif self._server.turns_away_at_once:
            self._server.count("connection_limit")
            self.abort()
        else:
            self._fail(ProtocolError("too many connections; try again later", 503, "connection_limit"))

    def data_received(self, data: bytes) -> None:
        # In line, as few calls as can be: this is what a photo store does all day.
        if self._ready:
            if data.endswith(self._block):  # as in this connection's last request: neither looked for nor hashed
                headers, cut = self._block_headers, -self._block_bytes
            else:
                cut = data.find(b"\r\n")
                headers = self._known_block(data, cut)
            if headers is not None:
                try:
                    if self._fast_get(self, data[:cut], headers):
                        return
                except Exception:
                    self._fast_way_failed(data[:cut])
                    return
            elif data[:1] == _P:
                try:
                    if self._take_upload(data):
                        return
                except Exception:
                    self._fast_way_failed(data[:80])
                    return
        self._receive(data)

    def _known_block(self, data: bytes, cut: int) -> RequestHeaders | None:
        """The header block behind ``cut`` if it is one for the fast way; it is expected again with the next request."""
        if data[:1] == _P:
            return None
        block = data[cut:]
        headers = self._blocks.get(block)
        if headers is not None:
            self._block, self._block_bytes, self._block_headers = block, len(block), headers
        return headers

    def eof_received(self) -> bool:
        """The client will send nothing more; it may still want the answers to what it has sent."""
        self._eof = True
        self._ready = False
        if self._phase is Phase.HANDLING:
            return True
        return self._phase is Phase.HEAD and bool(self._buffer) and (self._write_paused or self._turn_scheduled)

    def connection_lost(self, error: Exception | None) -> None:
        aborted = self._phase is Phase.BODY
        self._phase = Phase.CLOSED
        self._ready = False
        self._buffer.clear()
        self._server.forget(self)
        self._give_back()
        if aborted:
            self._server.count("aborted")
            self._abort_sink()
        if self._drain_waiter is not None and not self._drain_waiter.done():
            self._drain_waiter.set_exception(ClientGone("the client closed its connection"))

    def _fast_way_failed(self, line: bytes) -> None:
        logger.exception("the handler failed on %r", line)
        self._server.count("handler")
        self.abort()

    def _receive(self, data: bytes) -> None:
        self._ready = False
        if self._phase is Phase.LINGER:
            self._discard(len(data))
        elif self._phase is Phase.BODY and self._chunks is None and not self._buffer and not self._pumping:
            self._receive_body(data)
        elif self._phase is not Phase.CLOSED:
            self._buffer += data
            self._pump()

    def _pump(self) -> None:
        """Go on as far as the input and the client's reading allow. Not entered twice."""
        if self._pumping:
            return
        self._pumping = True
        try:
            turns = self._server.limits.max_requests_per_turn
            while self._step():
                turns -= self._phase is Phase.HEAD
                if not turns:
                    self._take_turns()
                    break
        finally:
            self._pumping = False
        self._settle()

    def _take_turns(self) -> None:
        if not self._turn_scheduled:
            self._turn_scheduled = True
            self._server.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._turn_scheduled = False
        self._pump()

    def _step(self) -> bool:
        """Do one thing; False when there is nothing to do now."""
        if self._phase is Phase.HEAD:
            return bool(self._buffer) and not self._write_paused and not self._turn_scheduled and self._step_head()
        if self._phase is Phase.BODY:
            return not self._body_paused and self._step_body()
        return False

    def _settle(self) -> None:
        """After the input was worked off as far as possible: what to wait for now."""
        if self._phase is Phase.HEAD:
            waiting = self._write_paused or self._turn_scheduled
            if self._eof and not waiting:
                self._close()
                return
            if not self._buffer:
                self._head_tick = 0.0
                self._ready = not waiting and not self._server.stopping
            elif not self._head_tick and not waiting:
                self._head_tick = self._server.tick
        self._regulate_reading()

    def _step_head(self) -> bool:
        buffer = self._buffer
        try:
            if buffer[0] in b"\r\n":
                return self._skip_blank_line()
            end = find_head_end(buffer, self._scanned, self._server.limits)
            if end < 0:
                self._scanned = len(buffer)
                return False
            head = bytes(memoryview(buffer)[:end])
            request = self._server.parse_head(head)
        except ProtocolError as error:
            self._fail(error)
            return False
        del buffer[:end]
        self._scanned = self._blank_lines = 0
        self._head_tick = 0.0
        self._dispatch(request)
        return True

    def _skip_blank_line(self) -> bool:
        if not b"\r\n".startswith(self._buffer[:2]):
            raise ProtocolError("malformed request: it must begin with a method")
        if len(self._buffer) < 2:
            return False
        self._blank_lines += 1
        if self._blank_lines > MAX_BLANK_LINES:
            raise ProtocolError("malformed request: nothing but empty lines")
        del self._buffer[:2]
        return True

    def _dispatch(self, request: Request) -> None:
        server = self._server
        server.requests += 1
        self._tick = server.tick
        self._request = request
        self._responded = False
        self._phase = Phase.HANDLING
        self._body_left = -1 if request.headers.chunked else request.headers.content_length or 0
        try:
            outcome = self._handler.begin(self, request)
        except Exception as error:
            self._answer_exception(error)
            return
        if outcome is None or outcome is DEFERRED or isinstance(outcome, Coroutine):
            self._go_on(outcome)
        else:
            self._begin_body(request, outcome)

    def _fail(self, error: ProtocolError) -> None:
        """Answer what is no request, and close."""
        self._server.count(error.kind)
        self._ready = False
        self._request = None
        self._body_left = -1
        self._phase = Phase.HANDLING
        self._responded = False
        self.respond_error(error.http_status, str(error))
        self._close()

    def stop(self) -> None:
        """The server is stopping: close when idle, else after the request that is being handled."""
        self._ready = False
        if self._phase is Phase.HEAD and not self._buffer:
            self._close()

    def check(self, tick: float) -> None:
        """Close the connection when its client is too slow. Called about once a second with the server's clock."""
        limits = self._server.limits
        if self._phase is Phase.LINGER:
            self._check_linger(tick)
        elif self._check_output(tick):
            return
        elif self._phase is Phase.BODY:
            if not self._body_paused and tick - self._tick >= limits.stall_timeout_seconds:
                self._refuse_body(ProtocolError("the body did not arrive in time", 408, "timeout"))
        elif self._phase is Phase.HEAD:
            if self._head_tick:
                if tick - self._head_tick >= limits.header_timeout_seconds:
                    self._fail(ProtocolError("the request header did not arrive in time", 408, "timeout"))
            elif tick - self._tick >= limits.idle_timeout_seconds:
                self._server.count("idle")
                self._close()
