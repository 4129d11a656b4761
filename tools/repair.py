"""``haystack repair``: what is under-replicated, what is done about it, and doing it at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click

from haystack.units import format_duration, format_size
from tools.app import EXIT_FAILED, App, cluster_options, pass_app
from tools.control import Control
from tools.nodes import NODES, REPAIR, Degraded, NodeView, RepairView, address_of, parse_nodes, parse_repair
from tools.output import Output
from tools.plans import NOTHING_CHANGED, apply_option
from tools.waiting import Left, moved, wait_for_repair

MAX_SHOWN = 20
_WORDS = {
    "rejoin": "bring the copy on {target} up to date",
    "copy": "copy to {target}",
    "giveUp": "give up the copy on {target}, one too many",
    "forget": "count {target} no more",
    "delete": "delete the copy on {target}, which does not count",
}


@click.command()
@click.option("--volume", "volumes", type=click.IntRange(1, 2**32 - 1), multiple=True, help="Only this volume; repeat.")
@click.option("--wait", is_flag=True, help="Return when all is repaired; Ctrl-C ends the waiting, not the work.")
@apply_option
@cluster_options
@pass_app
def repair(app: App, volumes: tuple[int, ...], wait: bool, apply_it: bool) -> int:
    """Say which volumes have too few copies, and what is done about it.

    The Directory repairs by itself: copies that come back are brought up to date at once, and others are made when a
    Store has been away for a while. With --apply it does not wait for that.

    The exit code is 1 when something cannot be repaired.
    """
    return asyncio.run(_repair(app, volumes, wait, apply_it))


async def _repair(app: App, volumes: tuple[int, ...], wait: bool, apply_it: bool) -> int:
    async with Control(app.directory_urls(), app.secret) as control:
        nodes = parse_nodes(await control.directory("GET", NODES))
        if apply_it:
            request = {"volumes": list(volumes) or None}
            view = parse_repair(await control.directory("POST", REPAIR, document=request, signed=True))
        else:
            view = parse_repair(await control.directory("GET", REPAIR))
        _show(app.output, view, nodes, volumes)
        left = Left(bool(view.blocked), view.blocked)
        document = dict(view.document)
        if wait:
            left = await wait_for_repair(control, app.output)
            document["waited"] = left.document()
    app.output.document({**document, "applied": apply_it})
    if not apply_it and not wait and any(one.copy_in_seconds for one in view.degraded):
        app.output.note(NOTHING_CHANGED.replace("to do it", "not to wait for Stores that are away"))
    return EXIT_FAILED if left.stuck else 0


def _show(output: Output, view: RepairView, nodes: Sequence[NodeView], volumes: Sequence[int]) -> None:
    for line in repair_lines(view, nodes, volumes):
        output.say(line)


def repair_lines(view: RepairView, nodes: Sequence[NodeView], volumes: Sequence[int] = ()) -> list[str]:
    """Say what is under-replicated and what is done about it.

    Parameters
    ----------
    volumes: only of these; empty: of all.
    """
    lines = []
    if not view.settled:
        away = ", ".join(address_of(nodes, one) for one in view.waiting_for) or "some"
        lines.append(f"The Directory has just started and waits for Stores to report: {away}. Nothing is given up yet.")
    wanted = [one for one in view.degraded if not volumes or one.volume in volumes]
    if not wanted:
        lines.append("All volumes have all their copies." if not volumes else "These volumes have all their copies.")
    lines += [degraded_line(one, view, nodes) for one in wanted[:MAX_SHOWN]]
    if len(wanted) > MAX_SHOWN:
        lines.append(f"and {len(wanted) - MAX_SHOWN} volumes more.")
    for one in view.running:
        what = _WORDS.get(one.action, one.action).format(target=address_of(nodes, one.target))
        source = f" from {address_of(nodes, one.source)}" if one.source else ""
        error = f"; the last try failed: {one.error}" if one.error else ""
        lines.append(f"Now: volume {one.volume}: {what}{source}: {moved(one.copied_bytes, one.total_bytes)}{error}")
    under_way = {(one.volume, one.target) for one in view.running}
    steps = [one for one in view.steps if (one.get("volume"), one.get("target")) not in under_way]
    for step in steps[:MAX_SHOWN]:
        what = _WORDS.get(str(step.get("action")), str(step.get("action")))
        text = what.format(target=address_of(nodes, str(step.get("target"))))
        size = f", {format_size(int(step['bytes']))}" if step.get("bytes") else ""
        lines.append(f"Next: volume {step.get('volume')}: {text}{size}")
    lines += [f"Cannot be repaired: volume {volume}: {reason}" for volume, reason in view.blocked]
    return lines


def degraded_line(one: Degraded, view: RepairView, nodes: Sequence[NodeView]) -> str:
    """Say of a volume which copies it has and when it gets the others."""
    where = ", ".join(address_of(nodes, store) for store in one.in_sync) or "nowhere"
    text = f"Volume {one.volume}: {len(one.in_sync)} of {one.promised} copies ({where})"
    if one.stale:
        text += f"; not up to date: {', '.join(address_of(nodes, store) for store in one.stale)}"
    if any(running.volume == one.volume for running in view.running):
        return f"{text}; being repaired"
    if error := view.failing(nodes).get(one.volume):
        return f"{text}; the last try failed and is repeated: {error}"
    if one.reason:
        return f"{text}; {one.reason}"
    if one.copy_in_seconds is not None and one.copy_in_seconds > 0:
        return f"{text}; another one is made in {format_duration(one.copy_in_seconds)}"
    return f"{text}; its turn comes"
