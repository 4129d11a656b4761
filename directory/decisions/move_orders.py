"""Orders to move copies: what may be ordered, and where a copy goes when nobody says where. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from directory.decisions.repair_facts import promise_of
from directory.decisions.replication import Site
from directory.decisions.spaces import FolderSpace, refusal
from directory.storage.tables import VolumeRecord


class MoveKind(Enum):
    """What is ordered."""

    MOVE = "move"
    COPY = "copy"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class MoveOrder:
    """One copy that is to go from a Store to another; or be made; or go.

    Parameters
    ----------
    source: Store id; of a move, empty for the only copy that there is.
    target: Store id; empty when placement is to choose. folder: one of its data folders; empty: the one with most room.
    reason: in words.
    after: position in the list of orders of one that must be done first.
    """

    kind: MoveKind
    volume: int
    source: str = ""
    target: str = ""
    folder: str = ""
    reason: str = ""
    after: int | None = None


def swap(volume: int, source: str, other_volume: int, target: str, reason: str = "") -> list[MoveOrder]:
    """Return the orders for two copies to change places: the first goes to ``target``, then the other to ``source``."""
    return [
        MoveOrder(MoveKind.MOVE, volume, source, target, reason=reason),
        MoveOrder(MoveKind.MOVE, other_volume, target, source, reason=reason, after=0),
    ]


def refusal_of(order: MoveOrder, record: VolumeRecord, sites: Mapping[str, Site]) -> str:
    """Return why a move makes no sense for a volume as it is; empty when it does.

    Parameters
    ----------
    order: with source and target filled in.
    sites: of the members and the target.
    """
    volume = order.volume
    if order.kind is not MoveKind.COPY and order.source not in record.in_sync:
        return f"volume {volume} has no copy in sync on the Store that it is to leave"
    if order.kind is not MoveKind.DROP and order.target in record.members:
        return f"volume {volume} has a copy on that Store already"
    promise = promise_of(record)
    before = promise.kept(sites[member] for member in record.in_sync)
    if before < promise.copies:
        return f"volume {volume} has {before} of {promise.copies} promised copies in sync; repair comes first"
    staying = [member for member in record.in_sync if member != order.source]
    after = promise.kept(sites[member] for member in (*staying, order.target) if member)
    if after < promise.copies:
        return (
            f"volume {volume} would keep {after} of its {promise.copies} promised copies: replication "
            f"{record.replication} is {promise.in_words()}"
        )
    return ""


def choose_target(
    order: MoveOrder,
    record: VolumeRecord,
    sites: Mapping[str, Site],
    spaces: Iterable[FolderSpace],
    *,
    size_bytes: int,
    max_volume_bytes: int | None = None,
    hosts: Collection[str] = (),
) -> tuple[FolderSpace | None, str]:
    """Return where a copy goes, or None and why it cannot.

    Parameters
    ----------
    order: with the source filled in; a target that it names is the only one that is looked at.
    sites: of all Stores. hosts: machines that have a copy, which are chosen last.
    """
    refusals: list[str] = []
    fitting: list[FolderSpace] = []
    for space in spaces:
        if (
            space.store_id not in sites
            or order.target not in ("", space.store_id)
            or order.folder not in ("", space.folder)
        ):
            continue
        problem = refusal_of(replace(order, target=space.store_id), record, sites) or refusal(
            space, max_volume_bytes, taken_bytes=size_bytes
        )
        if problem:
            refusals.append(problem)
        else:
            fitting.append(space)
    if fitting:
        return max(fitting, key=lambda space: (space.host not in hosts, _claim(space))), ""
    distinct = dict.fromkeys(refusals)
    if order.target or len(distinct) == 1:
        return None, "; ".join(distinct) or f"Store {order.target} reports no such data folder"
    return (
        None,
        f"no other Store has room for volume {record.volume} where its replication {record.replication} allows it",
    )


def _claim(space: FolderSpace) -> tuple[float, str, str]:
    return space.free_bytes / (space.volumes + 1), space.store_id, space.folder
