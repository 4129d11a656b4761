"""Calls of the Directory to the admin API of Stores."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any

import aiohttp

from directory.errors import NewerEpoch, OtherGeneration
from directory.messages import (
    FollowState,
    StoreDocument,
    VolumeDocument,
    VolumeTail,
    parse_follow,
    parse_tail,
    parse_volume,
)
from directory.settings import GROW_TIMEOUT_SECONDS, STORE_CALL_TIMEOUT_SECONDS
from directory.storage.tables import VolumeRecord
from haystack.errors import InvalidRequest, VolumeNotFound, VolumeUnavailable
from haystack.json_calls import AnswerTooLarge, NoAnswer, json_call

MAX_ANSWER_BYTES = 1024 * 1024
MAX_CONNECTIONS_PER_STORE = 32


class StoreClient:
    """Signed calls to Stores. Make it inside the event loop, end it with :meth:`close`.

    Parameters
    ----------
    secret: the cluster's secret; None sends unsigned calls.
    wall_clock: unix seconds, for the signatures.
    """

    def __init__(self, secret: bytes | None, wall_clock: Callable[[], float] = time.time) -> None:
        self._secret = secret
        self._wall_clock = wall_clock
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit_per_host=MAX_CONNECTIONS_PER_STORE))

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def make_volume(
        self, store: StoreDocument, folder: str, record: VolumeRecord, membership: dict[str, Any] | None = None
    ) -> VolumeDocument:
        """Have a copy of a new volume made, and return it as the Store describes it.

        ``membership``: who else makes one; None when there is only this.

        Raises
        ------
        VolumeUnavailable: the Store did not make it, cannot be reached, or answered something else.
        """
        _, answer = await self._call(
            "POST",
            store,
            "/admin/volumes",
            {
                "volume": record.volume,
                "uuid": record.uuid,
                "replication": record.replication,
                "createdMs": record.created_ms,
                "epoch": record.epoch,
                "maxBytes": record.max_bytes,
                "folder": folder,
                **({"membership": membership} if membership else {}),
            },
            timeout_seconds=GROW_TIMEOUT_SECONDS,
        )
        try:
            document = parse_volume(answer)
        except InvalidRequest as error:
            raise VolumeUnavailable(f"Store {store.url} answered strangely: {error}") from error
        if (document.volume, document.uuid) != (record.volume, record.uuid):
            raise VolumeUnavailable(
                f"Store {store.url} was to make volume {record.volume} ({record.uuid}), and answered with "
                f"{document.volume} ({document.uuid})"
            )
        return document

    async def put_membership(self, store: StoreDocument, volume: int, membership: dict[str, Any]) -> None:
        """Tell a Store the membership of a volume. Returns when it is durable there.

        Raises
        ------
        NewerEpoch: the Store knows a membership of a higher epoch.
        OtherGeneration: its file is of another generation, and cannot become of this one.
        VolumeNotFound: it does not have the volume.
        VolumeUnavailable: anything else.
        """
        path = f"/admin/volumes/{volume}/membership"
        status, answer = await self._call("PUT", store, path, membership, accepted=(200, 404, 409))
        if status == 404:
            raise VolumeNotFound(f"Store {store.url} does not have volume {volume}")
        if status == 409:
            generation = answer.get("generation") if isinstance(answer, dict) else None
            if type(generation) is int:
                wanted = membership.get("generation")
                raise OtherGeneration(
                    f"Store {store.url} has generation {generation} of volume {volume}, not {wanted}", generation
                )
            known_epoch = answer.get("epoch") if isinstance(answer, dict) else None
            if type(known_epoch) is not int:
                raise VolumeUnavailable(f"Store {store.url} refused the membership of volume {volume}: {answer}")
            raise NewerEpoch(f"Store {store.url} knows epoch {known_epoch} of volume {volume}", known_epoch)

    async def follow(self, store: StoreDocument, volume: int, order: dict[str, Any]) -> FollowState:
        """Have a Store copy what it lacks of a volume, or ask how far it is. Raises VolumeUnavailable."""
        path = f"/admin/volumes/{volume}/follow"
        _, answer = await self._call("POST", store, path, order, accepted=(200, 202))
        try:
            return parse_follow(answer)
        except InvalidRequest as error:
            raise VolumeUnavailable(f"Store {store.url} answered strangely: {error}") from error

    async def admit(self, store: StoreDocument, volume: int, epoch: int, member: dict[str, str]) -> int:
        """Have a primary wait for a copy that is complete; returns the tail that it was brought to.

        Raises VolumeUnavailable.
        """
        path = f"/admin/volumes/{volume}/admit"
        document = {"epoch": epoch, "member": member}
        _, answer = await self._call("POST", store, path, document, timeout_seconds=GROW_TIMEOUT_SECONDS)
        tail = answer.get("tail") if isinstance(answer, dict) else None
        return tail if type(tail) is int else 0

    async def compact(self, store: StoreDocument, volume: int, order: dict[str, Any]) -> dict[str, Any]:
        """Have a Store begin to compact a volume; returns how far it is. Raises VolumeUnavailable."""
        _, answer = await self._call("POST", store, f"/admin/volumes/{volume}/compact", order, accepted=(202,))
        return _job(store, answer)

    async def compaction(self, store: StoreDocument, volume: int) -> dict[str, Any]:
        """How far the compaction of a volume is. Raises VolumeUnavailable."""
        _, answer = await self._call("GET", store, f"/admin/volumes/{volume}/compact", None)
        return _job(store, answer)

    async def winnable_bytes(self, store: StoreDocument, volume: int) -> int:
        """What compacting a volume would win now, without what is in the trash. Raises VolumeUnavailable."""
        path = f"/admin/volumes/{volume}/space"
        _, answer = await self._call("GET", store, path, None, timeout_seconds=GROW_TIMEOUT_SECONDS)
        parts = [answer.get(name) for name in ("garbageBytes", "expiredBytes")] if isinstance(answer, dict) else []
        found = [part for part in parts if type(part) is int]
        if len(found) != 2:
            raise VolumeUnavailable(f"Store {store.url} answered strangely: {str(answer)[:500]}")
        return sum(found)

    async def cancel_compaction(self, store: StoreDocument, volume: int) -> None:
        """Have a Store give up what it compacts or has prepared of a volume, if anything. Raises VolumeUnavailable."""
        path = f"/admin/volumes/{volume}/compact"
        await self._call("DELETE", store, path, None, accepted=(200, 404), timeout_seconds=GROW_TIMEOUT_SECONDS)

    async def delete_volume(self, store: StoreDocument, volume: int, uuid: str, epoch: int) -> None:
        """Have a copy removed that does not count any more; one that is not there is fine. Raises VolumeUnavailable."""
        document = {"uuid": uuid, "epoch": epoch}
        path = f"/admin/volumes/{volume}"
        await self._call(
            "DELETE", store, path, document, accepted=(200, 202, 204, 404), timeout_seconds=GROW_TIMEOUT_SECONDS
        )

    async def tail(self, store: StoreDocument, volume: int) -> VolumeTail:
        """Ask how far a copy is durable, and equal to all others. Raises VolumeUnavailable."""
        _, answer = await self._call("GET", store, f"/admin/volumes/{volume}/hashes", None)
        try:
            return parse_tail(answer)
        except InvalidRequest as error:
            raise VolumeUnavailable(f"Store {store.url} answered strangely: {error}") from error

    async def _call(
        self,
        method: str,
        store: StoreDocument,
        path: str,
        document: dict[str, Any] | None,
        *,
        accepted: Collection[int] = (200, 201),
        timeout_seconds: float = STORE_CALL_TIMEOUT_SECONDS,
    ) -> tuple[int, Any]:
        """Return status and JSON of an answer that is one of those accepted. Raises VolumeUnavailable."""
        url = f"http://{store.admin_url}{path}"
        try:
            answer = await json_call(
                self._session,
                method,
                url,
                document,
                secret=self._secret,
                timeout=aiohttp.ClientTimeout(total=timeout_seconds),
                max_answer_bytes=MAX_ANSWER_BYTES,
                now=self._wall_clock,
            )
        except (NoAnswer, AnswerTooLarge) as error:
            raise VolumeUnavailable(f"Store {store.url} cannot be reached at {url}: {error}") from error
        if answer.status not in accepted:
            raise VolumeUnavailable(f"Store {store.url} refused with {answer.status}: {answer.reason}")
        if answer.body and answer.document is None and answer.status != 404:
            raise VolumeUnavailable(f"{url}: the answer of Store {store.url} is no JSON")
        return answer.status, answer.document


def _job(store: StoreDocument, answer: Any) -> dict[str, Any]:
    """A compaction as its Store describes it. Raises VolumeUnavailable."""
    numbers = ("generation", "cut", "newCut", "oldBytes", "newBytes")
    if isinstance(answer, dict) and isinstance(answer.get("error"), str):
        if answer.get("state") in ("waiting", "running", "ready", "failed"):
            return answer
        ends = answer.get("ends")
        if (
            answer.get("state") == "done"
            and isinstance(ends, dict)
            and all(type(answer.get(n)) is int for n in numbers)
        ):
            return answer
    raise VolumeUnavailable(f"Store {store.url} answered strangely: {str(answer)[:500]}")
