"""The machines and the repair as the Directory describes them (``/cluster/nodes``, ``/cluster/repair``), read once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from haystack.client.errors import UnexpectedAnswer
from haystack.errors import InvalidRequest

NODES = "/cluster/nodes"
REPAIR = "/cluster/repair"

LEAST_ID_CHARS = 4
"""A Store may be named by the beginning of its id, when that is at least so long."""


@dataclass(frozen=True, slots=True)
class Drain:
    """How far the emptying of a Store is."""

    volumes_left: int
    bytes_left: int
    blocked: tuple[tuple[int, str], ...]
    """Volumes that cannot leave, with the reason."""
    done: bool


@dataclass(frozen=True, slots=True)
class NodeView:
    """One Store.

    ``state``: alive, dead or unknown (not heard of since the Directory started). ``mark``: none, readonly,
    maintenance, draining or removed.
    """

    store_id: str
    url: str
    data_center: str
    rack: str
    version: str
    state: str
    last_seen_seconds: float | None
    mark: str
    volumes: int
    primaries: int
    stale: int
    only_copies: tuple[int, ...]
    free_bytes: int
    total_bytes: int
    writes_per_second: float
    folders: tuple[Mapping[str, Any], ...]
    drain: Drain | None
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Degraded:
    """A volume with fewer copies in sync than promised."""

    volume: int
    promised: int
    in_sync: tuple[str, ...]
    stale: tuple[str, ...]
    copy_in_seconds: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Copying:
    """One copy that is being made."""

    volume: int
    action: str
    target: str
    source: str
    copied_bytes: int
    total_bytes: int
    error: str


@dataclass(frozen=True, slots=True)
class RepairView:
    """What is under-replicated, and what is done about it."""

    settled: bool
    waiting_for: tuple[str, ...]
    delay_seconds: float
    degraded: tuple[Degraded, ...]
    steps: tuple[Mapping[str, Any], ...]
    running: tuple[Copying, ...]
    recent: tuple[Mapping[str, Any], ...]
    blocked: tuple[tuple[int, str], ...]
    document: Mapping[str, Any]

    def failing(self, nodes: Sequence[NodeView]) -> dict[int, str]:
        """Return the volumes that lack copies and whose last repair failed, with the reason.

        That a Store which is down did not take a copy is no failure of its own.
        """
        dead = {node.store_id for node in nodes if node.state == "dead"}
        last = {int(one.get("volume", 0)): one for one in reversed(self.recent)}
        wanting = {one.volume for one in self.degraded} - {one.volume for one in self.running}
        return {
            volume: str(one["error"])
            for volume, one in last.items()
            if one.get("error") and volume in wanting and one.get("target") not in dead
        }


def parse_nodes(document: Mapping[str, Any]) -> tuple[NodeView, ...]:
    """Read the document of ``/cluster/nodes``. Raises UnexpectedAnswer."""
    try:
        return tuple(_node(one) for one in document["nodes"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _not_understood(NODES, error) from error


def parse_repair(document: Mapping[str, Any]) -> RepairView:
    """Read the document of ``/cluster/repair``. Raises UnexpectedAnswer."""
    try:
        return RepairView(
            settled=bool(document["settled"]),
            waiting_for=tuple(str(one) for one in document["waitingFor"]),
            delay_seconds=float(document["delaySeconds"]),
            degraded=tuple(_degraded(one) for one in document["degraded"]),
            steps=tuple(dict(one) for one in document["steps"]),
            running=tuple(_copying(one) for one in document["running"]),
            recent=tuple(dict(one) for one in document["recent"]),
            blocked=_reasons(document["blocked"]),
            document=document,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _not_understood(REPAIR, error) from error


def find_node(nodes: Sequence[NodeView], name: str) -> NodeView:
    """Return the Store that is meant by its address, its id, or the beginning of its id. Raises InvalidRequest."""
    name = name.strip().removeprefix("http://").rstrip("/")
    addresses = [node for node in nodes if name in (node.url, node.document.get("publicUrl"), node.store_id)]
    found = addresses or [
        node for node in nodes if len(name) >= LEAST_ID_CHARS and node.store_id.startswith(name.lower())
    ]
    if len(found) == 1:
        return found[0]
    if found:
        # A Store that got a new disk is a new Store at an old address.
        alive = [node for node in found if node.state == "alive"]
        if len(alive) == 1:
            return alive[0]
        raise InvalidRequest(f"{name!r} may be {' or '.join(node.store_id for node in found)}; give the whole id")
    known = ", ".join(node.url for node in nodes) or "none has ever registered"
    raise InvalidRequest(f"there is no Store {name!r}; known: {known}")


def address_of(nodes: Sequence[NodeView], store_id: str) -> str:
    """Return a Store's address, or its id when it is not known."""
    return next((node.url for node in nodes if node.store_id == store_id), store_id)


def _node(document: Mapping[str, Any]) -> NodeView:
    seen = document["lastSeenSecondsAgo"]
    drain = document["drain"]
    return NodeView(
        store_id=str(document["storeId"]),
        url=str(document["url"]),
        data_center=str(document["dataCenter"]),
        rack=str(document["rack"]),
        version=str(document["version"]),
        state=str(document["state"]),
        last_seen_seconds=float(seen) if seen is not None else None,
        mark=str(document["mark"]),
        volumes=int(document["volumes"]),
        primaries=int(document["primaries"]),
        stale=int(document["stale"]),
        only_copies=tuple(int(volume) for volume in document["onlyCopies"]),
        free_bytes=int(document["freeBytes"]),
        total_bytes=int(document["totalBytes"]),
        writes_per_second=float(document["writesPerSecond"]),
        folders=tuple(dict(one) for one in document["folders"]),
        drain=_drain(drain) if drain is not None else None,
        document=document,
    )


def _drain(document: Mapping[str, Any]) -> Drain:
    return Drain(
        volumes_left=int(document["volumesLeft"]),
        bytes_left=int(document["bytesLeft"]),
        blocked=_reasons(document["blocked"]),
        done=bool(document["done"]),
    )


def _degraded(document: Mapping[str, Any]) -> Degraded:
    wait = document["copyInSeconds"]
    return Degraded(
        volume=int(document["volume"]),
        promised=int(document["promised"]),
        in_sync=tuple(str(one) for one in document["inSync"]),
        stale=tuple(str(one) for one in document["stale"]),
        copy_in_seconds=float(wait) if wait is not None else None,
        reason=str(document.get("reason") or ""),
    )


def _copying(document: Mapping[str, Any]) -> Copying:
    return Copying(
        volume=int(document["volume"]),
        action=str(document["action"]),
        target=str(document["target"]),
        source=str(document.get("source") or ""),
        copied_bytes=int(document["copiedBytes"]),
        total_bytes=int(document["totalBytes"]),
        error=str(document.get("error") or ""),
    )


def _reasons(documents: Sequence[Mapping[str, Any]]) -> tuple[tuple[int, str], ...]:
    return tuple((int(one["volume"]), str(one["reason"])) for one in documents)


def _not_understood(path: str, error: Exception) -> UnexpectedAnswer:
    return UnexpectedAnswer(
        f"{path}: the answer is not understood ({type(error).__name__}: {error}); "
        "are Directory and this command of the same release?"
    )
