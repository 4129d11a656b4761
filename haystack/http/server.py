"""The server: listens, keeps the live connections and what they share, closes slow ones, stops gracefully.

One server belongs to one event loop (uvloop in production, any asyncio loop in tests). What connections share is kept
here once: limits, handler, the parser of heads, the cache of parsed header blocks, the Date of the second.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from haystack.http.connection import HttpConnection
from haystack.http.dates import format_http_date
from haystack.http.handler import Handler, Observer
from haystack.http.head import METHODS, HeadParser
from haystack.http.limits import HttpLimits
from haystack.http.request import Request, RequestHeaders
from haystack.http.response import Tails
from haystack.lifetime import end_tasks

logger = logging.getLogger(__name__)

SWEEP_INTERVAL_SECONDS = 1.0
SWEEP_LATE_SECONDS = 0.002
"""After a second's beginning: the loop's timers know whole milliseconds, and may be early by one."""
BACKLOG = 1024
LOOPBACK_CONGESTION = b"reno"
"""Every Linux has it, and it does not pace."""

_PLAIN_LINE = re.compile(rb"(GET|HEAD|PUT|POST|DELETE) (/[A-Za-z0-9,._@-]+) HTTP/1\.1")
"""A request line that no rule of :mod:`haystack.http.head` refuses, unless for its length."""

_Kept = TypeVar("_Kept")


def sweep_pause_seconds(wall_seconds: float) -> float:
    """How long to wait until the next sweep, so that Date is right: a photo's Last-Modified should not be after it."""
    return SWEEP_INTERVAL_SECONDS - wall_seconds % SWEEP_INTERVAL_SECONDS + SWEEP_LATE_SECONDS


def calm_loopback(listener: socket.socket) -> None:
    """Have the kernel not pace what goes to the own machine, for example to a proxy in front of us.

    BBR, where it is the system's choice, sends by timers that are set for what it believes the way can take. There is
    no way, and timers cost processor time. Connections inherit this from the listening socket.
    """
    if ipaddress.ip_address(listener.getsockname()[0]).is_loopback:
        with contextlib.suppress(OSError):  # a sandbox may forbid it, and it is good enough without
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, LOOPBACK_CONGESTION)


class Server:
    """An HTTP/1.1 server for one handler.

    Parameters
    ----------
    handler: see :class:`haystack.http.handler.Handler`.
    limits: bounds on what clients can make the server hold.
    observer: is told of connections and refusals; None for nobody.
    wall_clock: seconds since 1970, for Date.
    monotonic_clock: seconds for time-outs.
    """

    def __init__(
        self,
        handler: Handler,
        limits: HttpLimits | None = None,
        *,
        observer: Observer | None = None,
        wall_clock: Callable[[], float] = time.time,
        monotonic_clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.handler = handler
        self.limits = limits or HttpLimits()
        self.parser = HeadParser(self.limits)
        self.header_blocks: dict[bytes, RequestHeaders] = {}
        """Parsed header blocks of plain requests, for the fast way."""
        self.upload_blocks: dict[bytes, Request] = {}
        """Header blocks of plain uploads, each with a request that stands for all with this block."""
        self._known_blocks: dict[bytes, RequestHeaders] = {}
        """Parsed header blocks of requests of all kinds."""
        self.stopping = False
        self.requests = 0
        """Requests that were given to the handler so far."""
        self.connections_total = 0
        """Connections accepted so far."""
        self.refusals: Counter[str] = Counter()
        """What the server itself refused or broke off, by kind (see ``Observer.refused``)."""
        self._observer = observer
        self._wall_clock = wall_clock
        self._monotonic_clock = monotonic_clock
        self._connections: set[HttpConnection] = set()
        self._turned_away: set[HttpConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.deferred = 0
        """Requests whose answer something else has promised, those of clients who have gone included."""
        self._listener: asyncio.AbstractServer | None = None
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._all_closed = asyncio.Event()
        self.tick = monotonic_clock()
        """The monotonic clock as of the last sweep: precise to a second, and free to read."""
        self.tails = Tails(format_http_date(int(wall_clock())))

    # Life.

    async def start(
        self, host: str = "127.0.0.1", port: int = 0, *, reuse_port: bool = True, sock: socket.socket | None = None
    ) -> int:
        """Listen and begin to serve.

        Parameters
        ----------
        host, port: where to listen; port 0 lets the kernel choose.
        reuse_port: let other processes listen on the same port (SO_REUSEPORT).
        sock: a bound socket to use instead.

        Returns the port. Raises OSError when the address cannot be used.
        """
        loop = asyncio.get_running_loop()
        if sock is not None:
            listener = await loop.create_server(self.new_connection, sock=sock, backlog=BACKLOG)
        else:
            listener = await loop.create_server(self.new_connection, host, port, reuse_port=reuse_port, backlog=BACKLOG)
        self._listener = listener
        for bound in listener.sockets:
            calm_loopback(bound)
        self.begin_sweeping()
        return int(listener.sockets[0].getsockname()[1])

    async def graceful_stop(self, timeout_seconds: float) -> None:
        """Stop accepting, close idle connections, let requests in flight finish, then reset what is left.

        Parameters
        ----------
        timeout_seconds: how long to wait for requests in flight.
        """
        self.stopping = True
        if self._listener is not None:
            self._listener.close()
        for connection in list(self._connections | self._turned_away):
            connection.stop()
        self._update_all_closed()
        try:
            await asyncio.wait_for(self._all_closed.wait(), timeout_seconds)
        except TimeoutError:
            logger.warning("resetting %d connections that did not finish in time", self.connections_now)
        await self._end()

    async def _end(self) -> None:
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        for connection in list(self._connections | self._turned_away):
            connection.abort()
        await end_tasks(self._tasks)
        self.deferred = 0  # like the tasks above: nobody is left to wait for it
        self._update_all_closed()
        await self._all_closed.wait()
        if self._listener is not None:
            await self._listener.wait_closed()

    @property
    def connections_now(self) -> int:
        """Connections open at the moment, those that are being turned away included."""
        return len(self._connections) + len(self._turned_away)

    # Slow clients.

    def begin_sweeping(self) -> None:
        """Look at the clock and at all connections, now and at the beginning of every second from now on."""
        self.sweep()
        pause_seconds = sweep_pause_seconds(self._wall_clock())
        self._sweep_timer = asyncio.get_running_loop().call_later(pause_seconds, self.begin_sweeping)

    def sweep(self) -> None:
        """Set the second's Date and close connections whose clients are too slow."""
        self.tick = self._monotonic_clock()
        self.tails = Tails(format_http_date(int(self._wall_clock())))
        for connection in list(self._connections | self._turned_away):
            connection.check(self.tick)

    def abort_unsent(self) -> int:
        """Reset the connections whose clients have not taken their answers yet; returns how many there were."""
        waiting = [connection for connection in self._connections if connection.has_unsent]
        for connection in waiting:
            connection.abort()
        return len(waiting)

    # What connections ask of the server.

    def new_connection(self) -> HttpConnection:
        """The protocol for a new connection."""
        return HttpConnection(self)

    def admit(self, connection: HttpConnection) -> bool:
        """Count a new connection in; False when there are too many and it has to be turned away."""
        self.connections_total += 1
        if self._observer is not None:
            self._observer.connection_opened()
        admitted = len(self._connections) < self.limits.max_connections
        (self._connections if admitted else self._turned_away).add(connection)
        return admitted

    @property
    def turns_away_at_once(self) -> bool:
        """So many are being turned away already that the next one is not even told why."""
        return len(self._turned_away) > self.limits.max_lingering_refusals

    def forget(self, connection: HttpConnection) -> None:
        """A connection is gone."""
        self._connections.discard(connection)
        self._turned_away.discard(connection)
        if self._observer is not None:
            self._observer.connection_closed()
        self._update_all_closed()

    def responded(self, status: int) -> None:
        """An answer was begun."""
        if self._observer is not None:
            self._observer.responded(status)

    def count(self, kind: str) -> None:
        """Count a refusal, see ``Observer.refused``."""
        self.refusals[kind] += 1
        if self._observer is not None:
            self._observer.refused(kind)

    def spawn(self, coroutine: Coroutine[Any, Any, None], done: Callable[[asyncio.Task[None]], None]) -> None:
        """Run a handler's coroutine as a task and call ``done`` at its end."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        task.add_done_callback(done)

    def end_deferred(self) -> None:
        """A promise was kept."""
        self.deferred -= 1
        if not self.deferred:
            self._update_all_closed()

    def call_soon(self, callback: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(callback)

    def parse_head(self, head: bytes) -> Request:
        """Parse a head strictly, or put it together from parts that were (see :mod:`haystack.http.connection`).

        Raises ProtocolError.
        """
        cut = head.find(b"\r\n")
        block = head[cut:]
        headers = self._known_blocks.get(block)
        if headers is not None:
            plain = _PLAIN_LINE.fullmatch(head, 0, cut)
            if plain is not None and len(plain[2]) <= self.limits.max_target_bytes:
                target = plain[2]
                path = target.decode("ascii")
                return Request(
                    METHODS[plain[1]], plain[0], target, path, "", headers, is_http_11=True, origin_form=True
                )
        request = self.parser.parse(head)
        if len(block) <= self.limits.max_cached_block_bytes:
            self._remember(request, block)
        return request

    def _remember(self, request: Request, block: bytes) -> None:
        if request.is_http_11 and request.origin_form and _is_usual(request.headers):
            self._keep(self._known_blocks, block, request.headers)
            if _is_plain(request):
                self._keep(self.header_blocks, block, request.headers)
            elif _is_plain_upload(request):
                self._keep(self.upload_blocks, block, request)

    def _keep(self, blocks: dict[bytes, _Kept], block: bytes, kept: _Kept) -> None:
        if len(blocks) >= self.limits.max_cached_blocks:
            blocks.clear()
        blocks[block] = kept

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._update_all_closed()

    def _update_all_closed(self) -> None:
        if self._connections or self._turned_away or self._tasks or self.deferred > 0:
            self._all_closed.clear()
        else:
            self._all_closed.set()


def _is_plain_upload(request: Request) -> bool:
    headers = request.headers
    return (
        request.method in ("PUT", "POST")
        and request.keep_alive
        and bool(headers.content_length)
        and headers.get("expect") is None
    )


def _is_usual(headers: RequestHeaders) -> bool:
    return not any(headers.get(name) is not None for name in ("transfer-encoding", "upgrade"))


def _is_plain(request: Request) -> bool:
    headers = request.headers
    return (
        request.cacheable_line is not None
        and request.keep_alive
        and headers.plain
        and not any(headers.get(name) is not None for name in ("content-length", "expect"))
    )
