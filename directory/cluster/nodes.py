"""What the operator decides about Stores: marks, and giving up dead ones for good."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace

from directory.cluster.store_state import StoreState
from directory.decisions import failure
from directory.errors import NotPossibleNow
from directory.membership.memberships import Memberships
from directory.repair.healer import Healer
from directory.service import Service
from directory.storage.interface import Draft, Table
from directory.storage.tables import MARKS, NO_MARK, MarkRecord, VolumeRecord
from haystack.errors import InvalidRequest, VolumeNotFound

MAX_TOLD = 20
"""Volumes that one line names."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MarkOrder:
    """What the operator wants.

    Parameters
    ----------
    mark: one of :data:`~directory.storage.tables.MARKS`.
    folder: id of one data folder that it is about; None for the whole Store.
    accept_loss: for "removed": go on though what nobody else has is given up by it.
    """

    mark: str
    folder: str | None = None
    accept_loss: bool = False


@dataclass(frozen=True, slots=True)
class MarkPlan:
    """What an order comes to: the new mark, in words what follows, and volumes of which something is given up.

    Parameters
    ----------
    stale: volumes whose best other copy is a stale one, with the Store that has it: it is promoted.
    lost: volumes that would have no copy at all.
    """

    record: MarkRecord
    steps: tuple[str, ...]
    stale: dict[int, str]
    lost: tuple[int, ...]


class StoreNotFound(VolumeNotFound):
    """No such Store."""


class Nodes:
    """Marks of Stores."""

    def __init__(self, service: Service, memberships: Memberships, healer: Healer) -> None:
        self._service = service
        self._memberships = memberships
        self._healer = healer

    def find(self, text: str) -> StoreState:
        """Return the Store of an id, or of an address. Raises StoreNotFound."""
        stores = self._service.cluster.stores
        if text in stores:
            return stores[text]
        for store in stores.values():
            if text in (store.document.url, store.document.public_url):
                return store
        raise StoreNotFound(f"no Store {text[:100]!r} is known; see /cluster/nodes for those that are")

    def plan(self, store: StoreState, order: MarkOrder) -> MarkPlan:
        """Return what an order comes to.

        Raises
        ------
        InvalidRequest: an unknown mark or folder.
        NotPossibleNow: the Store is alive and cannot be removed.
        """
        if order.mark not in MARKS:
            raise InvalidRequest(f"mark {order.mark[:40]!r} is none of {', '.join(MARKS)}")
        now_ms = int(self._service.wall_clock() * 1000)
        if order.folder is not None:
            return self._plan_folder(store, order, now_ms)
        record = replace(store.mark, mark=order.mark, since_ms=now_ms)
        if order.mark == "none":
            record = NO_MARK
        if order.mark == "removed":
            return self._plan_removal(store, record)
        return MarkPlan(record, tuple(self._words(store, order.mark)), {}, ())

    async def apply(self, store: StoreState, order: MarkOrder) -> MarkPlan:
        """Do what :meth:`plan` says, durably. Raises as that does, and NotPossibleNow when a loss is not accepted."""
        plan = self.plan(store, order)
        if (plan.lost or plan.stale) and not order.accept_loss:
            raise NotPossibleNow(
                "; ".join(plan.steps) + ": nothing was done; repeat it and accept the loss if that is what you want"
            )
        store_id = store.document.store_id
        await self._service.committer.run(
            lambda draft: _write_mark(draft, store_id, plan.record), lambda _: self._take_mark(store_id, plan.record)
        )
        if order.mark == "removed":
            await self._remove(store_id, plan)
        log.warning("Store %s (%s) is marked %s: %s", store.document.url, store_id, order.mark, "; ".join(plan.steps))
        self._healer.look()
        return plan

    def _take_mark(self, store_id: str, record: MarkRecord) -> None:
        self._service.cluster.stores[store_id].mark = record
        self._service.cluster_changed()

    def _plan_folder(self, store: StoreState, order: MarkOrder, now_ms: int) -> MarkPlan:
        if order.mark not in ("none", "draining"):
            raise InvalidRequest("one data folder can be marked draining or none; other marks are of whole Stores")
        folder = next((f for f in store.folders.values() if order.folder in (f.id, f.path)), None)
        marked = dict(store.mark.folders)
        folder_id = folder.id if folder else order.folder or ""
        if folder is None and folder_id not in marked:
            raise InvalidRequest(f"Store {store.document.url} reports no data folder {order.folder!r:.200}")
        marked.pop(folder_id, None)
        name = f"{folder.path if folder else folder_id} of Store {store.document.url}"
        if order.mark == "none":
            steps: tuple[str, ...] = (f"{name} takes new volumes again",)
        else:
            marked[folder_id] = now_ms
            steps = (
                f"{name} gets no new volumes and no new photos",
                f"{store.volume_counts[folder_id]} copies are made on other Stores, then given up here",
            )
        return MarkPlan(replace(store.mark, folders=tuple(sorted(marked.items()))), steps, {}, ())

    def _words(self, store: StoreState, mark: str) -> list[str]:
        name, count = f"Store {store.document.url}", len(store.volumes)
        if mark == "none":
            return [f"{name} takes new volumes and photos again"]
        words = [f"{name} gets no new volumes and no new photos; it goes on serving the {count} copies that it has"]
        if mark == "maintenance":
            words.append("while it is away, no copies are made elsewhere because of that")
        if mark == "draining":
            words.append(f"its {count} copies are made on other Stores, then given up here; then it may be removed")
        return words

    # -- removal

    def _plan_removal(self, store: StoreState, record: MarkRecord) -> MarkPlan:
        cluster, store_id = self._service.cluster, store.document.store_id
        now_seconds = self._service.clock()
        if cluster.alive(store_id, now_seconds):
            if cluster.index.by_member[store_id]:
                raise NotPossibleNow(
                    f"Store {store.document.url} is alive and has {len(cluster.index.by_member[store_id])} volumes: "
                    "drain it first, or stop it for good"
                )
        elif not cluster.settled(now_seconds):
            raise NotPossibleNow(
                "the Directory has just started and not all Stores have reported; try again in a moment"
            )
        stale: dict[int, str] = {}
        lost: list[int] = []
        volumes = sorted(cluster.index.by_member[store_id])
        for volume in volumes:
            known = cluster.records[volume]
            if known.in_sync == (store_id,):
                best = self._best_stale(known)
                if best is None:
                    lost.append(volume)
                else:
                    stale[volume] = best
        words = [
            f"Store {store.document.url} is no member any more of its {len(volumes)} volumes, and never comes back"
        ]
        if stale:
            words.append(
                f"volumes {_told(list(stale))}: the last copy that has everything was there; a stale copy takes its "
                "place, what was stored or deleted since that fell behind is given up"
            )
        if lost:
            words.append(f"volumes {_told(lost)}: there is no other copy; all their photos are given up")
        return MarkPlan(record, tuple(words), stale, tuple(lost))

    def _best_stale(self, record: VolumeRecord) -> str | None:
        """Return the living Store whose stale copy knows the highest epoch, then has most bytes."""
        cluster, now_seconds = self._service.cluster, self._service.clock()
        found = [
            (copy.epoch, copy.size_bytes, member)
            for member in record.stale
            if cluster.alive(member, now_seconds)
            and (copy := cluster.stores[member].volumes.get(record.volume)) is not None
            and copy.uuid == record.uuid
            and copy.state != "failed"
        ]
        return max(found)[2] if found else None

    async def _remove(self, store_id: str, plan: MarkPlan) -> None:
        """Take a Store out of everything. Volumes that only it had keep it as their member: there is nobody else."""
        cluster, now_ms = self._service.cluster, int(self._service.wall_clock() * 1000)
        living = self._living()
        led = Counter(cluster.index.led)

        def decide(record: VolumeRecord) -> VolumeRecord:
            after = failure.without(record, {store_id}, ready=living.__contains__, tails={}, led=led, now_ms=now_ms)
            if after.in_sync == (store_id,) and record.volume in plan.stale:
                after = failure.resurrected(after, plan.stale[record.volume], now_ms)
            return failure.forgotten(after, store_id)

        await self._memberships.change(list(cluster.index.by_member[store_id]), decide)

    def _living(self) -> Collection[str]:
        cluster, now_seconds = self._service.cluster, self._service.clock()
        return {store_id for store_id in cluster.stores if cluster.alive(store_id, now_seconds)}


def _write_mark(draft: Draft, store_id: str, record: MarkRecord) -> None:
    key = store_id.encode()
    if record == NO_MARK:
        draft.delete(Table.MARKS, key)
    else:
        draft.put(Table.MARKS, key, record.pack())


def _told(volumes: list[int]) -> str:
    more = f" and {len(volumes) - MAX_TOLD} more" if len(volumes) > MAX_TOLD else ""
    return ", ".join(map(str, volumes[:MAX_TOLD])) + more
