"""Another Store that has a copy of a volume, as its admin API tells of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from haystack.errors import HaystackError
from haystack.json_calls import CONNECTION_ERRORS, AnswerTooLarge, NoAnswer, in_words, json_call, signed_headers
from haystack.store.replication.membership import Member

CONNECT_SECONDS = 5.0
SILENT_SECONDS = 30.0
"""A peer that sends nothing for so long is given up."""

RECEIVED_BYTES = 256 * 1024


class PeerUnavailable(HaystackError):
    """Another Store does not give what was asked of it; it may do so later."""

    http_status = 503


@dataclass(frozen=True, slots=True)
class Hashes:
    """What a peer says of a range: how far its copy is durable, and the hash of each block."""

    tail: int
    hashes: tuple[str, ...]


def peer_session() -> aiohttp.ClientSession:
    """A session for calls to peers. Make it inside the event loop."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
    return aiohttp.ClientSession(timeout=timeout)


class Peer:
    """One copy of one volume on another Store.

    Parameters
    ----------
    volume: logical volume id.
    secret: of the cluster, None for unsigned calls.
    generation: of the file that it is compared with: a copy of another one is refused. None for any.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        member: Member,
        volume: int,
        secret: bytes | None,
        generation: int | None = None,
    ) -> None:
        self._of_generation = "" if generation is None else f"&generation={generation}"
        self.member = member
        self._session = session
        self._secret = secret
        self._url = f"http://{member.admin_url}/admin/volumes/{volume}"

    def __str__(self) -> str:
        return f"Store {self.member.admin_url}"

    async def hashes(self, start: int, end: int, block_bytes: int) -> Hashes:
        """Hashes of the blocks of a range. Raises PeerUnavailable."""
        answer = await self._ask(
            "GET", f"{self._url}/hashes?from={start}&to={end}&block={block_bytes}{self._of_generation}"
        )
        tail, hashes = answer.get("tail"), answer.get("hashes")
        if not isinstance(tail, int) or not isinstance(hashes, list) or not all(isinstance(one, str) for one in hashes):
            raise PeerUnavailable(f"{self} answers a question for hashes with something else")
        if len(hashes) != -(-(end - start) // block_bytes):
            raise PeerUnavailable(f"{self} gives {len(hashes)} hashes for bytes {start} to {end}")
        return Hashes(tail, tuple(hashes))

    async def tail(self) -> int:
        """How far the copy is durable. Raises PeerUnavailable."""
        return (await self.hashes(0, 0, RECEIVED_BYTES)).tail

    async def document(self) -> dict[str, Any]:
        """The volume document. Raises PeerUnavailable."""
        return await self._ask("GET", self._url)

    async def scrub(self) -> None:
        """Have the copy scrubbed there soon. Raises PeerUnavailable."""
        await self._ask("POST", f"{self._url}/scrub", {})

    async def read(self, start: int, end: int) -> bytes:
        """Exactly these bytes; for ranges that fit into memory. Raises PeerUnavailable."""
        return b"".join([piece async for piece in self.pieces(start, end)])

    async def pieces(self, start: int, end: int) -> AsyncIterator[bytes]:
        """These bytes piece by piece, as they come, at most ``MAX_BYTES``. Raises PeerUnavailable, also midway."""
        url = URL(f"{self._url}/bytes?from={start}&to={end}{self._of_generation}")
        headers = signed_headers(self._secret, "GET", url, b"")
        received = 0
        try:
            async with self._session.get(url, headers=headers, allow_redirects=False) as answer:
                if answer.status != 200:
                    said = (await answer.content.read(500)).decode(errors="replace")
                    raise PeerUnavailable(f"{self} refuses bytes {start} to {end} with {answer.status}: {said}")
                async for piece in answer.content.iter_chunked(RECEIVED_BYTES):
                    received += len(piece)
                    yield piece
        except CONNECTION_ERRORS as error:
            raise PeerUnavailable(
                f"{self} broke off bytes {start} to {end} after {received}: {in_words(error)}"
            ) from error
        if received != end - start:
            raise PeerUnavailable(f"{self} sent {received} bytes of {end - start}")

    async def _ask(self, method: str, url: str, document: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            answer = await json_call(self._session, method, url, document, secret=self._secret)
        except (NoAnswer, AnswerTooLarge) as error:
            raise PeerUnavailable(f"{self} cannot be reached: {error}") from error
        if answer.status >= 300 or not isinstance(answer.document, dict):
            reason = answer.reason if answer.status >= 300 else "no JSON object"
            raise PeerUnavailable(f"{self} refuses {method} {URL(url).path} with {answer.status}: {reason}")
        return answer.document
