"""Reading one photo from whichever location has it, going on from where a connection broke."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TypeVar

import aiohttp

from haystack.client.errors import UnexpectedAnswer, Unreachable, WrongContent
from haystack.client.health import StoreHealth
from haystack.client.locations import Location
from haystack.client.photo import PhotoInfo, info_from, plain_etag
from haystack.client.retry import RetryPolicy, Transient
from haystack.client.transport import Transport, broken, raise_for, read_error
from haystack.errors import DiskError, HaystackError, NeedleNotFound
from haystack.json_calls import CONNECTION_ERRORS

PIECE_BYTES = 256 * 1024

FAILOVER_ERRORS = (NeedleNotFound, DiskError, UnexpectedAnswer, WrongContent)
"""What one location may say while another has the photo: a replica that is behind, a failing disk."""

FIRST_BYTE_SECONDS = 1.0
"""How long one of several locations may be silent before the next is asked; twice as long each time that all were."""

_Result = TypeVar("_Result")


@dataclass(slots=True)
class Target:
    """What to read, and where it may be.

    Parameters
    ----------
    path: fid or locator, as in the URL.
    fid: the photo's fid.
    locations: in the order to try them, but for those that failed lately.
    caches: addresses of Caches, which are tried before all locations, but for those that failed lately.
    internal: use the addresses inside the cluster.
    health: which Stores failed lately.
    etag: what the photo's entity tag must be; empty: any.
    rounds: how often all locations were asked before.
    """

    path: str
    fid: str
    locations: Sequence[Location]
    internal: bool
    health: StoreHealth
    etag: str = ""
    rounds: int = 0
    caches: Sequence[str] = ()

    def in_order(self) -> list[str]:
        """Return the addresses of Caches and Stores in the order to try them now."""
        addresses = [*self.caches, *(one.base(internal=self.internal) for one in self.locations)]
        return self.health.in_order(addresses, lambda address: (address, self._copy(address)))

    def url_at(self, address: str) -> str:
        """Return the photo's URL there: Caches keep photos by fid, whatever their offset in a volume is."""
        return f"{address}/{self.fid if address in self.caches else self.path}"

    def patience_seconds(self) -> float | None:
        """Return how long one location may be silent; None: as long as any server may."""
        if len(self.locations) + len(self.caches) < 2:
            return None
        return FIRST_BYTE_SECONDS * 2.0 ** min(self.rounds, 16)

    def failed(self, address: str, failure: Transient | HaystackError) -> None:
        """Note what a location did."""
        if isinstance(failure, Transient) and isinstance(failure.error, Unreachable):
            self.health.failed(address)
        elif not isinstance(failure, NeedleNotFound):
            # It answers; only this volume is in trouble.
            self.health.failed(self._copy(address))

    def worked(self, address: str) -> None:
        """Note that a location served the photo."""
        self.health.worked(address)
        self.health.worked(self._copy(address))

    def check(self, etag: str, url: str) -> None:
        """Raise WrongContent when a location has another photo than the one that is meant."""
        if self.etag and plain_etag(etag) != self.etag:
            raise WrongContent(f"{url}: has the ETag {plain_etag(etag)} where {self.etag} is expected")

    def _copy(self, address: str) -> str:
        return f"{address}/{self.fid.partition(',')[0]}"


@dataclass(slots=True)
class PhotoStream:
    """A photo that is being read: ``info`` first, then its bytes by ``async for``.

    A connection that breaks is replaced, at another location if there is one, and the reading goes on where it was. It
    ends only when all bytes of the announced size have come.
    """

    info: PhotoInfo
    _response: aiohttp.ClientResponse
    _transport: Transport
    _target: Target
    _policy: RetryPolicy
    _stack: AsyncExitStack
    _done_bytes: int = field(default=0)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        idle_resumes = 0
        while True:
            before_bytes = self._done_bytes
            try:
                async for piece in self._response.content.iter_chunked(PIECE_BYTES):
                    self._done_bytes += len(piece)
                    yield piece
                break
            except CONNECTION_ERRORS as error:
                await self._stack.aclose()
                self._target.failed(_origin(self._response), broken(f"GET {self.info.url}", error))
                # Servers that begin an answer and break it, again and again, must not keep us for ever.
                idle_resumes = 0 if self._done_bytes > before_bytes else idle_resumes + 1
                if idle_resumes > self._policy.retries:
                    raise broken(f"GET {self.info.url}", error).error from error
            if self._done_bytes >= self.info.size_bytes:
                break
            self._response = await self._policy.run(self._resume)
        if self._done_bytes != self.info.size_bytes:
            raise WrongContent(
                f"{self.info.url}: {self._done_bytes} bytes came where {self.info.size_bytes} were announced; do not "
                "use them, and try again"
            )

    async def _resume(self) -> aiohttp.ClientResponse:
        done = self._done_bytes
        headers = {"Range": f"bytes={done}-", "If-Range": f'"{self.info.etag}"'} if done else {}
        answer = await first_answer(self._transport, self._target, self._stack, headers)
        if answer.status != (206 if done else 200) or plain_etag(answer.headers.get("ETag", "")) != self.info.etag:
            raise WrongContent(f"{self.info.url}: was replaced by another photo while it was read; read it again")
        return answer


async def open_stream(transport: Transport, target: Target, policy: RetryPolicy, stack: AsyncExitStack) -> PhotoStream:
    """Begin to read at the first location that answers.

    Parameters
    ----------
    stack: keeps the connection; closing it ends the reading.

    Raises
    ------
    Transient: no location answered; a later try may work.
    NeedleNotFound: no location has it.
    """
    response = await first_answer(transport, target, stack, {})
    info = info_from(response.headers, response.content_length, target.fid, str(response.url))
    return PhotoStream(info, response, transport, target, policy, stack)


async def first_answer(
    transport: Transport, target: Target, stack: AsyncExitStack, headers: dict[str, str]
) -> aiohttp.ClientResponse:
    """GET at one location after the other until one has it. Raises as :func:`open_stream`."""

    async def get(url: str, patience_seconds: float | None) -> aiohttp.ClientResponse:
        try:
            opening = transport.open("GET", url, headers=headers, patience_seconds=patience_seconds)
            response = await stack.enter_async_context(opening)
            if response.status not in (200, 206):
                raise_for(await read_error(response, f"GET {url}", transport.timeout_seconds))
                raise UnexpectedAnswer(f"GET {url}: unexpected status {response.status}")
            target.check(response.headers.get("ETag", ""), url)
        except BaseException:
            await stack.aclose()
            raise
        return response

    return await at_each(target, get)


async def read_head(transport: Transport, target: Target) -> PhotoInfo:
    """HEAD at one location after the other until one has it. Raises as :func:`open_stream`."""

    async def head(url: str, patience_seconds: float | None) -> PhotoInfo:
        answer = await transport.fetch("HEAD", url, patience_seconds=patience_seconds)
        target.check(answer.headers.get("ETag", ""), url)
        length = answer.headers.get("Content-Length", "")
        return info_from(answer.headers, int(length) if length.isdecimal() else None, target.fid, url)

    return await at_each(target, head)


async def at_each(target: Target, ask: Callable[[str, float | None], Awaitable[_Result]]) -> _Result:
    """Ask one location after the other, with its URL and for how long to be patient, until one has the photo.

    Raises what counts when all of them failed; see :func:`worst`.
    """
    failures: list[Transient | HaystackError] = []
    for address in target.in_order():
        try:
            result = await ask(target.url_at(address), target.patience_seconds())
        except (Transient, *FAILOVER_ERRORS) as failure:
            target.failed(address, failure)
            failures.append(failure)
            continue
        target.worked(address)
        return result
    target.rounds += 1
    raise worst(failures)


def _origin(response: aiohttp.ClientResponse) -> str:
    return str(response.url.origin())


def worst(failures: Sequence[Transient | HaystackError]) -> Transient | HaystackError:
    """Return the failure that counts when every location failed.

    One that may pass wins: as long as a location cannot be asked, nobody knows that a photo is gone; of several the
    one to be asked again soonest. Then one that tells more than "not found".
    """
    passing = [failure for failure in failures if isinstance(failure, Transient)]
    if passing:
        return min(passing, key=lambda failure: failure.retry_after_seconds)
    for failure in failures:
        if not isinstance(failure, NeedleNotFound):
            return failure
    return failures[0] if failures else NeedleNotFound("the photo's volume is on no Store at the moment")
