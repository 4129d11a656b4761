"""HTTP exchanges: sends one, bounds it in time, size and number, and says how it failed. No retries here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

import haystack
from haystack.client.errors import UnexpectedAnswer, Unreachable, error_for
from haystack.client.retry import TRANSIENT_STATUSES, Transient, retry_after_seconds
from haystack.client.sources import Source
from haystack.errors import HaystackError, NeedleNotFound
from haystack.json_calls import (
    CONNECTION_ERRORS,
    MAX_ANSWER_BYTES,
    MAX_ERROR_CHARS,
    AnswerTooLarge,
    in_words,
    read_limited,
    reason_given,
)

EXPECT_CONTINUE_BYTES = 1024 * 1024
"""From this size on, a body waits for the server's word: a refusal then costs a round trip and not the whole body."""


SLOWEST_STORE_BYTES_PER_SECOND = 4 * 1024 * 1024
"""A large upload is appended and synced when all of it has come: its answer may take longer than any silence."""

CONNECT_SECONDS = 3.0
"""Longest time to connect: three attempts of TCP. A machine that is gone does not even refuse."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer of small size."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    request: str
    """``METHOD url``, for messages."""

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object. Raises UnexpectedAnswer."""
        try:
            document = json.loads(self.body)
        except ValueError as error:
            raise UnexpectedAnswer(f"{self.request}: the answer is no JSON: {error}") from error
        if not isinstance(document, dict):
            raise UnexpectedAnswer(f"{self.request}: the answer is no JSON object but a {type(document).__name__}")
        return document

    def field(self, name: str, kind: type[Any]) -> Any:
        """Return one field of the JSON object. Raises UnexpectedAnswer when it is missing or of another kind."""
        return field_of(self.json(), name, kind, self.request)


def field_of(document: Mapping[str, Any], name: str, kind: type[Any], where: str) -> Any:
    """Return ``document[name]``. Raises UnexpectedAnswer when it is missing or of another kind."""
    value = document.get(name)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UnexpectedAnswer(
            f"{where}: the answer has no {kind.__name__} {name!r}: {str(document)[:MAX_ERROR_CHARS]}"
        )
    return value


class Transport:
    """Sends requests over one aiohttp session.

    Parameters
    ----------
    session: given by somebody who closes it, or None for one of our own.
    timeout_seconds: longest silence in either direction; connecting takes at most CONNECT_SECONDS of it.
    max_concurrency: exchanges at the same time; more wait.
    """

    def __init__(self, session: aiohttp.ClientSession | None, *, timeout_seconds: float, max_concurrency: int) -> None:
        self._session = session
        self._owned = session is None
        self.timeout_seconds = timeout_seconds
        self._slots = asyncio.Semaphore(max_concurrency)
        self._connect_seconds = min(timeout_seconds, CONNECT_SECONDS)
        # The deadline of the body rules over an upload, up to the answer.
        self._upload_timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._connect_seconds)

    def start(self) -> None:
        """Make the session; inside a running event loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
                cookie_jar=aiohttp.DummyCookieJar(),
                # A photo is handed over as it was stored, even one that was stored compressed.
                auto_decompress=False,
                headers={"User-Agent": f"haystack/{haystack.__version__}", "Accept-Encoding": "identity"},
            )

    async def close(self) -> None:
        """Close the session if it is our own."""
        if self._owned and self._session is not None:
            await self._session.close()
            self._session = None

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        source: Source | None = None,
        patience_seconds: float | None = None,
        not_found: type[HaystackError] = NeedleNotFound,
    ) -> Answer:
        """Do a request with a small answer. Raises as :meth:`open` does, and for any status but 2xx."""
        async with self.open(
            method, url, headers=headers, source=source, patience_seconds=patience_seconds
        ) as response:
            silence_seconds = self._patience(patience_seconds)
            body = b"" if method == "HEAD" else await _limited(response, f"{method} {url}", silence_seconds)
            answer = Answer(response.status, response.headers, body, f"{method} {url}")
            raise_for(answer, not_found)
            return answer

    @asynccontextmanager
    async def open(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        source: Source | None = None,
        patience_seconds: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Do a request and yield its answer, of whatever status, with the body still to read.

        Parameters
        ----------
        patience_seconds: longest silence for this request, when that is shorter than of all others.

        Raises
        ------
        Transient: the server was not reached, or the connection broke or fell silent before an answer began. Reading
            the answer's body may raise any of CONNECTION_ERRORS.
        SourceChanged, OSError: the source failed; the server has stored nothing.
        """
        if self._session is None:
            raise RuntimeError("the client is not open; use `async with HaystackClient(...)`")
        silence_seconds = self._patience(patience_seconds)
        body = _Body(source, silence_seconds) if source is not None else None
        sent_headers = dict(headers or {})
        data: Any = None
        expect = False
        if body is not None and source is not None:
            size_bytes, data = source.size_bytes, source.whole()
            if data is None:
                data = body.pieces()
                expect = size_bytes is None or size_bytes >= EXPECT_CONTINUE_BYTES
            if size_bytes is not None:
                sent_headers["Content-Length"] = str(size_bytes)
        async with self._slots:
            try:
                # The silence of a request whose body flows is measured by the body; aiohttp measures the answer's.
                async with asyncio.timeout(silence_seconds) as deadline:
                    if body is not None:
                        body.deadline = deadline
                    response = await self._session.request(
                        method,
                        URL(url, encoded=True),
                        data=data,
                        headers=sent_headers,
                        allow_redirects=False,
                        timeout=self._upload_timeout if body is not None else self._timeout(silence_seconds),
                        expect100=expect,
                        middlewares=(_only_once,) if method == "DELETE" else (),
                    )
            except CONNECTION_ERRORS as error:
                if body is not None and body.failure is not None:
                    raise body.failure from None
                raise broken(f"{method} {url}", error, silence_seconds) from error
            # Outside: an OSError of the reader's own, such as a full disk, is no connection error.
            async with response:
                yield response

    def _patience(self, patience_seconds: float | None) -> float:
        return self.timeout_seconds if patience_seconds is None else min(patience_seconds, self.timeout_seconds)

    def _timeout(self, silence_seconds: float) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(
            total=None, sock_connect=min(self._connect_seconds, silence_seconds), sock_read=silence_seconds
        )


class _Body:
    """The pieces of a source, with a deadline that moves while they flow, and a memory for the source's own failure."""

    def __init__(self, source: Source, timeout_seconds: float) -> None:
        self._source = source
        self._timeout_seconds = timeout_seconds
        self.deadline: asyncio.Timeout | None = None
        self.failure: Exception | None = None

    async def pieces(self) -> AsyncIterator[bytes | bytearray | memoryview]:
        sent_bytes = 0
        try:
            async for piece in self._source.pieces():
                self._more_time(0.0)
                yield piece
                sent_bytes += len(piece)
        # aiohttp would turn it into a connection error, and we would try again what cannot work.
        except Exception as error:
            self.failure = error
            raise
        expected = self._source.size_bytes
        if expected is not None and sent_bytes != expected:
            self.failure = UnexpectedAnswer(
                f"the data to upload has {sent_bytes} bytes where {expected} were announced"
            )
            raise self.failure
        self._more_time(sent_bytes / SLOWEST_STORE_BYTES_PER_SECOND)

    def _more_time(self, extra_seconds: float) -> None:
        if self.deadline is not None and not self.deadline.expired():
            now_seconds = asyncio.get_running_loop().time()
            self.deadline.reschedule(now_seconds + self._timeout_seconds + extra_seconds)


class _BrokenExchange(aiohttp.ClientConnectionError):
    """A connection broke while an answer was awaited."""


async def _only_once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp from repeating a delete by itself: the second answer, a 404, would hide what the first did."""
    try:
        return await send(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _BrokenExchange(str(error)) from error


def raise_for(answer: Answer, not_found: type[HaystackError] = NeedleNotFound) -> None:
    """Raise what the answer's status means unless it is 2xx: Transient when it may pass, else an error of ours."""
    if 200 <= answer.status < 300:
        return
    error = error_for(answer.status, f"{answer.request}: {_said(answer.body, answer.status)}", not_found=not_found)
    if answer.status in TRANSIENT_STATUSES:
        raise Transient(error, retry_after_seconds(answer.headers.get("Retry-After")))
    raise error


async def read_error(response: aiohttp.ClientResponse, request: str, timeout_seconds: float) -> Answer:
    """Read the answer that refuses a request whose success would be a stream."""
    return Answer(response.status, response.headers, await _limited(response, request, timeout_seconds), request)


async def _limited(response: aiohttp.ClientResponse, request: str, timeout_seconds: float) -> bytes:
    try:
        async with asyncio.timeout(timeout_seconds):
            return await read_limited(response, MAX_ANSWER_BYTES)
    except AnswerTooLarge as error:
        raise UnexpectedAnswer(str(error)) from error
    except CONNECTION_ERRORS as error:
        raise broken(request, error, timeout_seconds) from error


def _said(body: bytes, status: int) -> str:
    if status == 404 and not body.strip():
        return "not there (unknown, deleted, or a wrong cookie)"
    return reason_given(body, status)


def broken(request: str, error: BaseException, timeout_seconds: float | None = None) -> Transient:
    """Return what to raise for one of CONNECTION_ERRORS.

    Parameters
    ----------
    request: method and URL.
    """
    unsent = isinstance(error, aiohttp.ClientConnectorError)
    hint = "; is the server running?" if unsent else ""
    return Transient(Unreachable(f"{request}: {in_words(error, timeout_seconds)}{hint}", unsent=unsent))
