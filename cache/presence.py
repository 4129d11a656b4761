"""Asking Stores whether a photo that is kept is still there, by HEAD."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

from cache.places import Places
from cache.signatures import own_path
from cache.upstream import SmallAnswer, Upstreams
from haystack.errors import HaystackError
from haystack.fid import Fid
from haystack.signed_urls import UrlSigner
from haystack.store.answers import etag


class HeadRefused(HaystackError):
    """A Store did not say whether it has a photo."""

    http_status = 503


class Presence:
    """Asks one Store after the other until one knows.

    Parameters
    ----------
    signer: signs what Stores are asked for.
    wall_clock: seconds since 1970.
    """

    def __init__(
        self, places: Places, upstreams: Upstreams, signer: UrlSigner, wall_clock: Callable[[], float]
    ) -> None:
        self._places = places
        self._upstreams = upstreams
        self._signer = signer
        self._wall_clock = wall_clock

    async def has(self, fid: Fid, checksum: int) -> bool:
        """Whether a Store has the very photo. Raises what kept all of them from answering.

        Parameters
        ----------
        checksum: of the needle; with another one it is another photo by now.
        """
        place = await self._places.locate(fid.volume)
        problem: HaystackError | None = None
        path = own_path(self._signer, fid, self._wall_clock())
        for address in self._places.in_order(place):
            answer: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
            taker = SmallAnswer(partial(_answered, answer), partial(_unanswered, answer))
            call = self._upstreams.ask(address, "HEAD", path, taker)
            try:
                status, tag = await answer
            except HaystackError as error:
                self._places.failed(address)
                problem = error
                continue
            finally:
                call.cancel()
            self._places.worked(address)
            if status in (200, 404):
                return status == 200 and tag == etag(checksum)
            problem = HeadRefused(f"Store {address} answers {status} about {fid}")
        raise problem or HeadRefused(f"volume {fid.volume} is on no Store at the moment")


def _answered(answer: asyncio.Future[tuple[int, str]], status: int, fields: Mapping[str, str], body: bytes) -> None:
    if not answer.done():
        answer.set_result((status, fields.get("etag", "")))


def _unanswered(answer: asyncio.Future[tuple[int, str]], error: HaystackError) -> None:
    if not answer.done():
        answer.set_exception(error)
