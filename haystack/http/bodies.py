"""Receiving the body of a request: framing, the sink that is given it, and what refuses the rest of it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from haystack.errors import ProtocolError, TooLarge
from haystack.http.chunked import ChunkedDecoder
from haystack.http.fast_uploads import UploadingConnection
from haystack.http.response import CONTINUE
from haystack.http.wire import Phase

if TYPE_CHECKING:
    from haystack.http.handler import BodySink
    from haystack.http.request import Request
    from haystack.http.server import Server

logger = logging.getLogger(__name__)


class ReceivingConnection(UploadingConnection):
    """A connection that gives bodies to sinks, piece by piece."""

    __slots__ = ("_body_received", "_chunks", "_continue_due", "_progress_bytes", "_sink")

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._sink: BodySink | None = None
        self._chunks: ChunkedDecoder | None = None
        self._body_received = 0
        self._progress_bytes = 0
        self._continue_due = False

    def pause_body(self) -> None:
        """Neither pieces of the body nor its end come until :meth:`resume_body`."""
        self._body_paused = True
        self._regulate_reading()

    def resume_body(self) -> None:
        """Go on with the body after :meth:`pause_body`. May call the sink before it returns; may be called twice."""
        self._body_paused = False
        self._tick = self._server.tick
        self._pump()

    def _receive_body(self, data: bytes) -> None:
        """A large upload's way: pieces reach the sink without being copied."""
        if self._body_paused or len(data) > self._body_left:
            self._buffer += data
        else:
            self._deliver(data)
        self._pump()

    def _begin_body(self, request: Request, sink: BodySink) -> None:
        self._sink = sink
        self._phase = Phase.BODY
        self._chunks = ChunkedDecoder(self._server.limits) if request.headers.chunked else None
        self._body_received = 0
        self._progress_bytes = 0
        self._continue_due = request.headers.expect_continue
        if self._responded:
            self._after_answer()
        elif self._body_left > sink.max_bytes:
            self._refuse_body(_too_large(sink.max_bytes))

    def _step_body(self) -> bool:
        if not self._body_left:
            self._end_body()
            return True
        if not self._buffer:
            if self._continue_due:
                self._continue_due = False
                self._transport.write(CONTINUE)
            return False
        if self._chunks is not None:
            return self._step_chunk(self._chunks)
        piece = bytes(memoryview(self._buffer)[: self._body_left])
        del self._buffer[: len(piece)]
        self._deliver(piece)
        return True

    def _step_chunk(self, chunks: ChunkedDecoder) -> bool:
        self._continue_due = False
        try:
            piece = chunks.next_piece(self._buffer)
        except ProtocolError as error:
            self._refuse_body(error)
            return False
        if piece is not None:
            self._deliver(piece)
        elif chunks.finished:
            self._body_left = 0
            self._end_body()
        else:
            return False
        return True

    def _deliver(self, piece: bytes) -> None:
        sink = self._sink
        assert sink is not None
        self._continue_due = False
        self._body_received += len(piece)
        self._note_progress(len(piece))
        if self._chunks is None:
            self._body_left -= len(piece)
        elif self._body_received > sink.max_bytes:
            self._refuse_body(_too_large(sink.max_bytes))
            return
        try:
            sink.data(piece)
        except Exception as error:
            self._refuse_body(error)
            return

    def _note_progress(self, count: int) -> None:
        self._progress_bytes += count
        if self._progress_bytes >= self._server.limits.min_progress_bytes:
            self._progress_bytes = 0
            self._tick = self._server.tick

    def _end_body(self) -> None:
        sink, self._sink, self._chunks = self._sink, None, None
        assert sink is not None
        self._phase = Phase.HANDLING
        self._body_paused = False
        try:
            outcome = sink.end()
        except Exception as error:
            self._answer_exception(error)
            return
        self._go_on(outcome)

    def _refuse_body(self, error: Exception) -> None:
        """Give up a body that is on its way: the sink forgets it, the client gets the reason, the rest is discarded."""
        self._phase = Phase.HANDLING
        self._abort_sink()
        self._answer_exception(error)

    def _abort_sink(self) -> None:
        sink, self._sink, self._chunks = self._sink, None, None
        if sink is None:
            return
        try:
            sink.abort()
        except Exception:
            logger.exception("aborting an upload failed")
            self._server.count("handler")

    def _after_answer(self) -> None:
        if self._phase is Phase.BODY:  # The sink answered before the body was complete: nobody wants the rest.
            self._abort_sink()
            self._close()


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"the body is larger than the limit of {max_bytes} bytes")
