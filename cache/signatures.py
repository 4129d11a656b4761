"""Photos that are given to signed URLs alone (:mod:`haystack.signed_urls`): who may see them at a Cache.

The keeper fetches with a signature of its own, so what is kept, and what is known not to be there, does not depend on
who asked. Each request for such a photo is then judged by itself, by the strict way alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cache.board import Counter, Tally
from haystack.fid import Fid
from haystack.http.request import Request
from haystack.signed_urls import UrlSigner
from haystack.store.targets import not_here
from haystack.volume.layout import Flags

SIGNED: Final = int(Flags.SIGNED)
"""Flag of a record, as of its needle."""

OWN_SECONDS: Final = 3600
"""How far a Cache's own signatures reach: clocks may differ by so much."""


class Signatures:
    """Judges the requests that a worker has.

    Parameters
    ----------
    wall_clock: seconds since 1970.
    """

    def __init__(self, signer: UrlSigner, tally: Tally, wall_clock: Callable[[], float]) -> None:
        self._signer = signer
        self._tally = tally
        self._wall_clock = wall_clock

    def shown_until(self, request: Request, fid: Fid, flags: int) -> int:
        """Until when the request may be shown the photo, seconds since 1970; 0 for what everybody may see.

        Parameters
        ----------
        flags: of the photo's record.

        Raises NeedleNotFound, in the words of a Store that has no such photo.
        """
        if not flags & SIGNED:
            return 0
        until = self._signer.valid_until(fid, request.query_value("e"), request.query_value("s"))
        if self._wall_clock() >= until:
            self._tally.add(Counter.NEGATIVE)
            raise not_here(fid)
        return until


def own_path(signer: UrlSigner, fid: Fid, now_seconds: float) -> str:
    """What a Cache asks a Store for, so that it is given whatever is there.

    Parameters
    ----------
    now_seconds: since 1970.
    """
    if not signer.able:
        return f"/{fid}"
    return f"/{fid}?{signer.query(fid, int(now_seconds) + OWN_SECONDS)}"
