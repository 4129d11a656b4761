"""The Directory's HTTP surface: which path leads to which handler."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler

from directory.assigning.assigner import Assigner
from directory.assigning.grower import Grower
from directory.cluster.nodes import Nodes
from directory.compaction.automatic import AutoCompaction
from directory.compaction.compactor import Compactor
from directory.handlers.assign import AssignHandlers
from directory.handlers.backup import BackupHandlers
from directory.handlers.caches import CacheHandlers
from directory.handlers.cluster import ClusterHandlers
from directory.handlers.compactions import CompactionHandlers
from directory.handlers.heat import HeatHandlers
from directory.handlers.internal import InternalHandlers
from directory.handlers.lookup import LookupHandlers
from directory.handlers.moves import MoveHandlers
from directory.handlers.rebalance import RebalanceHandlers
from directory.handlers.snapshots import SnapshotHandlers
from directory.handlers.status import StatusHandlers
from directory.membership.memberships import Memberships
from directory.metrics import Metrics
from directory.moves.mover import Mover
from directory.rebalancing.rebalancer import Rebalancer
from directory.repair.healer import Healer
from directory.service import Service
from directory.signed import SignedCalls
from directory.snapshots.snapshots import Snapshots
from directory.web import make_middleware
from haystack.connections import note_first_request
from haystack.sealed_ttl import LifeSeal
from haystack.security import Verifier


@dataclass(frozen=True, slots=True)
class Parts:
    """What one Directory is made of."""

    service: Service
    grower: Grower
    memberships: Memberships
    healer: Healer
    nodes: Nodes
    snapshots: Snapshots
    compactor: Compactor
    compacting: AutoCompaction
    mover: Mover
    rebalancer: Rebalancer


def make_app(
    parts: Parts,
    *,
    host: str,
    scratch: Path,
    heartbeat_seconds: float,
    seal: LifeSeal,
    verifier: Verifier | None = None,
) -> web.Application:
    """Return the application of one Directory.

    Parameters
    ----------
    host: the address that it listens on, for answers that name it.
    scratch: folder for files that are needed for a moment.
    heartbeat_seconds: how often Stores are told to report.
    seal: puts the lives of photos into their cookies.
    verifier: checks the Stores' signatures; None takes unsigned calls.
    """
    service, grower = parts.service, parts.grower
    metrics = Metrics(service, parts.healer, parts.compactor, parts.mover, parts.rebalancer)
    signed = SignedCalls(verifier)
    assign = AssignHandlers(Assigner(service, grower, seal), grower)
    lookup = LookupHandlers(service)
    internal = InternalHandlers(parts.memberships, service, grower, metrics, signed, heartbeat_seconds)
    status = StatusHandlers(service, parts.healer, parts.compacting, metrics, host)
    cluster = ClusterHandlers(service, parts.healer, parts.nodes, signed)
    backup = BackupHandlers(service, signed, scratch)
    snapshots = SnapshotHandlers(parts.snapshots, signed)
    compactions = CompactionHandlers(parts.compactor, parts.compacting, signed)
    moves = MoveHandlers(service, parts.healer, parts.mover, parts.nodes, parts.memberships, signed)
    rebalance = RebalanceHandlers(parts.rebalancer, signed)
    heat = HeatHandlers(service, parts.nodes, signed)
    caches = CacheHandlers(service, signed, heartbeat_seconds)
    app = web.Application(middlewares=[note_first_request, make_middleware(metrics)])
    router = app.router
    # What changes the cluster answers GET too, as in SeaweedFS, but never HEAD.
    changing: tuple[tuple[str, Handler], ...] = (
        ("/dir/assign", assign.assign),
        ("/vol/grow", assign.grow),
        ("/vol/vacuum", compactions.vacuum),
    )
    for path, handler in changing:
        router.add_route("GET", path, handler)
        router.add_route("POST", path, handler)
    router.add_post("/dir/lookup", lookup.lookup)
    router.add_post("/internal/stores/register", internal.register)
    router.add_post("/internal/stores/heartbeat", internal.heartbeat)
    router.add_post("/internal/stores/word", caches.word)
    router.add_post("/internal/confirm", internal.confirm)
    router.add_post("/internal/caches/heartbeat", caches.beat)
    router.add_post("/internal/caches/leave", caches.leave)
    router.add_post(r"/internal/volumes/{volume:[0-9]{1,10}}/suspect", internal.suspect)
    router.add_post("/cluster/nodes/{store}/mark", cluster.mark)
    router.add_post("/cluster/repair", cluster.repair_now)
    router.add_post(r"/cluster/volumes/{volume:[0-9]{1,10}}/weights", heat.weigh)
    router.add_post("/internal/hits", heat.hits)
    router.add_post(r"/cluster/volumes/{volume:[0-9]{1,10}}/mark", moves.mark)
    router.add_post(r"/cluster/volumes/{volume:[0-9]{1,10}}/{kind:move|copy|drop}", moves.order)
    router.add_post(r"/cluster/moves/{number:[0-9]{1,18}}/cancel", moves.cancel)
    router.add_post("/cluster/rebalance", rebalance.rebalance)
    router.add_post("/cluster/rebalance/stop", rebalance.stop)
    router.add_post("/cluster/snapshots", snapshots.take)
    router.add_post("/cluster/compactions", compactions.compact)
    router.add_delete("/cluster/snapshots/{name}", snapshots.delete)
    reading: tuple[tuple[str, Handler], ...] = (
        ("/", status.index),
        ("/dir/lookup", lookup.lookup),
        ("/dir/caches", caches.caches),
        ("/photos/{id}", lookup.photo),
        ("/dir/status", status.directory),
        ("/cluster/status", status.cluster),
        ("/cluster/nodes", cluster.nodes),
        ("/cluster/repair", cluster.repair),
        ("/cluster/heat", heat.heat),
        ("/cluster/snapshots", snapshots.list),
        ("/cluster/compactions", compactions.list),
        ("/cluster/moves", moves.list),
        ("/cluster/rebalance", rebalance.state),
        ("/cluster/decisions", rebalance.decisions),
        ("/cluster/snapshots/{name}", snapshots.show),
        ("/internal/backup", backup.backup),
        ("/internal/cache/changes", caches.changes),
        ("/internal/cache/volume", caches.volume),
        ("/internal/cache/hottest", caches.hottest),
        ("/internal/snapshots/{name}", snapshots.storage),
        ("/healthz", status.healthz),
        ("/readyz", status.readyz),
        ("/metrics", status.metrics),
        (r"/{name:[0-9]+(?:[,@][^/]*|/.*)}", lookup.redirect),
    )
    for path, handler in reading:
        router.add_get(path, handler)

    async def end_waiting(_: web.Application) -> None:
        service.feed.changes.close()

    # Caches that wait for news would hold up the end by as long as they like.
    app.on_shutdown.append(end_waiting)
    return app
