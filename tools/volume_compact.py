"""``haystack volume compact``: give back the room of deleted photos."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import click

from haystack.client.errors import UnexpectedAnswer
from haystack.units import format_size
from tools.app import EXIT_FAILED, App, cluster_options, pass_app
from tools.control import Control
from tools.plans import NOTHING_CHANGED, apply_option

COMPACTIONS = "/cluster/compactions"
POLL_SECONDS = 0.3
_UNDER_WAY = ("waiting", "running")


@click.command()
@click.argument("volumes", metavar="[VOLUME]...", nargs=-1, type=click.IntRange(1, 2**32 - 1))
@click.option("--all", "all_volumes", is_flag=True, help="All volumes with something to win.")
@click.option("--now", is_flag=True, help="Do not wait for the trash: what was deleted cannot be brought back then.")
@apply_option
@cluster_options
@pass_app
def compact(app: App, volumes: tuple[int, ...], all_volumes: bool, now: bool, apply_it: bool) -> int:
    """Give back the room of deleted and replaced photos. Shows the plan; acts only with --apply.

    Uploads, deletes and reads go on meanwhile. What was deleted less than the trash's retention ago is kept. It returns
    when all is done; Ctrl-C ends the waiting, not the work. The exit code is 1 when a volume could not be compacted.
    """
    if bool(volumes) == all_volumes:
        raise click.UsageError("name volumes, or give --all")
    return asyncio.run(_compact(app, None if all_volumes else sorted(set(volumes)), now, apply_it))


async def _compact(app: App, volumes: Sequence[int] | None, now: bool, apply_it: bool) -> int:
    async with Control(app.directory_urls(), app.secret) as control:
        request = {"volumes": volumes, "now": now, "dryRun": not apply_it}
        plan = await control.directory("POST", COMPACTIONS, document=request, signed=True)
        steps, planned = _parse(plan)
        app.output.say("Plan:" if steps else "Plan: nothing to do, no volume has anything to win.")
        for number, step in enumerate(steps, 1):
            app.output.say(f"  {number}. {step}")
        possible = {int(one["volume"]) for one in planned if not one["obstacle"]}
        if not apply_it:
            automatic = str(plan.get("automatic") or "")
            app.output.document({"applied": False, "volumes": planned, "automatic": automatic})
            if automatic:
                app.output.say(f"{automatic[0].upper()}{automatic[1:]}.")
            if possible:
                app.output.note(NOTHING_CHANGED)
            return 0
        done = await _wait(app, control, possible)
    app.output.document({"applied": True, "volumes": planned, "compactions": done})
    for one in done:
        app.output.say(_line(one))
    failed = len(planned) > len(possible) and volumes is not None
    return EXIT_FAILED if failed or any(one["state"] != "done" for one in done) else 0


def _parse(plan: Mapping[str, Any]) -> tuple[list[str], list[dict[str, Any]]]:
    try:
        planned = [dict(one) for one in plan["volumes"]]
        if not all({"volume", "obstacle"} <= one.keys() for one in planned):
            raise KeyError("volume")
        return [str(step) for step in plan["steps"]], planned
    except (KeyError, TypeError, ValueError) as error:
        raise UnexpectedAnswer(
            f"{COMPACTIONS}: the answer is not understood ({type(error).__name__}: {error}); "
            "are Directory and this command of the same release?"
        ) from error


async def _wait(app: App, control: Control, volumes: set[int]) -> list[dict[str, Any]]:
    """Return how the compactions of these volumes ended."""
    with app.output.progress("Compacting", None, "bytes") as bar:
        while True:
            found = await control.directory("GET", COMPACTIONS)
            jobs = [dict(one) for one in found.get("compactions", []) if one.get("volume") in volumes]
            bar.at(
                sum(int(one.get("doneBytes", 0)) for one in jobs), sum(int(one.get("totalBytes", 0)) for one in jobs)
            )
            if not any(one.get("state") in _UNDER_WAY for one in jobs):
                return jobs
            await asyncio.sleep(POLL_SECONDS)


def _line(one: Mapping[str, Any]) -> str:
    if one["state"] != "done":
        return f"Volume {one['volume']} was not compacted: {one['error']}"
    old, new = int(one["oldBytes"]), int(one["newBytes"])
    text = f"Volume {one['volume']}: {format_size(old)} before, {format_size(new)} now"
    return f"{text}; {one['error']}" if one["error"] else text
