"""Small questions about a volume, as repair and moves ask them of a snapshot."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from directory.decisions.repair_views import Snapshot, VolumeView
from directory.decisions.replication import Replication, Site, parse_replication
from directory.storage.tables import NO_MARK, MarkRecord, VolumeRecord


def promise_of(record: VolumeRecord) -> Replication:
    """Return what a volume's replication promises."""
    return parse_replication(record.replication if record.promised > 1 else "000")


def is_alive(store_id: str, snapshot: Snapshot) -> bool:
    """Say whether a Store can be worked with."""
    store = snapshot.stores.get(store_id)
    return store is not None and store.alive


def mark_of(store_id: str, snapshot: Snapshot) -> MarkRecord:
    """Return what the operator has decided about a Store."""
    store = snapshot.stores.get(store_id)
    return store.mark if store else NO_MARK


def is_leaving(store_id: str, view: VolumeView, snapshot: Snapshot) -> bool:
    """Say whether the operator wants this copy elsewhere."""
    mark = mark_of(store_id, snapshot)
    copy = view.copies.get(store_id)
    return mark.mark == "removed" or mark.draining(copy.folder if copy else "")


def is_usable_stale(store_id: str, view: VolumeView, snapshot: Snapshot) -> bool:
    """Say whether a copy that does not count can be brought up to date now."""
    copy = view.copies.get(store_id)
    return (
        copy is not None
        and copy.state not in ("failed", "recovering")
        and is_alive(store_id, snapshot)
        and (view.record.volume, store_id) not in snapshot.resting
    )


def sites_of(members: Iterable[str], snapshot: Snapshot) -> list[Site]:
    """Return where Stores stand; one that is not known stands alone."""
    return [_site(member, snapshot) for member in members]


def size_of(view: VolumeView) -> int:
    """Return the bytes of a volume's longest copy in sync, as far as it was reported."""
    return max((view.copies[m].size_bytes for m in view.record.in_sync if m in view.copies), default=0)


def name_of(store_id: str, snapshot: Snapshot) -> str:
    """Return a Store in words."""
    store = snapshot.stores.get(store_id)
    return f"Store {store.url}" if store else f"Store {store_id}"


def names_of(members: Iterable[str], snapshot: Snapshot) -> str:
    """Return Stores in words."""
    return ", ".join(name_of(member, snapshot) for member in members)


def may_give_up(record: VolumeRecord, target: str, sites: Mapping[str, Site], alive: Collection[str]) -> bool:
    """Say whether the promise is kept, on living Stores, without one copy. Asked again when it is really given up."""
    if target not in record.in_sync or not set(record.in_sync) <= set(alive):
        return False
    others = [sites[member] for member in record.in_sync if member != target]
    promise = promise_of(record)
    return promise.kept(others) >= promise.copies


def _site(store_id: str, snapshot: Snapshot) -> Site:
    store = snapshot.stores.get(store_id)
    return store.site if store else Site(store_id, f"?{store_id}", f"?{store_id}")
