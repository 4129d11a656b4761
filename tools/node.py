"""``haystack node``: look at Stores, empty them, mark them, and give them up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import click

from haystack.errors import InvalidRequest
from haystack.units import format_duration, format_size
from tools.app import EXIT_FAILED, App, Group, cluster_options, pass_app
from tools.control import Control
from tools.nodes import NODES, NodeView, find_node, parse_nodes
from tools.output import Column
from tools.plans import Plan, apply_option, ask, show
from tools.waiting import wait_for_drain

MAX_LISTED_VOLUMES = 20

_COLUMNS = (
    Column("store"),
    Column("state"),
    Column("mark"),
    Column("data center"),
    Column("rack"),
    Column("volumes", right=True),
    Column("leads", right=True),
    Column("only copies", right=True),
    Column("free", right=True),
    Column("of", right=True),
    Column("heard of"),
)


@click.group(cls=Group)
def node() -> None:
    """Look at Stores, empty them, mark them, and give them up.

    NODE is a Store's address (host:port), its id, or the first characters of its id.
    """


@node.command("list")
@cluster_options
@pass_app
def list_nodes(app: App) -> None:
    """List all Stores with their state, mark and fill."""
    nodes = asyncio.run(_nodes(app))
    app.output.document({"nodes": [one.document for one in nodes]})
    app.output.table(_COLUMNS, [_row(one) for one in nodes])


@node.command("show")
@click.argument("name", metavar="NODE")
@cluster_options
@pass_app
def show_node(app: App, name: str) -> None:
    """Show one Store: its disks, its volumes, and how far it is drained."""
    one = find_node(asyncio.run(_nodes(app)), name)
    app.output.document(one.document)
    for line in _lines(one):
        app.output.say(line)


@node.command()
@click.argument("name", metavar="NODE")
@click.option("--folder", metavar="PATH", help="Empty only this data folder (disk) of it.")
@click.option("--wait", is_flag=True, help="Return when it is empty; Ctrl-C ends the waiting, not the work.")
@apply_option
@cluster_options
@pass_app
def drain(app: App, name: str, folder: str | None, wait: bool, apply_it: bool) -> int:
    """Empty a Store (or one disk of it), so that it can be taken away. Shows the plan; acts only with --apply.

    It takes no new photos at once. Its volumes are copied elsewhere, and each of its copies is given up when the other
    one was compared. Photos can be read all the time. The exit code of --wait is 1 when something cannot leave.
    """
    return asyncio.run(_drain(app, name, folder, wait, apply_it))


@node.command()
@click.argument("name", metavar="NODE")
@click.option("--folder", metavar="PATH", help="Only this data folder (disk) of it.")
@apply_option
@cluster_options
@pass_app
def undrain(app: App, name: str, folder: str | None, apply_it: bool) -> int:
    """Take a Store back into use: ends draining, readonly and maintenance. Shows the plan; acts only with --apply."""
    return asyncio.run(_mark(app, name, "none", "Take {} back into use", apply_it, folder=folder))


@node.command()
@click.argument("name", metavar="NODE")
@click.option("--off", is_flag=True, help="Maintenance is over.")
@apply_option
@cluster_options
@pass_app
def maintenance(app: App, name: str, off: bool, apply_it: bool) -> int:
    """Announce that a Store will be away for a while. Shows the plan; acts only with --apply.

    It takes no new photos, and no new copies are made of its volumes while it is away. Take the mark back (--off) soon:
    until then its volumes have fewer copies.
    """
    mark, title = ("none", "End the maintenance of {}") if off else ("maintenance", "Maintenance of {}")
    return asyncio.run(_mark(app, name, mark, title, apply_it))


@node.command()
@click.argument("name", metavar="NODE")
@click.option("--off", is_flag=True, help="Let it take new photos again.")
@apply_option
@cluster_options
@pass_app
def readonly(app: App, name: str, off: bool, apply_it: bool) -> int:
    """Give a Store no new photos and no new volumes. Shows the plan; acts only with --apply."""
    mark, title = ("none", "Let {} take photos again") if off else ("readonly", "Make {} read-only")
    return asyncio.run(_mark(app, name, mark, title, apply_it))


@node.command()
@click.argument("name", metavar="NODE")
@click.option("--accept-loss", is_flag=True, help="Go on although it has the only copy of some volumes.")
@apply_option
@cluster_options
@pass_app
def remove(app: App, name: str, accept_loss: bool, apply_it: bool) -> int:
    """Give up a dead Store for good. Shows the plan; acts only with --apply.

    New copies of its volumes are then made at once. Drain a Store that still runs. What it has of photos that are
    nowhere else is lost; that is refused unless --accept-loss.
    """
    return asyncio.run(_mark(app, name, "removed", "Remove {} for good", apply_it, accept_loss=accept_loss))


async def _nodes(app: App) -> Sequence[NodeView]:
    async with _control(app) as control:
        return parse_nodes(await control.directory("GET", NODES))


async def _mark(app: App, name: str, mark: str, title: str, apply_it: bool, **more: Any) -> int:
    async with _control(app) as control:
        one, plan = await _marked(control, name, mark, apply_it, **more)
    app.output.document(_document(one, mark, plan))
    show(app.output, title.format(one.url), plan)
    return 0


async def _drain(app: App, name: str, folder: str | None, wait: bool, apply_it: bool) -> int:
    async with _control(app) as control:
        one, plan = await _marked(control, name, "draining", apply_it, folder=folder)
        show(app.output, f"Drain {one.url}{f', {folder}' if folder else ''}", plan)
        document = _document(one, "draining", plan)
        left = None
        if wait and apply_it:
            left = await wait_for_drain(control, app.output, one.store_id)
            document["drain"] = left.document()
    app.output.document(document)
    if left is None:
        if plan.applied:
            app.output.note(f"It goes on by itself; see: haystack node show {one.url}")
        return 0
    return EXIT_FAILED if left.stuck else 0


async def _marked(
    control: Control, name: str, mark: str, apply_it: bool, *, folder: str | None = None, accept_loss: bool = False
) -> tuple[NodeView, Plan]:
    one = find_node(parse_nodes(await control.directory("GET", NODES)), name)
    request: dict[str, object] = {"mark": mark, "folder": _folder_id(one, folder) if folder else None}
    if accept_loss:
        request["acceptLoss"] = True
    return one, await ask(control, f"{NODES}/{one.store_id}/mark", request, apply_it=apply_it)


def _folder_id(one: NodeView, name: str) -> str:
    for folder in one.folders:
        if name.rstrip("/") in (folder.get("id"), str(folder.get("path")).rstrip("/")):
            return str(folder["id"])
    known = ", ".join(str(folder.get("path")) for folder in one.folders)
    raise InvalidRequest(f"Store {one.url} has no data folder {name!r}; it has {known}")


def _control(app: App) -> Control:
    return Control(app.directory_urls(), app.secret)


def _document(one: NodeView, mark: str, plan: Plan) -> dict[str, Any]:
    return {
        "storeId": one.store_id,
        "url": one.url,
        "mark": mark,
        "plan": list(plan.steps),
        "lost": list(plan.lost),
        "applied": plan.applied,
    }


def _row(one: NodeView) -> list[object]:
    return [
        one.url,
        one.state,
        "" if one.mark == "none" else one.mark,
        one.data_center,
        one.rack,
        one.volumes,
        one.primaries,
        len(one.only_copies) or "",
        format_size(one.free_bytes),
        format_size(one.total_bytes),
        heard_of(one),
    ]


def heard_of(one: NodeView) -> str:
    """Say when a Store was last heard of."""
    if one.last_seen_seconds is None:
        return "not since the Directory started"
    if one.state == "alive":
        return "now"
    return f"{format_duration(one.last_seen_seconds)} ago"


def _lines(one: NodeView) -> list[str]:
    leads = f"{one.volumes}, leads {one.primaries}" + (f", {one.stale} not up to date" if one.stale else "")
    facts = [
        ("state", f"{one.state}, heard of {heard_of(one)}"),
        ("mark", one.mark),
        ("data center", f"{one.data_center}, rack {one.rack}"),
        ("volumes", leads),
        ("only copies", _volumes(one.only_copies)),
        ("space", f"{format_size(one.free_bytes)} free of {format_size(one.total_bytes)}"),
        ("version", one.version),
        ("id", one.store_id),
    ]
    lines = [f"Store {one.url}", *(f"  {name:<13} {value}" for name, value in facts)]
    for folder in one.folders:
        mark = "" if folder.get("mark", "none") == "none" else f", {folder['mark']}"
        error = f": {folder['error']}" if folder.get("error") else ""
        free, total = int(folder.get("freeBytes", 0)), int(folder.get("totalBytes", 0))
        fill = f"{folder.get('volumes')} volumes, {format_size(free)} free of {format_size(total)}"
        lines.append(f"  {'disk':<13} {folder.get('path')}: {folder.get('state')}{error}{mark}, {fill}")
    if one.drain is not None:
        left = f"{one.drain.volumes_left} volumes, {format_size(one.drain.bytes_left)} left"
        lines.append(f"  {'draining':<13} {'done: it can be stopped and removed' if one.drain.done else left}")
        lines += [f"  {'':<13} volume {volume} cannot leave: {reason}" for volume, reason in one.drain.blocked]
    return lines


def _volumes(volumes: Sequence[int]) -> str:
    if not volumes:
        return "none: every volume has a copy elsewhere"
    shown = ", ".join(map(str, volumes[:MAX_LISTED_VOLUMES]))
    more = len(volumes) - MAX_LISTED_VOLUMES
    return f"volumes {shown}{f' and {more} more' if more > 0 else ''}"
