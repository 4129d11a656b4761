"""``haystack volume move|copy|drop|moves|mark``: where copies of volumes are, by the operator's order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import click

from haystack.client.errors import UnexpectedAnswer
from haystack.units import format_duration, format_size
from tools.app import EXIT_FAILED, App, cluster_options, pass_app
from tools.control import Control
from tools.nodes import NODES, find_node, parse_nodes
from tools.output import Column, Output
from tools.plans import apply_option, ask, ask_whole, show
from tools.waiting import POLL_SECONDS, moved, patiently

MOVES = "/cluster/moves"
OVER = ("done", "cancelled", "failed")
_VOLUME = click.IntRange(1, 2**32 - 1)

_COLUMNS = (
    Column("move", right=True),
    Column("what"),
    Column("volume", right=True),
    Column("from"),
    Column("to"),
    Column("state"),
    Column("copied", right=True),
    Column("of", right=True),
    Column("took", right=True),
    Column("by"),
    Column("note"),
)

volume_argument = click.argument("number", metavar="VOLUME", type=_VOLUME)
no_wait_option = click.option("--no-wait", is_flag=True, help="Return at once; see: haystack volume moves.")


@click.command("move")
@volume_argument
@click.option("--from", "source", metavar="STORE", help="Whose copy moves; needed when the volume has several.")
@click.option("--to", "target", metavar="STORE", help="Where to; the Directory chooses by itself where there is room.")
@no_wait_option
@apply_option
@cluster_options
@pass_app
def move_volume(app: App, number: int, source: str | None, target: str | None, no_wait: bool, apply_it: bool) -> int:
    """Move a copy of a volume to another Store. Shows the plan; acts only with --apply.

    Uploads, deletes and reads go on. The old copy goes only after the new one was compared and counts. STORE is an
    address (host:port), an id, or the first characters of one. It returns when all is done; Ctrl-C ends the waiting,
    not the work. The exit code is 1 when the move failed.
    """
    return asyncio.run(_order(app, "move", number, {"source": source, "target": target}, apply_it, not no_wait))


@click.command("copy")
@volume_argument
@click.option("--to", "target", metavar="STORE", help="Where to; the Directory chooses by itself where there is room.")
@no_wait_option
@apply_option
@cluster_options
@pass_app
def copy_volume(app: App, number: int, target: str | None, no_wait: bool, apply_it: bool) -> int:
    """Make one copy more of a volume. Shows the plan; acts only with --apply.

    It is kept above the copies that the volume's replication promises, and read from, until it is dropped. STORE and
    waiting as of `volume move`.
    """
    return asyncio.run(_order(app, "copy", number, {"target": target}, apply_it, not no_wait))


@click.command("drop")
@volume_argument
@click.option("--from", "source", metavar="STORE", required=True, help="Whose copy goes.")
@no_wait_option
@apply_option
@cluster_options
@pass_app
def drop_volume(app: App, number: int, source: str, no_wait: bool, apply_it: bool) -> int:
    """Give up a copy that a volume has beyond its promise. Shows the plan; acts only with --apply."""
    return asyncio.run(_order(app, "drop", number, {"source": source}, apply_it, not no_wait))


@click.command("mark")
@volume_argument
@click.argument("mark", type=click.Choice(["readonly", "writable"]))
@apply_option
@cluster_options
@pass_app
def mark_volume(app: App, number: int, mark: str, apply_it: bool) -> int:
    """Give a volume no more photos (readonly), or photos again (writable). Shows the plan; acts only with --apply."""
    return asyncio.run(_mark(app, number, mark, apply_it))


@click.command("moves")
@click.option("--cancel", "cancelled", metavar="MOVE", type=click.IntRange(1), multiple=True, help="End it; repeat.")
@click.option("--wait", is_flag=True, help="Return when none is under way; Ctrl-C ends the waiting, not the moves.")
@apply_option
@cluster_options
@pass_app
def list_moves(app: App, cancelled: tuple[int, ...], wait: bool, apply_it: bool) -> int:
    """List the moves that are under way, and the last ones that ended; or cancel some (with --apply).

    A move can be cancelled until the old copy counts no more; the volume is then as it was. With --wait the exit code
    is 1 when one of those that were under way has failed.
    """
    return asyncio.run(_moves(app, cancelled, wait, apply_it))


async def _order(app: App, kind: str, number: int, stores: Mapping[str, str | None], apply_it: bool, wait: bool) -> int:
    async with Control(app.directory_urls(), app.secret) as control:
        nodes = parse_nodes(await control.directory("GET", NODES)) if any(stores.values()) else ()
        request = {name: find_node(nodes, text).store_id for name, text in stores.items() if text}
        path = f"/cluster/volumes/{number}/{kind}"
        plan, document = await ask_whole(control, path, request, apply_it=apply_it)
        show(app.output, _title(kind, number, document), plan, note=not (apply_it and wait))
        ended: list[dict[str, Any]] = []
        if apply_it and wait:
            ended = await wait_for_moves(app.output, control, {_number(document.get("move"))})
    last = ended[0] if ended else document.get("move")
    app.output.document({**document, "plan": list(plan.steps), "move": last})
    for one in ended:
        app.output.say(line(one))
    return EXIT_FAILED if any(one["state"] != "done" for one in ended) else 0


async def _mark(app: App, number: int, mark: str, apply_it: bool) -> int:
    async with Control(app.directory_urls(), app.secret) as control:
        plan = await ask(control, f"/cluster/volumes/{number}/mark", {"mark": mark}, apply_it=apply_it)
    app.output.document({"volume": number, "mark": mark, "plan": list(plan.steps), "applied": plan.applied})
    show(app.output, f"Mark volume {number} {mark}", plan)
    return 0


async def _moves(app: App, cancelled: Sequence[int], wait: bool, apply_it: bool) -> int:
    async with Control(app.directory_urls(), app.secret) as control:
        for number in cancelled:
            plan = await ask(control, f"{MOVES}/{number}/cancel", {}, apply_it=apply_it)
            show(app.output, f"Cancel move {number}", plan)
        document = await control.directory("GET", MOVES)
        found = parse_moves(document)
        ended: list[dict[str, Any]] = []
        if wait:
            under_way = {int(one["id"]) for one in found if one["state"] not in OVER}
            ended = await wait_for_moves(app.output, control, under_way) if under_way else []
            document = await control.directory("GET", MOVES)
            found = parse_moves(document)
    app.output.document({**document, "cancelled": list(cancelled), "applied": bool(cancelled) and apply_it})
    app.output.table(_COLUMNS, [_row(one) for one in found])
    return EXIT_FAILED if any(one["state"] == "failed" for one in ended) else 0


def parse_moves(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the moves of an answer. Raises UnexpectedAnswer."""
    try:
        found = [dict(one) for one in document["moves"]]
        if not all({"id", "volume", "kind", "state", "copiedBytes", "totalBytes"} <= one.keys() for one in found):
            raise KeyError("id")
        return found
    except (KeyError, TypeError, ValueError) as error:
        raise UnexpectedAnswer(
            f"{MOVES}: the answer is not understood ({type(error).__name__}: {error}); "
            "are Directory and this command of the same release?"
        ) from error


async def wait_for_moves(
    output: Output, control: Control, numbers: set[int], *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> list[dict[str, Any]]:
    """Return how moves ended, when all of them have; shows their progress, and why one waits."""
    told: dict[int, str] = {}
    with output.progress("Moving", None, "bytes") as bar:
        while True:
            found = parse_moves(await patiently(lambda: control.directory("GET", MOVES), sleep))
            mine = [one for one in found if one["id"] in numbers]
            bar.at(sum(int(one["copiedBytes"]) for one in mine), sum(int(one["totalBytes"]) for one in mine))
            going = [one for one in mine if one["state"] not in OVER]
            if not going:
                return mine
            for one in going:
                reason = str(one.get("error") or "")
                if one["state"] == "waiting" and reason and told.get(one["id"]) != reason:
                    told[one["id"]] = reason
                    output.note(f"haystack: move {one['id']} waits: {reason}")
            await sleep(POLL_SECONDS)


def line(one: Mapping[str, Any]) -> str:
    """Return how a move ended, in words."""
    what = f"Move {one['id']} of volume {one['volume']}"
    if one["state"] != "done":
        return f"{what} was {one['state']}: {one.get('error') or 'no reason is given'}"
    seconds = float(one.get("seconds") or 0)
    if one["kind"] == "drop":
        return f"{what}: the copy at {one.get('sourceUrl')} is gone"
    size = format_size(int(one["copiedBytes"]))
    return f"{what}: {size} copied to {one.get('targetUrl')}; all done in {format_duration(seconds)}"


def _title(kind: str, number: int, document: Mapping[str, Any]) -> str:
    source, target = document.get("sourceUrl"), document.get("targetUrl")
    places = (f" from {source}" if source else "") + (f" to {target}" if target else "")
    return f"{kind.capitalize()} volume {number}{places}"


def _number(document: Any) -> int:
    if not isinstance(document, dict) or not isinstance(document.get("id"), int):
        raise UnexpectedAnswer(f"the Directory's answer names no move: {str(document)[:200]}")
    return int(document["id"])


def _row(one: Mapping[str, Any]) -> list[object]:
    copied = int(one["copiedBytes"])
    percent = (
        f" {moved(copied, int(one['totalBytes'])).partition('%')[0]}%" if one["state"] == "copying" and copied else ""
    )
    return [
        one["id"],
        one["kind"],
        one["volume"],
        one.get("sourceUrl") or "-",
        one.get("targetUrl") or "-",
        f"{one['state']}{percent}",
        format_size(copied),
        format_size(int(one["totalBytes"])),
        format_duration(float(one["seconds"])) if one.get("startedMs") else "-",
        one.get("by", ""),
        one.get("error") or one.get("reason") or "",
    ]
