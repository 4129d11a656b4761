"""Passing a request through to a Store: for what is too large to be kept, or is not to be kept.

The Store's answer goes to the client as it comes, in bounded memory: the next bytes are received when the last ones are
out. Conditions and ranges are the Store's to answer. What was begun is gone on with at another Store when the first one
breaks off: by a range, of the same entity tag.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence

from cache.answers import PASS, VIA
from cache.store_connection import StoreSilent
from cache.upstream import Call, Upstreams
from haystack.errors import ClientGone, HaystackError, VolumeUnavailable
from haystack.http.connection import HttpConnection
from haystack.http.request import Request

BUFFER_BYTES = 128 * 1024
MAX_AT_ONCE = 256
"""Requests of a worker that are passed through at the same time: a buffer each."""

_FORWARDED = ("range", "if-range", "if-none-match", "if-modified-since")
_OURS = frozenset({"connection", "keep-alive", "date", "server", "content-length", "transfer-encoding", "via"})
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/[0-9]{1,18}")
_SPELLED = {"etag": "ETag"}


class Passing:
    """Passes requests of one worker through.

    Parameters
    ----------
    max_at_once: requests at the same time.
    """

    def __init__(self, upstreams: Upstreams, *, max_at_once: int = MAX_AT_ONCE) -> None:
        self._upstreams = upstreams
        self._max_at_once = max_at_once
        self.running = 0
        """Requests that are being passed through now."""

    async def run(self, connection: HttpConnection, request: Request, target: str, addresses: Sequence[str]) -> int:
        """Answer a request; returns the bytes of the body.

        Parameters
        ----------
        target: what Stores are asked for: percent-encoded path, and query.
        addresses: of the Stores, in the order to try them.

        Raises VolumeUnavailable when no Store answers; ClientGone; StoreSilent when an answer was broken off.
        """
        if self.running >= self._max_at_once:
            raise VolumeUnavailable(
                f"{self.running} photos are being passed through already; ask a Store, or try again"
            )
        self.running += 1
        try:
            return await _Passage(self._upstreams, connection, request, target, addresses).run()
        finally:
            self.running -= 1


class _Passage:
    """One request on its way."""

    def __init__(
        self,
        upstreams: Upstreams,
        connection: HttpConnection,
        request: Request,
        target: str,
        addresses: Sequence[str],
    ) -> None:
        self._upstreams = upstreams
        self._connection = connection
        self._method = request.method
        self._target = target
        self._addresses = list(addresses)
        self._fields = {name: value for name in _FORWARDED if (value := request.headers.get(name)) is not None}

    async def run(self) -> int:
        problem: HaystackError = VolumeUnavailable("no Store has the photo's volume at the moment")
        refusal: _Taking | None = None
        while self._addresses:
            taking = await self._ask(self._fields)
            if taking.problem is not None:
                problem = taking.problem
            elif taking.status in (200, 206, 304, 416):
                return await self._forward(taking)
            else:
                refusal = refusal if refusal is not None and refusal.status >= 500 else taking
        if refusal is None:
            raise VolumeUnavailable(str(problem))
        return await self._forward(refusal)

    async def _ask(self, fields: Mapping[str, str]) -> _Taking:
        address = self._addresses.pop(0)
        taking = _Taking()
        taking.call = self._upstreams.ask(address, self._method, self._target, taking, fields)
        try:
            await taking.head
        except BaseException:
            taking.call.cancel()
            raise
        return taking

    async def _forward(self, taking: _Taking) -> int:
        connection, status = self._connection, taking.status
        lines = b"".join(_line(name, value) for name, value in taking.fields.items() if name not in _OURS)
        lines += VIA + b"X-Cache: " + PASS + b"\r\n"
        if status == 304 or connection.head_only:
            length = int(taking.fields.get("content-length", "0") or 0)
            connection.respond(status, lines, content_length_bytes=length)
            return 0
        connection.start_stream(status, lines, taking.body_bytes)
        sent_bytes = 0
        while sent_bytes < taking.body_bytes:
            try:
                piece = await taking.piece()
            except StoreSilent:
                resumed = await self._resumed(taking, sent_bytes)
                resumed.body_bytes += sent_bytes
                taking = resumed
                continue
            except BaseException:
                taking.cancel()
                raise
            try:
                await connection.send_lent(piece, taking)
            except ClientGone:
                taking.cancel()
                raise
            sent_bytes += len(piece)
            taking.go_on()
        return sent_bytes

    async def _resumed(self, taking: _Taking, sent_bytes: int) -> _Taking:
        """The rest from another Store. Raises StoreSilent when none has it."""
        tag = taking.fields.get("etag")
        first, last = _span(taking)
        while self._addresses and tag and taking.status in (200, 206):
            fields = {"range": f"bytes={first + sent_bytes}-{last}", "if-range": tag}
            rest = await self._ask(fields)
            if rest.problem is None and rest.status == 206 and rest.body_bytes == taking.body_bytes - sent_bytes:
                rest.status, rest.fields = taking.status, taking.fields
                return rest
            rest.cancel()
        raise StoreSilent("a Store broke its answer off, and no other one could go on with it")


def _span(taking: _Taking) -> tuple[int, int]:
    """First and last byte of the photo that an answer has."""
    match = _CONTENT_RANGE.fullmatch(taking.fields.get("content-range", ""))
    if match is not None and taking.status == 206:
        return int(match[1]), int(match[2])
    return 0, taking.body_bytes - 1


class _Taking:
    """Takes an answer into one buffer, and lets nothing more come until that was used."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.head: asyncio.Future[None] = loop.create_future()
        self.call: Call | None = None
        self.problem: HaystackError | None = None
        self.status = 0
        self.fields: Mapping[str, str] = {}
        self.body_bytes = 0
        self._memory = memoryview(b"")
        self._have = 0
        self._waiter: asyncio.Future[None] | None = None

    def begin(self, status: int, fields: Mapping[str, str], body_bytes: int) -> None:
        self.status, self.fields, self.body_bytes = status, fields, body_bytes
        self._memory = memoryview(bytearray(min(BUFFER_BYTES, max(body_bytes, 1))))
        self._settle_head()

    def buffer(self) -> memoryview:
        return self._memory[self._have :]

    def received(self, count: int) -> None:
        self._have += count
        if self._have == len(self._memory):
            self._pause()
        self._wake()

    def end(self) -> None:
        self._wake()

    def failed(self, error: HaystackError) -> None:
        self.problem = error
        self._settle_head()
        self._wake()

    async def piece(self) -> memoryview:
        """What has come. Nothing more is received before :meth:`go_on`. Raises StoreSilent."""
        while not self._have:
            if self.problem is not None:
                raise StoreSilent(str(self.problem))
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        self._pause()
        return self._memory[: self._have]

    def go_on(self) -> None:
        """The piece was used."""
        self._have = 0
        if self.call is not None:
            self.call.resume()

    def cancel(self) -> None:
        """Nobody wants the rest."""
        if self.call is not None:
            self.call.cancel()

    def pin(self) -> None:
        """The buffer is not received into before :meth:`go_on`, which comes when all of it is out."""

    def unpin(self) -> None:
        """See :meth:`pin`."""

    def _pause(self) -> None:
        if self.call is not None:
            self.call.pause()

    def _settle_head(self) -> None:
        if not self.head.done():
            self.head.set_result(None)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _line(name: str, value: str) -> bytes:
    spelled = _SPELLED.get(name) or "-".join(word.capitalize() for word in name.split("-"))
    return f"{spelled}: {value}\r\n".encode("latin-1")
