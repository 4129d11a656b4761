"""The answering side of a connection: what handlers write through."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from haystack.errors import ClientGone
from haystack.http.response import BODILESS_STATUSES, JSON_TYPE, NO_STORE, STATUS_LINES, error_body
from haystack.http.wire import Lender, Phase, Wire

if TYPE_CHECKING:
    from haystack.http.request import Request
    from haystack.http.server import Server

Buffer = bytes | bytearray | memoryview

JOINED_ANSWER_BYTES = 16 * 1024
"""Answers below this are copied into one piece: cheaper than to have the kernel gather three."""


class AnsweringConnection(Wire):
    """A connection as its handler sees it when it answers the current request."""

    __slots__ = ("_request", "_responded", "_stream_left")

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._request: Request | None = None
        self._responded = False
        self._stream_left = 0
        """Bytes of a streamed answer that were announced and not sent yet."""

    def _after_answer(self) -> None:
        """An answer was written; look whether it came before the end of the request's body."""
        raise NotImplementedError

    def respond_prepared(self, head: bytes, body: Buffer | None) -> None:
        """Answer with a head from :func:`~haystack.http.response.prepared_head`.

        Parameters
        ----------
        body: exactly as long as the head says; None for HEAD (and 304, 204). Not copied: it must not change until
            it was sent, so give a buffer that nobody writes to again.
        """
        if self._ready:
            self.respond_fast(head, b"" if body is None else body)
            return
        if not self._begin_answer():
            return
        self._writelines((head, self._tail()) if body is None or self.head_only else (head, self._tail(), body))
        self._after_answer()

    def respond_fast(self, head: bytes, body: Buffer) -> None:
        """As :meth:`respond_prepared`, from within ``Handler.fast_get`` alone.

        Parameters
        ----------
        body: may change afterwards when it is shorter than ``JOINED_ANSWER_BYTES``.
        """
        server = self._server
        server.requests += 1
        self._tick = server.tick
        if len(body) < JOINED_ANSWER_BYTES:
            self._write(b"".join((head, server.tails.keep, body)))
        else:
            self._writelines((head, server.tails.keep, body))

    def respond_fast_lent(self, head: bytes, body: Buffer, lender: Lender) -> None:
        """As :meth:`respond_fast`, with a body that will be something else as soon as its lender may use it again.

        Parameters
        ----------
        head: with :attr:`fast_tail` at its end.
        lender: keeps the memory as it is, if the client is slower than we are.
        """
        server = self._server
        server.requests += 1
        self._tick = server.tick
        if len(body) < JOINED_ANSWER_BYTES:
            self._write(b"".join((head, body)))
        else:
            self._write_lent((head, body), lender)

    @property
    def fast_tail(self) -> bytes:
        """The last lines of a head on the fast way, Date among them. Right for a second."""
        return self._server.tails.keep

    def respond(
        self, status: int, headers: bytes = b"", body: Buffer = b"", *, content_length_bytes: int | None = None
    ) -> None:
        """Answer the current request.

        Parameters
        ----------
        headers: lines as from :func:`~haystack.http.response.header_block`; Date, Server, Content-Length and
            Connection are added here.
        body: not copied, see :meth:`respond_prepared`; not sent to HEAD.
        content_length_bytes: for HEAD without a body at hand: the length that GET would send.
        """
        self.respond_gathered(status, headers, (body,), content_length_bytes=content_length_bytes)

    def respond_gathered(
        self,
        status: int,
        headers: bytes,
        body: Sequence[Buffer],
        *,
        content_length_bytes: int | None = None,
        lender: Lender | None = None,
    ) -> None:
        """As :meth:`respond`, with a body in several pieces.

        Parameters
        ----------
        lender: of their memory, when they are only lent.
        """
        if not self._begin_answer():
            return
        self._server.responded(status)
        pieces: list[Buffer] = [STATUS_LINES[status], headers]
        if status not in BODILESS_STATUSES:
            length = sum(map(len, body)) if content_length_bytes is None else content_length_bytes
            pieces.append(b"Content-Length: %d\r\n" % length)
        pieces.append(self._tail())
        if not self.head_only and status not in BODILESS_STATUSES:
            pieces += [piece for piece in body if len(piece)]
        if lender is None:
            self._writelines(pieces)
        else:
            self._write_lent(pieces, lender)
        self._after_answer()

    def respond_error(self, status: int, message: str, headers: bytes = b"") -> None:
        """Answer with ``{"error": message}``, which no proxy may keep."""
        self.respond(status, JSON_TYPE + NO_STORE + headers, error_body(message))

    def start_stream(self, status: int, headers: bytes, content_length_bytes: int) -> None:
        """Write the head of an answer whose body follows through :meth:`send`, ``content_length_bytes`` in all."""
        if not self._begin_answer():
            return
        self._server.responded(status)
        length = b"Content-Length: %d\r\n" % content_length_bytes
        self._writelines((STATUS_LINES[status], headers, length, self._tail()))
        self._stream_left = 0 if self.head_only else content_length_bytes

    async def send(self, piece: Buffer) -> None:
        """Send the next piece of a stream, waiting while the client is slower than we are.

        Raises :class:`ClientGone` when there is nobody left to send to.
        """
        if self._phase is not Phase.HANDLING:
            raise ClientGone("the client closed its connection")
        self._announced(len(piece))
        self._transport.write(piece)
        if self._write_paused:
            await self.drain()

    async def send_lent(self, piece: Buffer, lender: Lender) -> None:
        """As :meth:`send`, for memory that may be something else as soon as this returns."""
        if self._phase is not Phase.HANDLING:
            raise ClientGone("the client closed its connection")
        self._announced(len(piece))
        self._write_lent((piece,), lender)
        if self._write_paused:
            await self.drain()

    def _announced(self, count: int) -> None:
        if count > self._stream_left:
            raise ValueError(f"a piece of {count} bytes is more than the {self._stream_left} announced and left")
        self._stream_left -= count

    async def respond_stream(
        self, status: int, headers: bytes, content_length_bytes: int, pieces: AsyncIterator[Buffer]
    ) -> None:
        """Answer with a body that is made piece by piece; memory stays bounded by one piece and the write buffer.

        When ``pieces`` fails or ends early, the connection is reset so that the client sees a short body.
        """
        self.start_stream(status, headers, content_length_bytes)
        if self.head_only:
            return
        async for piece in pieces:
            await self.send(piece)

    @property
    def responded(self) -> bool:
        """Whether the answer to the current request was begun."""
        return self._responded

    @property
    def head_only(self) -> bool:
        """The current request is HEAD: no body is sent."""
        return self._request is not None and self._request.method == "HEAD"

    def _begin_answer(self) -> bool:
        """Whether there is somebody to answer to. A second answer to one request is a bug of the handler."""
        if self._phase is Phase.CLOSED or self._phase is Phase.LINGER:
            return False
        if self._phase is Phase.HEAD or self._responded:
            raise RuntimeError("the handler answered a request twice")
        self._responded = True
        return True

    def _tail(self) -> bytes:
        tails = self._server.tails
        if not self._may_stay_open():
            return tails.close
        assert self._request is not None
        return tails.keep if self._request.is_http_11 else tails.keep_http_10

    def _may_stay_open(self) -> bool:
        request = self._request
        if request is None or self._body_left or self._server.stopping:
            return False
        if self._eof and not self._buffer:
            return False
        return request.keep_alive
