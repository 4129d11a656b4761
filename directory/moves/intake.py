"""What an order to move a copy comes to, as the cluster is now: from whom, to whom, or why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from directory.decisions.move_orders import MoveKind, MoveOrder, choose_target, refusal_of
from directory.decisions.spaces import FolderSpace
from directory.errors import NotPossibleNow
from directory.service import Service
from directory.storage.tables import VolumeRecord
from haystack.errors import InvalidRequest, VolumeNotFound


def resolve(
    service: Service, order: MoveOrder, max_volume_bytes: int | None, spaces: Sequence[FolderSpace]
) -> MoveOrder:
    """Return an order with source and target filled in, if it can be carried out as things are.

    Parameters
    ----------
    max_volume_bytes: size limit of volumes, None for that of the Stores.
    spaces: all data folders.

    Raises
    ------
    VolumeNotFound: there is no such volume.
    InvalidRequest: it does not say enough.
    NotPossibleNow: it cannot be done now; the message says why.
    """
    cluster = service.cluster
    record = cluster.records.get(order.volume)
    if record is None:
        raise VolumeNotFound(f"volume {order.volume} is not known; `haystack volume list` shows all")
    if order.kind is MoveKind.MOVE and not order.source:
        order = replace(order, source=_only_copy(service, record))
    for store_id in (order.source, order.target):
        if store_id and store_id not in cluster.stores:
            raise NotPossibleNow(f"Store {store_id} is not known; see /cluster/nodes for those that are")
    sites = {store_id: cluster.site(store_id) for store_id in (*cluster.stores, *record.members)}
    if order.kind is MoveKind.DROP:
        problem = refusal_of(order, record, sites)
    else:
        space, problem = choose_target(
            order,
            record,
            sites,
            spaces,
            # Where one move makes room for another, there is none yet; it is looked at again when it begins.
            size_bytes=size_of(service, record) if order.after is None else 0,
            max_volume_bytes=max_volume_bytes,
            hosts={cluster.stores[m].document.url.rpartition(":")[0] for m in record.in_sync if m in cluster.stores},
        )
        order = replace(order, target=space.store_id) if space is not None else order
    if problem:
        raise NotPossibleNow(problem)
    return order


def size_of(service: Service, record: VolumeRecord) -> int:
    """Return the bytes of a volume, as its primary reported them."""
    store = service.cluster.stores.get(record.primary)
    known = store.volumes.get(record.volume) if store is not None else None
    return known.size_bytes if known is not None else record.size_bytes


def _only_copy(service: Service, record: VolumeRecord) -> str:
    if len(record.in_sync) == 1:
        return record.primary
    stores = service.cluster.stores
    names = ", ".join(stores[m].document.url if m in stores else m for m in record.in_sync)
    raise InvalidRequest(f"volume {record.volume} has copies on {names}: say which one is to move (source)")
