"""``haystack status``: how the cluster is, in words."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import click

from haystack.units import format_size
from tools.app import EXIT_FAILED, App, cluster_options, pass_app
from tools.caches import COLUMNS as CACHE_COLUMNS
from tools.caches import parse_caches
from tools.caches import row as cache_row
from tools.control import Control
from tools.findings import Findings, Health, findings
from tools.node import heard_of
from tools.nodes import NODES, REPAIR, NodeView, RepairView, parse_nodes, parse_repair
from tools.output import Column, Output
from tools.view import ClusterView, parse_cluster

_COLUMNS = (
    Column("store"),
    Column("state"),
    Column("data center"),
    Column("rack"),
    Column("volumes", right=True),
    Column("leads", right=True),
    Column("free", right=True),
    Column("of", right=True),
    Column("writes/s", right=True),
    Column("heard of"),
    Column("version"),
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that the Directory says of its cluster, at about one moment."""

    view: ClusterView
    nodes: tuple[NodeView, ...]
    repair: RepairView


@click.command()
@cluster_options
@pass_app
def status(app: App) -> int:
    """Say how the cluster is: machines, volumes, copies, and what repair is doing.

    The exit code is 0 when all is well and 1 when it is not, or when the Directory does not answer.
    """
    snapshot = asyncio.run(_ask(app))
    found = findings(snapshot.view, snapshot.nodes, snapshot.repair)
    app.output.document(
        {
            "ok": found.health is Health.WELL,
            "health": found.health.name.lower(),
            "problems": found.problems,
            "advice": found.advice,
            "notes": found.notes,
            "nodes": [node.document for node in snapshot.nodes],
            "repair": snapshot.repair.document,
            **snapshot.view.document,
        }
    )
    _show(app.output, snapshot, found)
    return 0 if found.health is Health.WELL else EXIT_FAILED


async def _ask(app: App) -> Snapshot:
    async with Control(app.directory_urls(), app.secret) as control:
        return await take_snapshot(control)


async def take_snapshot(control: Control) -> Snapshot:
    """Ask the Directory for everything. Raises as Control does."""
    documents = await asyncio.gather(*(control.directory("GET", path) for path in ("/dir/status", NODES, REPAIR)))
    return Snapshot(parse_cluster(documents[0]), parse_nodes(documents[1]), parse_repair(documents[2]))


def _show(output: Output, snapshot: Snapshot, found: Findings) -> None:
    view = snapshot.view
    output.say(f"{found.health.value}: {in_short(snapshot)}.")
    for problem in found.problems:
        output.say(f"  - {problem}")
    if found.advice:
        output.say("What to do:")
        for number, advice in enumerate(found.advice, 1):
            output.say(f"  {number}. {advice}")
    for note in found.notes:
        output.say(note)
    if snapshot.nodes:
        output.say()
        output.table(_COLUMNS, [_row(view, node) for node in snapshot.nodes])
    if caches := parse_caches(view.document):
        output.say()
        output.table(CACHE_COLUMNS, [cache_row(cache) for cache in caches])
    output.say()
    output.say(f"Directory {view.version}, cluster {view.cluster_id}")


def in_short(snapshot: Snapshot) -> str:
    """Return machines, volumes, copies and photos in one line."""
    counts = snapshot.view.counts
    degraded = len(snapshot.repair.degraded)
    copies = f"{degraded} with too few copies" if degraded else "all with all their copies"
    return (
        f"{counts['storesAlive']} of {counts['stores']} Stores alive, {counts['volumes']} volumes "
        f"({counts['volumesWritable']} writable, {copies}), {counts['photos']:,} photos"
    )


def _row(view: ClusterView, node: NodeView) -> list[object]:
    return [
        node.url,
        node.state if node.mark == "none" else f"{node.state}, {node.mark}",
        node.data_center,
        node.rack,
        node.volumes,
        node.primaries,
        format_size(node.free_bytes),
        format_size(node.total_bytes),
        f"{node.writes_per_second:.1f}",
        heard_of(node),
        node.version,
    ]
