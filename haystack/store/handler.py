"""What a worker answers: routes requests of the data path to reads, writes and the few pages about itself."""

from __future__ import annotations

from collections.abc import Callable

from haystack.http.connection import HttpConnection
from haystack.http.fast_uploads import UploadingConnection
from haystack.http.handler import BodySink, Outcome
from haystack.http.pages import AboutPages
from haystack.http.request import Request, RequestHeaders
from haystack.http.response import header_block
from haystack.store.control import ControlBlock
from haystack.store.control_cells import Counter, Header
from haystack.store.fast_reads import FastReader
from haystack.store.fast_writes import FastWriter
from haystack.store.multi import MultiSink
from haystack.store.reads import Reader
from haystack.store.replication.passing_on import Forwarder
from haystack.store.replication.receiving import PREFIX, Receiver
from haystack.store.tally import Tally
from haystack.store.targets import parse_multi, parse_target
from haystack.store.writes import Writer, is_set

ALLOW = header_block([("Allow", "GET, HEAD, PUT, POST, DELETE")])

_COUNTERS = {
    "GET": Counter.GET,
    "HEAD": Counter.HEAD,
    "PUT": Counter.PUT,
    "POST": Counter.PUT,
    "DELETE": Counter.DELETE,
}

Begun = BodySink | Outcome


class StoreHandler:
    """The :class:`~haystack.http.handler.Handler` of a Store's worker.

    Parameters
    ----------
    metrics: makes the page for Prometheus, all workers included.
    """

    def __init__(
        self,
        control: ControlBlock,
        fast: FastReader,
        reader: Reader,
        writer: Writer,
        receiver: Receiver,
        forwarder: Forwarder,
        tally: Tally,
        metrics: Callable[[], bytes],
    ) -> None:
        self._control = control
        self._reader = reader
        self._writer = writer
        self._receiver = receiver
        self._forwarder = forwarder
        self._tally = tally
        self.fast_get = fast.fast_get
        self.fast_put = FastWriter(writer).fast_put
        self._pages = AboutPages(self._why_not_ready, metrics)

    fast_get: Callable[[HttpConnection, bytes, RequestHeaders], bool]
    fast_put: Callable[[UploadingConnection, bytes, RequestHeaders, bytes], bool]

    def begin(self, connection: HttpConnection, request: Request) -> Begun:
        """Begin with a request, see ``haystack.http.handler.Handler.begin``."""
        self._tally.add(_COUNTERS.get(request.method, Counter.OTHER))
        return self._route(connection, request)

    def _route(self, connection: HttpConnection, request: Request) -> Begun:
        if request.method in ("GET", "HEAD"):
            if self._pages.answer(connection, request.path):
                return None
            return self._reader.begin(connection, request, parse_target(request.path))
        if request.path.startswith(PREFIX):
            return self._receiver.begin(connection, request)
        if request.method in ("PUT", "POST"):
            volume = parse_multi(request.path)
            if volume is not None:
                passing = self._forwarder.begin(connection, request, volume)
                return passing or MultiSink(self._writer, connection, request, self._writer.writable(volume))
            target = parse_target(request.path)
            passing = self._forwarder.begin(connection, request, target.fid.volume)
            if passing is not None:
                return passing
            if request.query and request.method == "POST" and is_set(request, "undelete"):
                return self._writer.undelete(connection, target)
            return self._writer.begin_upload(connection, request, target)
        if request.method == "DELETE":
            target = parse_target(request.path)
            passing = self._forwarder.begin(connection, request, target.fid.volume)
            return passing or self._writer.delete(connection, request, target)
        connection.respond_error(405, f"{request.method} is not possible here", ALLOW)
        return None

    def _why_not_ready(self) -> str | None:
        cells = self._control.cells
        if cells[Header.STOPPING]:
            return "stopping"
        return None if cells[Header.READY] else "volumes are still being recovered; try again soon"
