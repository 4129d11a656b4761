"""What becomes of a request when its handler has begun: answered, promised, a coroutine, or an exception."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from haystack.errors import HaystackError, ProtocolError
from haystack.http.answering import AnsweringConnection
from haystack.http.handler import DEFERRED, Outcome
from haystack.http.request import Request
from haystack.http.response import RETRY_SOON, STATUS_LINES
from haystack.http.wire import Phase

if TYPE_CHECKING:
    from haystack.http.answering import Buffer
    from haystack.http.request import RequestHeaders

logger = logging.getLogger(__name__)


class OutcomeConnection(AnsweringConnection):
    """A connection that ends each request in order, whatever its handler did."""

    __slots__ = ()

    def _go_on(self, outcome: Outcome) -> None:
        if outcome is None:
            self._finish()
        elif outcome is DEFERRED:
            self._server.deferred += 1
        else:
            self._server.spawn(outcome, self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            self.abort()
            return
        error = task.exception()
        if error is None:
            self._finish()
        elif isinstance(error, Exception):
            self._answer_exception(error)
        self._pump()

    def finish_deferred(self, error: Exception | None = None) -> None:
        """What a ``DEFERRED`` has promised: the answer was written, or ``error`` is why there is none."""
        self._server.end_deferred()
        if error is None:
            self._finish()
        else:
            self._answer_exception(error)
        self._pump()

    def defer_get(self, line: bytes, headers: RequestHeaders) -> Request:
        """Promise an answer from within ``Handler.fast_get``, which then returns True, for its arguments.

        The answer comes from a callback: by :meth:`finish_promised`, or by ``respond`` and :meth:`finish_deferred`,
        exactly once, also when the client has gone meanwhile.
        """
        target = line[4:-9]  # between "GET " and " HTTP/1.1"
        path = target.decode("ascii")
        request = Request("GET", line, target, path, "", headers, is_http_11=True, origin_form=True)
        self._promise(request)
        return request

    def _promise(self, request: Request) -> None:
        """Be busy with a request that came whole, on a fast way, and is answered by :meth:`finish_promised`."""
        server = self._server
        server.requests += 1
        server.deferred += 1
        self._tick = server.tick
        self._request = request
        self._responded = False
        self._body_left = 0
        self._ready = False
        self._phase = Phase.HANDLING

    def finish_promised(self, head: bytes, body: Buffer) -> None:
        """Answer a promised request, as ``respond_prepared`` and ``finish_deferred`` would.

        Parameters
        ----------
        head, body: as for ``respond_prepared``.
        """
        server = self._server
        if self._phase is not Phase.HANDLING or self._buffer or self._eof or self._write_paused or server.stopping:
            self.respond_prepared(head, body)
            self.finish_deferred()
            return
        server.end_deferred()
        self._request = None
        self._tick = server.tick
        self._phase = Phase.HEAD
        self._ready = True
        self._writelines((head, server.tails.keep, body))

    def _finish(self) -> None:
        """The handler is done with the current request."""
        if self._phase is not Phase.HANDLING:
            return
        if not self._responded:
            self._answer_exception(RuntimeError("the handler ended without an answer"))
            return
        if self._stream_left:
            self._server.count("broken_stream")
            self.abort()
            return
        if not self._may_stay_open():
            self._close()
            return
        self._request = None
        self._phase = Phase.HEAD
        self._tick = self._server.tick

    def _answer_exception(self, error: Exception) -> None:
        if self._phase is Phase.CLOSED or self._phase is Phase.LINGER:
            if not isinstance(error, HaystackError):
                logger.error("the handler failed after its client had gone", exc_info=error)
            return
        if isinstance(error, ProtocolError):
            self._server.count(error.kind)
        elif not isinstance(error, HaystackError):
            self._server.count("handler")
            logger.error("the handler failed", exc_info=error)
        if self._responded:
            self._server.count("broken_stream")
            self.abort()
        elif isinstance(error, HaystackError):
            status = error.http_status if error.http_status in STATUS_LINES else 500
            self.respond_error(status, str(error), RETRY_SOON if status == 503 else b"")
            self._finish()
        else:
            self.respond_error(500, "internal error; see the server's log")
            self._finish()
