"""What the server asks of the program behind it.

A handler gets each request through :meth:`Handler.begin` when its head was parsed and before any of its body was
read. It then does one of these:

- answers at once with ``connection.respond(…)`` (or ``respond_prepared``) and returns None. When the request has a
  body, it is not read: the connection is closed after the answer (so that an upload can be refused at once);
- returns a coroutine, which the server runs as a task and which answers. Same for the body;
- returns a :class:`BodySink`, which is given the body and then answers;
- returns ``DEFERRED``: something else will answer and then call ``connection.finish_deferred()`` exactly once, also
  when the client has gone meanwhile. That is a coroutine without the cost of a task;
- raises: a :class:`~haystack.errors.HaystackError` is answered with its ``http_status`` and message as JSON (503 with
  ``Retry-After``), anything else is logged and answered 500.

Requests of a connection are handled strictly one after the other, so a handler has one request at a time per
connection. A coroutine is not cancelled when the client goes away: what it began it may finish; ``drain`` and ``send``
raise :class:`~haystack.errors.ClientGone` then, and ``respond`` does nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from haystack.http.connection import HttpConnection
    from haystack.http.fast_uploads import UploadingConnection
    from haystack.http.request import Request, RequestHeaders


class Deferred(enum.Enum):
    """Type of :data:`DEFERRED`."""

    DEFERRED = enum.auto()


DEFERRED: Final = Deferred.DEFERRED
"""The answer comes later, from a callback."""

Outcome = Coroutine[Any, Any, None] | Deferred | None
"""What becomes of a request whose body, if any, is complete."""


class BodySink(Protocol):
    """Takes the body of one request.

    For back-pressure a sink may call ``connection.pause_body()`` and ``resume_body()``; while it is paused neither
    ``data`` nor ``end`` is called. It may answer before the body is complete (an error): then the rest is discarded,
    ``abort`` is called and the connection is closed.
    """

    @property
    def max_bytes(self) -> int:
        """The longest body to accept; a longer one, declared or chunked, is answered 413."""

    def data(self, piece: bytes) -> None:
        """The next piece of the body, never empty. May raise, which refuses the rest of the body."""

    def end(self) -> Outcome:
        """The body is complete. Answers at once and returns None, or returns a coroutine that answers, or DEFERRED."""

    def abort(self) -> None:
        """The body will not be completed: leave nothing behind. Called at most once and never after ``end``."""


class Handler(Protocol):
    """The program behind the server."""

    def fast_get(self, connection: HttpConnection, request_line: bytes, headers: RequestHeaders) -> bool:
        """Answer a plain GET or HEAD at once through ``connection.respond_prepared``, or return False.

        A GET may also be promised an answer, with ``connection.defer_get``.

        Parameters
        ----------
        request_line: as received and **unchecked**; it may even hold line ends. Only a line may be answered which is
            equal to the ``cacheable_line`` of a request that came through :meth:`begin`, or which wholly matches a
            pattern that is a part of ``GET <path> HTTP/1.1`` (or HEAD) with single spaces, where the path begins with
            ``/``, is shorter than ``max_target_bytes`` and has no character beside letters, digits and ``-._~,@/``.
        headers: strictly parsed, always ``plain``, without a body, HTTP/1.1, keep-alive.

        When False is returned nothing must have been written; the request then goes through :meth:`begin`.
        """

    def fast_put(
        self, connection: UploadingConnection, request_line: bytes, headers: RequestHeaders, body: bytes
    ) -> bool:
        """Take a plain upload, or return False; then nothing must have been done, and it goes through :meth:`begin`.

        When True is returned, the answer must come later, from a callback: by ``connection.finish_promised``, or
        ``connection.finish_deferred`` with an error, exactly once, also when the client has gone meanwhile.

        Parameters
        ----------
        request_line: as received and **unchecked**. Only a line may be taken that wholly matches a pattern which is a
            part of ``PUT <path> HTTP/1.1`` (or POST), with the rules for the path as in :meth:`fast_get`.
        headers: strictly parsed, of a request with a body of known length, without Expect, HTTP/1.1, keep-alive.
        body: all of it, at least one byte.
        """

    def begin(self, connection: HttpConnection, request: Request) -> BodySink | Outcome:
        """Begin with a request, as described at the top of the module."""


class Observer(Protocol):
    """Is told what the server itself counts; a process may put it into shared memory."""

    def connection_opened(self) -> None:
        """A connection was accepted."""

    def connection_closed(self) -> None:
        """A connection that was opened is gone."""

    def responded(self, status: int) -> None:
        """An answer was begun, in any way but ``respond_prepared`` (its caller knows the status)."""

    def refused(self, kind: str) -> None:
        """Something went wrong that is no handler's answer.

        ``kind``: ``malformed``, ``too_large``, ``unsupported`` (4xx, 5xx by the server), ``timeout`` (408), ``idle``,
        ``stalled`` (a client that does not read), ``aborted`` (an upload whose client went away),
        ``connection_limit``, ``handler`` (an exception that is no HaystackError), ``broken_stream`` (an answer cut
        off by us).
        """
