"""The cluster as the Directory describes it (``/dir/status``), read once, for commands that show or judge it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from haystack.client.errors import UnexpectedAnswer
from haystack.errors import VolumeNotFound


@dataclass(frozen=True, slots=True)
class StoreView:
    """One Store; sizes over all its data folders. ``state``: alive, dead or unknown; ``mark``: as of NodeView."""

    store_id: str
    url: str
    admin_url: str
    state: str
    data_center: str
    rack: str
    version: str
    volumes: int
    free_bytes: int
    total_bytes: int
    writes_per_second: float
    mark: str
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class VolumeView:
    """One logical volume.

    Parameters
    ----------
    members: Stores that are to hold a copy. in_sync: those that have every acknowledged photo.
    copies: how many are promised. degraded_since_ms: 0 when it has them.
    """

    volume: int
    state: str
    reason: str
    primary: str
    in_sync: tuple[str, ...]
    members: tuple[str, ...]
    copies: int
    degraded_since_ms: int
    live_count: int
    live_bytes: int
    deleted_bytes: int
    size_bytes: int
    max_bytes: int | None
    reads: int | None
    writes: int | None
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ClusterView:
    """The whole cluster."""

    version: str
    cluster_id: str
    counts: Mapping[str, int]
    problems: tuple[str, ...]
    stores: tuple[StoreView, ...]
    volumes: tuple[VolumeView, ...]
    document: Mapping[str, Any]

    def store(self, store_id: str) -> StoreView | None:
        """Return a Store by its id, None when the Directory does not know it."""
        return next((store for store in self.stores if store.store_id == store_id), None)

    def volume(self, volume: int) -> VolumeView:
        """Return a volume. Raises VolumeNotFound."""
        for one in self.volumes:
            if one.volume == volume:
                return one
        raise VolumeNotFound(f"volume {volume} is not known to the Directory; `haystack volume list` shows all")

    def address_of(self, store_id: str) -> str:
        """Return a Store's ``host:port``, or its id when the Directory does not know it."""
        store = self.store(store_id)
        return store.url if store else store_id


def parse_cluster(document: Mapping[str, Any]) -> ClusterView:
    """Read the document of ``/dir/status``. Raises UnexpectedAnswer when it is not one of ours."""
    try:
        return ClusterView(
            version=str(document["Version"]),
            cluster_id=str(document["ClusterId"]),
            counts={str(name): int(count) for name, count in document["Counts"].items()},
            problems=tuple(str(problem) for problem in document["Problems"]),
            stores=tuple(_store(one) for one in document["Stores"]),
            volumes=tuple(_volume(one) for one in document["Volumes"]),
            document=document,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnexpectedAnswer(
            f"/dir/status: the answer is not understood ({type(error).__name__}: {error}); "
            "are Directory and this command of the same release?"
        ) from error


def _store(document: Mapping[str, Any]) -> StoreView:
    folders = document["folders"]
    return StoreView(
        store_id=str(document["storeId"]),
        url=str(document["url"]),
        admin_url=str(document["adminUrl"]),
        state=str(document["state"]),
        data_center=str(document["dataCenter"]),
        rack=str(document["rack"]),
        version=str(document["version"]),
        volumes=int(document["volumes"]),
        free_bytes=sum(int(folder["freeBytes"]) for folder in folders),
        total_bytes=sum(int(folder["totalBytes"]) for folder in folders),
        writes_per_second=float(document["writesPerSecond"]),
        mark=str(document.get("mark") or "none"),
        document=document,
    )


def _volume(document: Mapping[str, Any]) -> VolumeView:
    most = document["maxBytes"]
    return VolumeView(
        volume=int(document["volume"]),
        state=str(document["state"]),
        reason=str(document["reason"] or ""),
        primary=str(document["primary"]),
        in_sync=tuple(str(store) for store in document["inSync"]),
        members=tuple(str(store) for store in document["members"]),
        copies=int(document["copies"]),
        degraded_since_ms=int(document["degradedSinceMs"]),
        live_count=int(document["liveCount"]),
        live_bytes=int(document["liveBytes"]),
        deleted_bytes=int(document["deletedBytes"] or 0),
        size_bytes=int(document["sizeBytes"]),
        max_bytes=int(most) if most is not None else None,
        reads=document["reads"],
        writes=document["writes"],
        document=document,
    )
