"""Reading volumes as they are from the Stores that have them: signed calls to the admin API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from haystack.client.errors import UnexpectedAnswer, Unreachable, error_for
from haystack.errors import ConfigError, HaystackError, VolumeUnavailable
from haystack.json_calls import (
    CONNECTION_ERRORS,
    NoAnswer,
    in_words,
    json_call,
    read_limited,
    reason_given,
    signed_headers,
)
from tools.control import HOW_TO_SIGN, UNSIGNED
from tools.view import ClusterView, VolumeView

CONNECT_SECONDS = 5.0
SILENT_SECONDS = 60.0
RECEIVED_BYTES = 256 * 1024
MAX_ERROR_BYTES = 64 * 1024
OTHER_GENERATION = 409


class VolumeCompacted(HaystackError):
    """The volume has another generation by now than the one that is asked for."""


@dataclass(frozen=True, slots=True)
class Extent:
    """What is wanted of a volume: its bytes below ``end`` in one generation."""

    volume: int
    uuid: str
    generation: int
    end: int


class VolumeSource:
    """One Store's copy of one volume.

    Parameters
    ----------
    store: address for people. admin_url: ``host:port``.
    """

    def __init__(
        self, session: aiohttp.ClientSession, store: str, admin_url: str, volume: int, secret: bytes | None
    ) -> None:
        self.store = store
        self._session = session
        self._secret = secret
        self._url = f"http://{admin_url}/admin/volumes/{volume}"

    def __str__(self) -> str:
        return f"Store {self.store}"

    async def extent(self, volume: int) -> Extent:
        """Return all that the copy has now, and that all others have. Raises as :meth:`pieces`."""
        document = await self._ask(f"{self._url}/hashes")
        try:
            return Extent(volume, str(document["uuid"]), int(document["generation"]), int(document["committed"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UnexpectedAnswer(f"{self}: volume {volume}: the answer is not understood: {error}") from error

    async def hashes(self, extent: Extent, start: int, end: int, block_bytes: int) -> list[str]:
        """Return the xxh3-64 of each block of a range. Raises as :meth:`pieces`."""
        document = await self._ask(
            f"{self._url}/hashes?from={start}&to={end}&block={block_bytes}&generation={extent.generation}"
        )
        return [str(one) for one in document.get("hashes", ())]

    async def pieces(self, extent: Extent, start: int, end: int) -> AsyncIterator[bytes]:
        """Yield these bytes as they come.

        Raises
        ------
        VolumeCompacted: of another generation. Unreachable: not there, or broken off. HaystackError: as the Store said.
        """
        url = URL(f"{self._url}/bytes?from={start}&to={end}&generation={extent.generation}")
        headers = signed_headers(self._secret, "GET", url, b"")
        received = 0
        try:
            async with self._session.get(url, headers=headers, allow_redirects=False) as answer:
                if answer.status != 200:
                    raise self._refusal(answer.status, await read_limited(answer, MAX_ERROR_BYTES))
                async for piece in answer.content.iter_chunked(RECEIVED_BYTES):
                    received += len(piece)
                    yield piece
        except CONNECTION_ERRORS as error:
            raise Unreachable(f"{self}: {in_words(error, SILENT_SECONDS)}") from error
        if received != end - start:
            raise Unreachable(f"{self}: sent {received} bytes of {end - start}")

    async def _ask(self, url: str) -> dict[str, Any]:
        try:
            answer = await json_call(self._session, "GET", url, secret=self._secret)
        except NoAnswer as error:
            raise Unreachable(f"{self}: {error}") from error
        if answer.status != 200:
            raise self._refusal(answer.status, answer.body)
        if not isinstance(answer.document, dict):
            raise UnexpectedAnswer(f"{self}: GET {url}: the answer is no JSON object")
        return answer.document

    def _refusal(self, status: int, body: bytes) -> HaystackError:
        if status == UNSIGNED and self._secret is None:
            return ConfigError(f"{self}: {HOW_TO_SIGN}")
        reason = f"{self}: {reason_given(body, status)}"
        if status == OTHER_GENERATION:
            return VolumeCompacted(reason)
        return error_for(status, reason, not_found=VolumeUnavailable)


def open_session() -> aiohttp.ClientSession:
    """Return a session for calls to Stores. Make it inside the event loop."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
    return aiohttp.ClientSession(timeout=timeout, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar())


def sources_of(
    session: aiohttp.ClientSession, view: ClusterView, volume: VolumeView, secret: Callable[[], bytes | None]
) -> Sequence[VolumeSource]:
    """Return the copies that have everything, of Stores that are there; the primary, which has most to do, last.

    Raises VolumeUnavailable when there is none.
    """
    ids = sorted(volume.in_sync, key=lambda store_id: store_id == volume.primary)
    if len(ids) > 2:
        # Not all of the work to the same Store.
        turn = volume.volume % (len(ids) - 1)
        ids = [*ids[turn:-1], *ids[:turn], ids[-1]]
    stores = [store for store_id in ids if (store := view.store(store_id)) is not None and store.state == "alive"]
    if not stores:
        names = ", ".join(view.address_of(store_id) for store_id in volume.in_sync)
        raise VolumeUnavailable(f"volume {volume.volume}: no Store that has it is alive: {names}")
    return [VolumeSource(session, one.url, one.admin_url, volume.volume, secret()) for one in stores]
