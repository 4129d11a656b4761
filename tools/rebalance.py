"""``haystack rebalance``: what would even out the load of the machines, and doing it."""

from __future__ import annotations

import asyncio

import click

from haystack.units import format_size
from tools.app import EXIT_FAILED, App, cluster_options, pass_app
from tools.bars import bar
from tools.control import Control
from tools.output import Column, Output
from tools.plans import NOTHING_CHANGED, apply_option
from tools.rebalances import DECISIONS, REBALANCE, STOP, PlanView, RunView, parse_decisions, parse_plan, parse_state

MAX_STEPS_SHOWN = 30
MAX_MACHINES_SHOWN = 40
POLL_SECONDS = 0.5

_MACHINE_COLUMNS = (
    Column("store"),
    Column("load", right=True),
    Column("of mean", right=True),
    Column("before"),
    Column("then", right=True),
    Column("after"),
    Column("fill", right=True),
    Column("then", right=True),
)
_STEP_COLUMNS = (
    Column("", right=True),
    Column("step"),
    Column("volume", right=True),
    Column("from"),
    Column("to"),
    Column("bytes", right=True),
    Column("worst", right=True),
    Column("why"),
)
_DECISION_COLUMNS = (Column("when"), Column("by"), Column("what"), Column("why"))


@click.command()
@click.option("--stop", is_flag=True, help="Begin no more steps of the rebalance that is under way.")
@click.option("--log", "show_log", is_flag=True, help="Show what was decided lately, and why.")
@apply_option
@cluster_options
@pass_app
def rebalance(app: App, stop: bool, show_log: bool, apply_it: bool) -> int:
    """Even out the load of the Stores, and how full they are. Shows the plan; acts only with --apply.

    Hot volumes share their reads out among their copies, move to Stores that are lightly used, or get temporary copies
    there. Reads and uploads go on meanwhile. With --apply it returns when all is done; Ctrl-C ends the waiting, not the
    work.

    The exit code is 1 when a step failed. With rebalance_auto the Directory does all of this by itself.
    """
    if sum((stop, show_log, apply_it)) > 1:
        raise click.UsageError("--apply, --stop and --log exclude each other")
    if stop:
        return asyncio.run(_stop(app))
    return asyncio.run(_log(app) if show_log else _rebalance(app, apply_it))


async def _rebalance(app: App, apply_it: bool) -> int:
    async with Control(app.directory_urls(), app.secret, timeout_seconds=60.0) as control:
        answer = await control.directory("POST", REBALANCE, document={"dryRun": not apply_it}, signed=True)
        plan = parse_plan(answer)
        _show(app.output, plan)
        if not apply_it or plan.run is None:
            app.output.document(plan.document)
            app.output.say(_sentence(plan.automatic))
            if plan.steps and not apply_it:
                app.output.note(NOTHING_CHANGED)
            return 0
        run = await _wait(app.output, control)
    app.output.document({**plan.document, "run": run.document})
    _show_run(app.output, run)
    return EXIT_FAILED if run.failed else 0


async def _wait(output: Output, control: Control) -> RunView:
    """Return how the run ended."""
    with output.progress("Rebalancing", None, "bytes") as progress:
        while True:
            run = parse_state(await control.directory("GET", REBALANCE))
            progress.at(run.copied_bytes, run.total_bytes)
            if run.finished:
                return run
            await asyncio.sleep(POLL_SECONDS)


async def _stop(app: App) -> int:
    async with Control(app.directory_urls(), app.secret) as control:
        answer = await control.directory("POST", STOP, document={}, signed=True)
    app.output.document(answer)
    if answer.get("stopped"):
        app.output.say("No more steps are begun; moves that are under way go on (`haystack volume moves`).")
    else:
        app.output.say("No rebalance is under way.")
    return 0


async def _log(app: App) -> int:
    async with Control(app.directory_urls(), app.secret) as control:
        answer = await control.directory("GET", DECISIONS)
    decisions = parse_decisions(answer)
    app.output.document(answer)
    if not decisions:
        app.output.say("Nothing was decided since the Directory started.")
        return 0
    app.output.table(_DECISION_COLUMNS, [(one.when, one.by, one.what, one.why) for one in decisions])
    return 0


# -- words


def _show(output: Output, plan: PlanView) -> None:
    if plan.machines:
        output.table(_MACHINE_COLUMNS, _machine_rows(plan))
        if len(plan.machines) > MAX_MACHINES_SHOWN:
            output.say(f"and {len(plan.machines) - MAX_MACHINES_SHOWN} Stores more")
    if not plan.steps:
        output.say(f"Nothing is to be done: {plan.reason}.")
        return
    output.table(_STEP_COLUMNS, _step_rows(plan))
    if plan.step_count > MAX_STEPS_SHOWN:
        output.say(f"and {plan.step_count - MAX_STEPS_SHOWN} steps more")
    output.say(summary(plan))
    if plan.reason:
        output.say(_sentence(plan.reason))


def _machine_rows(plan: PlanView) -> list[tuple[str, ...]]:
    """The machines with most load and those with least, with bars of one scale."""
    most = max((max(one.level_before, one.level_after) for one in plan.machines), default=0.0)
    shown = sorted(plan.machines, key=lambda one: (-one.level_before, one.url))
    if len(shown) > MAX_MACHINES_SHOWN:
        half = MAX_MACHINES_SHOWN // 2
        shown = [*shown[:half], *shown[-half:]]
    return [
        (
            one.url,
            f"{one.load_before:.1f}",
            f"{one.level_before:.2f}",
            bar(one.level_before, most),
            f"{one.level_after:.2f}",
            bar(one.level_after, most),
            f"{one.fill_before:.0%}",
            f"{one.fill_after:.0%}",
        )
        for one in shown
    ]


def _step_rows(plan: PlanView) -> list[tuple[str, ...]]:
    return [
        (
            f"{place}.",
            one.kind,
            f"{one.volume} and {one.other}" if one.other else str(one.volume),
            one.source,
            one.target,
            format_size(one.size_bytes) if one.size_bytes else "",
            f"{one.worst_after:.2f}",
            one.reason,
        )
        for place, one in enumerate(plan.steps[:MAX_STEPS_SHOWN], 1)
    ]


def summary(plan: PlanView) -> str:
    """Return what a plan comes to, in a line or two."""
    kinds = ", ".join(f"{count} {_KINDS[kind][count != 1]}" for kind, count in plan.counts if kind in _KINDS)
    text = (
        f"{kinds}: the busiest Store has {plan.worst_before:.2f} times the mean load, then {plan.worst_after:.2f}. "
        f"{format_size(plan.size_bytes)} are to be copied"
    )
    if plan.size_bytes:
        text += f"; no plan could do with less than {format_size(plan.least_bytes)}"
    return f"{text}."


_KINDS = {
    "weights": ("change of read weights", "changes of read weights"),
    "move": ("move", "moves"),
    "swap": ("exchange", "exchanges"),
    "add": ("temporary copy", "temporary copies"),
    "drop": ("temporary copy less", "temporary copies less"),
}


def _show_run(output: Output, run: RunView) -> None:
    output.say(f"{run.done} steps done, {format_size(run.copied_bytes)} copied.")
    if run.stopped:
        output.say(f"It was stopped; {run.skipped} steps were not begun.")
    for volume, error in run.errors:
        output.note(f"haystack: volume {volume}: {error}")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""
