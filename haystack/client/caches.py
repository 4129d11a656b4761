"""The Caches, as a client knows them: who is there, and to which of them a photo belongs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from haystack.client.locations import with_scheme
from haystack.client.retry import Transient
from haystack.errors import HaystackError
from haystack.rendezvous import Node, order, turned

LIFETIME_SECONDS = 5.0
"""How long a list of the Caches is believed; it is then asked for anew while reads go on with the old one."""

FIRST_PATIENCE_SECONDS = 0.5
"""How long the first read waits for the list."""

MAX_TRIED = 2
"""Caches that are asked for a photo before its Stores are."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CacheNode:
    """One Cache: its id and weight for the choice, and where it is reached inside the cluster and by clients."""

    id: str
    weight: float
    url: str
    public_url: str

    def base(self, *, internal: bool) -> str:
        """Return the address to put a path behind, with scheme and without a slash at the end."""
        return with_scheme(self.url if internal else self.public_url or self.url)


@dataclass(frozen=True, slots=True)
class CacheList:
    """What a Directory says of the Caches.

    Parameters
    ----------
    shared: photo ids that several Caches share since they are read so much, and how many do.
    """

    nodes: tuple[CacheNode, ...] = ()
    shared: Mapping[int, int] | None = None

    def of_photo(self, photo_id: int, uniform: Callable[[], float]) -> list[CacheNode]:
        """Return the Caches to ask for a photo, in this order."""
        if not self.nodes:
            return []
        by_id = {node.id: node for node in self.nodes}
        sharing = min((self.shared or {}).get(photo_id, 1), len(self.nodes))
        ranked = order(photo_id, (Node(node.id, node.weight) for node in self.nodes), max(sharing, MAX_TRIED))
        chosen = turned(ranked, sharing, uniform() if sharing > 1 else 0.0)
        return [by_id[node.id] for node in chosen[:MAX_TRIED]]


def parse_caches(document: Any) -> CacheList:
    """Read the answer of ``/dir/caches``; what is malformed is left out: reads go to the Stores then."""
    if not isinstance(document, dict):
        return CacheList()
    found, shared = document.get("caches"), document.get("shared")
    nodes = [node for one in found if (node := _node(one))] if isinstance(found, list) else []
    counts = shared.items() if isinstance(shared, dict) else ()
    return CacheList(tuple(nodes), {_hex(photo): count for photo, count in counts if type(count) is int and count > 0})


class CacheNodes:
    """Keeps the list of the Caches.

    Parameters
    ----------
    fetch: asks a Directory for it; raises Transient and HaystackError.
    now: a clock that never goes back, in seconds.
    """

    def __init__(self, fetch: Callable[[], Awaitable[CacheList]], *, now: Callable[[], float]) -> None:
        self._fetch = fetch
        self._now = now
        self._list: CacheList | None = None
        self._until_seconds = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    async def known(self) -> CacheList:
        """Return the Caches as known; the first call asks for them, for a moment."""
        if self._now() >= self._until_seconds and self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._ask())
        if self._list is None and self._asking is not None:
            await asyncio.wait((self._asking,), timeout=FIRST_PATIENCE_SECONDS)
            self._list = self._list or CacheList()
        return self._list or CacheList()

    async def close(self) -> None:
        """Break off what is under way."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait((self._asking,))

    async def _ask(self) -> None:
        try:
            self._list = await self._fetch()
        except (Transient, HaystackError) as error:
            # The list of before must do, and Stores are asked when it is wrong.
            _log.debug("the Caches are not known: %s", error)
        finally:
            self._until_seconds = self._now() + LIFETIME_SECONDS
            self._asking = None


def _node(document: Any) -> CacheNode | None:
    match document:
        case {"id": str(cache_id), "url": str(url), "weight": int() | float() as weight} if weight > 0:
            public_url = document.get("publicUrl")
            return CacheNode(cache_id, float(weight), url, public_url if isinstance(public_url, str) else url)
    return None


def _hex(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        return -1
