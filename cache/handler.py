"""What a worker of a Cache answers: hits, questions to the keeper, and the few pages about itself."""

from __future__ import annotations

from collections.abc import Callable

from cache import clock
from cache.answers import HIT, answer
from cache.board import Board, Cell, Counter, Histogram, Tally
from cache.hits import HitPath
from cache.memory import MemoryReader
from cache.misses import Misses, Name
from cache.names import PhotoTarget, parse_path
from cache.signatures import Signatures
from haystack.http.connection import HttpConnection
from haystack.http.fast_uploads import UploadingConnection
from haystack.http.handler import BodySink, Outcome
from haystack.http.pages import AboutPages
from haystack.http.request import Request, RequestHeaders
from haystack.http.response import header_block

ALLOW = header_block([("Allow", "GET, HEAD")])

_METHODS = {"GET": Counter.GET, "HEAD": Counter.HEAD}


class CacheHandler:
    """The :class:`~haystack.http.handler.Handler` of a Cache's worker.

    Parameters
    ----------
    metrics: makes the page for Prometheus, the whole node included.
    wall_clock: seconds since 1970, for photos that have an end.
    """

    def __init__(
        self,
        board: Board,
        hits: HitPath,
        reader: MemoryReader,
        misses: Misses,
        signatures: Signatures,
        tally: Tally,
        metrics: Callable[[], bytes],
        wall_clock: Callable[[], float],
    ) -> None:
        self._board = board
        self._hits = hits
        self._reader = reader
        self._misses = misses
        self._signatures = signatures
        self._tally = tally
        self._wall_clock = wall_clock
        self.fast_get = hits.fast_get
        self._pages = AboutPages(self._why_not_ready, metrics)

    fast_get: Callable[[HttpConnection, bytes, RequestHeaders], bool]

    def fast_put(
        self, connection: UploadingConnection, request_line: bytes, headers: RequestHeaders, body: bytes
    ) -> bool:
        """Nothing is uploaded to a Cache; the strict way says so."""
        return False

    def begin(self, connection: HttpConnection, request: Request) -> BodySink | Outcome:
        """Begin with a request, see ``haystack.http.handler.Handler.begin``."""
        self._tally.add(_METHODS.get(request.method, Counter.OTHER))
        return self._route(connection, request)

    def _route(self, connection: HttpConnection, request: Request) -> BodySink | Outcome:
        if request.method not in _METHODS:
            connection.respond_error(405, f"{request.method} is not possible at a Cache; ask a Store", ALLOW)
            return None
        if self._pages.answer(connection, request.path):
            return None
        target = parse_path(request.path)
        if request.query:
            request.query_value("e")  # one that cannot be read is refused before anything else, as a Store does
        if isinstance(target, PhotoTarget):
            return self._misses.ask_photo(connection, request, target)
        fid = target.fid
        name = Name(fid.volume, fid.key, fid.cookie, fid.alternate)
        if target.offset is not None:
            return self._misses.ask(connection, request, name, passes=True)
        started = clock.now_ns()
        record = self._reader.find(*name)
        if record is None or not self._hits.vouches(fid.volume, record, started):
            return self._misses.ask(connection, request, name)
        if record.expires and self._wall_clock() >= record.expires:
            return self._misses.ask(connection, request, name)
        private_until = self._signatures.shown_until(request, fid, record.flags)
        self._reader.hit(record)
        sent_bytes = answer(connection, request, record, HIT, private_until)
        self._tally.add(Counter.HITS)
        self._tally.add(Counter.HIT_BYTES, sent_bytes)
        self._tally.took(Histogram.HIT, clock.now_ns() - started)
        return None

    def _why_not_ready(self) -> str | None:
        cells = self._board.cells
        if cells[Cell.STOPPING]:
            return "stopping"
        if not cells[Cell.READY]:
            return "not all workers run yet; try again soon"
        return None if self._misses.keeper_answers else "the keeper of this Cache does not answer"
