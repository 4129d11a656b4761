"""``haystack volume``: list, show and grow volumes; what else is done with them is in modules of its own."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import click

from haystack.client.errors import UnexpectedAnswer, Unreachable
from haystack.errors import HaystackError
from haystack.units import format_size
from tools.app import EXIT_FAILED, App, Group, cluster_options, pass_app, replication_option
from tools.control import Control
from tools.output import Column
from tools.plans import NOTHING_CHANGED, apply_option
from tools.view import ClusterView, VolumeView, parse_cluster
from tools.volume_check import check
from tools.volume_compact import compact
from tools.volume_move import copy_volume, drop_volume, list_moves, mark_volume, move_volume
from tools.volume_travel import export_volume, import_volume

GROW_SILENCE_SECONDS = 120.0
"""How long the Directory may be silent while the Stores make volumes."""

_COLUMNS = (
    Column("volume", right=True),
    Column("state"),
    Column("copies", right=True),
    Column("stores"),
    Column("photos", right=True),
    Column("size", right=True),
    Column("of", right=True),
    Column("deleted", right=True),
    Column("reads", right=True),
    Column("writes", right=True),
)


@click.group(cls=Group)
def volume() -> None:
    """List, show, check, compact, grow and move volumes."""


@volume.command("list")
@cluster_options
@pass_app
def list_volumes(app: App) -> None:
    """List all volumes with their Store, state and fill."""
    view = asyncio.run(_ask(app))
    app.output.document({"volumes": [one.document for one in view.volumes]})
    app.output.table(_COLUMNS, [_row(view, one) for one in view.volumes])


@volume.command()
@click.argument("number", metavar="VOLUME", type=click.IntRange(1, 2**32 - 1))
@cluster_options
@pass_app
def show(app: App, number: int) -> None:
    """Show one volume: what the Directory knows, and what each Store that has it says."""
    view, copies = asyncio.run(_ask_copies(app, number))
    one = view.volume(number)
    app.output.document({**one.document, "copies": copies})
    for line in _lines(view, one):
        app.output.say(line)
    for address, copy in copies.items():
        app.output.say()
        if "error" in copy:
            app.output.say(f"Store {address}: {copy['error']}")
            continue
        app.output.say(f"As Store {address} says")
        for line in _copy_lines(copy):
            app.output.say(line)


volume.add_command(check)
volume.add_command(compact)
volume.add_command(export_volume)
volume.add_command(import_volume)
volume.add_command(move_volume)
volume.add_command(copy_volume)
volume.add_command(drop_volume)
volume.add_command(list_moves)
volume.add_command(mark_volume)


@volume.command()
@click.option("--count", type=click.IntRange(1, 100), default=1, show_default=True, help="How many volumes to make.")
@replication_option
@apply_option
@cluster_options
@pass_app
def grow(app: App, count: int, replication: str | None, apply_it: bool) -> int:
    """Make more writable volumes. Shows the plan; acts only with --apply.

    The Directory does this by itself when volumes fill up; it is of use before a large import.
    The exit code is 1 when fewer volumes than asked for could be made.
    """
    view, made = asyncio.run(_grow(app, count, replication, apply_it))
    writable, alive = view.counts["volumesWritable"], view.counts["storesAlive"]
    then = writable + count
    plan = {
        "count": count,
        "replication": replication,
        "writableNow": writable,
        "writableThen": then,
        "storesAlive": alive,
    }
    app.output.document({"plan": plan, "applied": apply_it, **made})
    volumes, stores = "volume" if count == 1 else "volumes", "Store" if alive == 1 else "Stores"
    copies = f" of replication {replication}" if replication else ""
    app.output.say(f"Plan: {count} more writable {volumes}{copies} on {alive} {stores}: {writable} now, {then} then.")
    if not apply_it:
        app.output.note(NOTHING_CHANGED)
        return 0
    app.output.say(f"Made {made['count']}: {', '.join(str(number) for number in made['volumes'])}")
    if made["count"] < count:
        app.output.note(f"Fewer than planned: {made.get('reason', 'the Directory gives no reason')}")
    return 0 if made["count"] >= count else EXIT_FAILED


async def _ask(app: App) -> ClusterView:
    async with Control(app.directory_urls(), app.secret) as control:
        return await _view(control)


async def _view(control: Control) -> ClusterView:
    return parse_cluster(await control.directory("GET", "/dir/status"))


async def _grow(app: App, count: int, replication: str | None, apply_it: bool) -> tuple[ClusterView, dict[str, Any]]:
    async with Control(app.directory_urls(), app.secret, timeout_seconds=GROW_SILENCE_SECONDS) as control:
        view = await _view(control)
        if not apply_it:
            return view, {}
        wanted = {"count": count, **({"replication": replication} if replication else {})}
        made = await control.directory("POST", "/vol/grow", wanted)
        if not isinstance(made.get("count"), int) or not isinstance(made.get("volumes"), list):
            raise UnexpectedAnswer(f"/vol/grow: the answer is not understood: {str(made)[:200]}")
        return view, made


async def _ask_copies(app: App, number: int) -> tuple[ClusterView, dict[str, dict[str, Any]]]:
    async with Control(app.directory_urls(), app.secret) as control:
        view = await _view(control)
        copies = {}
        one = view.volume(number)
        for store_id in dict.fromkeys((*one.in_sync, *one.members)):
            store = view.store(store_id)
            try:
                if store is None:
                    raise Unreachable("the Directory does not know where it is")
                copies[store.url] = await control.store(store.admin_url, "GET", f"/admin/volumes/{number}")
            # One copy that cannot be asked, or no secret, leaves the rest worth showing.
            except HaystackError as error:
                copies[view.address_of(store_id)] = {"error": str(error)}
        return view, copies


def _row(view: ClusterView, one: VolumeView) -> list[object]:
    return [
        one.volume,
        _state(one),
        f"{len(one.in_sync)} of {one.copies}",
        ", ".join(view.address_of(store_id) for store_id in one.in_sync),
        f"{one.live_count:,}",
        format_size(one.size_bytes),
        format_size(one.max_bytes) if one.max_bytes is not None else "-",
        format_size(one.deleted_bytes),
        f"{one.reads:,}" if one.reads is not None else "-",
        f"{one.writes:,}" if one.writes is not None else "-",
    ]


def _lines(view: ClusterView, one: VolumeView) -> list[str]:
    facts = [
        ("state", f"{_state(one)} ({one.reason})" if one.reason else _state(one)),
        ("primary", view.address_of(one.primary)),
        ("in sync", ", ".join(view.address_of(store_id) for store_id in one.in_sync)),
        ("not in sync", ", ".join(view.address_of(store) for store in one.members if store not in one.in_sync) or "-"),
        ("copies", f"{len(one.in_sync)} of {one.copies}{_extra(one)}"),
        ("degraded", f"since {_time(one.degraded_since_ms)}" if one.degraded_since_ms else "no"),
        ("epoch", one.document.get("epoch")),
        ("replication", one.document.get("replication")),
        ("photos", f"{one.live_count:,} in {format_size(one.live_bytes)}"),
        ("deleted", format_size(one.deleted_bytes)),
        ("size", f"{format_size(one.size_bytes)} of {format_size(one.max_bytes) if one.max_bytes else 'any'}"),
        ("created", _time(one.document.get("createdMs"))),
        ("uuid", one.document.get("uuid")),
    ]
    return [f"Volume {one.volume}", *(f"  {name:<13} {value}" for name, value in facts)]


def _state(one: VolumeView) -> str:
    mark = one.document.get("mark", "none")
    return one.state if mark == "none" else f"{one.state}, marked {mark}"


def _extra(one: VolumeView) -> str:
    extra = int(one.document.get("extraCopies") or 0)
    return f", and {extra} more on demand" if extra else ""


def _copy_lines(copy: dict[str, Any]) -> list[str]:
    facts = [
        ("state", f"{copy.get('state')} ({copy['reason']})" if copy.get("reason") else copy.get("state")),
        ("photos", f"{copy.get('liveCount', 0):,} in {format_size(copy.get('liveBytes', 0))}"),
        ("size", f"{format_size(copy.get('sizeBytes', 0))}, generation {copy.get('generation')}"),
        ("folder", copy.get("folder")),
        ("reads", f"{copy.get('reads', 0):,}, {format_size(copy.get('bytesRead', 0))}"),
        ("writes", f"{copy.get('writes', 0):,}"),
        ("last upload", _time(copy.get("lastAppendMs"))),
    ]
    return [f"  {name:<13} {value}" for name, value in facts]


def _time(time_ms: int | None) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="seconds") if time_ms else "-"
