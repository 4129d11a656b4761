"""``haystack volume check``: volumes checked, on running Stores or as files, and what is found put right."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import click

from haystack.errors import HaystackError
from haystack.units import format_size
from tools.app import EXIT_FAILED, App, cluster_options, pass_app
from tools.check import Checked, check_file, check_files, volume_files
from tools.control import Control
from tools.plans import NOTHING_CHANGED
from tools.view import ClusterView, parse_cluster
from tools.volume_repair import SILENCE_SECONDS, RepairPlan, Step, make_plan, mend_copy, mend_file

ROUNDS = 2
"""A volume whose damage was mended may still need a new index."""


@click.command()
@click.argument("targets", metavar="[VOLUME|PATH]...", nargs=-1)
@click.option("--full", is_flag=True, help="Verify every checksum, not only the structure and the index.")
@click.option("--repair", is_flag=True, help="Plan how to mend what is found.")
@click.option("--apply", "apply_it", is_flag=True, help="With --repair: do it, and check again.")
@cluster_options
@pass_app
def check(app: App, targets: tuple[str, ...], full: bool, repair: bool, apply_it: bool) -> int:
    """Check volumes: structure, tail and index, and with --full every byte.

    A number is a volume of the running cluster, checked by the Stores that have it. A path is a volume file or a data
    folder on this machine, checked here; no cluster is needed. Without any, all volumes of the cluster are checked.

    Nothing is changed, but with --repair --apply: damage is mended from another copy, and an index that does not agree
    with its volume is made anew. Files are repaired only while no Store uses them.

    The exit code is 1 when there is any problem, after a repair when any is left.
    """
    if apply_it and not repair:
        raise click.UsageError("--apply goes with --repair")
    numbers = [int(target) for target in targets if target.isascii() and target.isdigit()]
    paths = [Path(target) for target in targets if not (target.isascii() and target.isdigit())]
    checked = check_files(volume_files(paths), full=full, output=app.output)
    if numbers or not targets:
        checked += asyncio.run(_check_by_stores(app, numbers, full))
    if repair:
        return _repair(app, checked, full, apply_it)
    return _report(app, checked)


def _repair(app: App, checked: list[Checked], full: bool, apply_it: bool) -> int:
    """Say what can be mended, and do it."""
    if not apply_it:
        plan, _ = asyncio.run(_mend(app, checked, full, rounds=0))
        code = _report(app, checked, plan, applied=False)
        _say_plan(app, plan)
        if plan.steps:
            app.output.note(NOTHING_CHANGED)
        return code
    plan, checked = asyncio.run(_mend(app, checked, full, rounds=ROUNDS))
    _say_plan(app, plan)
    return _report(app, checked, plan, applied=True)


async def _mend(app: App, checked: list[Checked], full: bool, *, rounds: int) -> tuple[RepairPlan, list[Checked]]:
    """Plan, and do and check so many times; returns all that was planned, and what was found last."""
    async with Control(app.directory_urls() if _of_stores(checked) else (), app.secret) as control:
        view = await _view(control) if _of_stores(checked) else None
        copies = {one.volume: len(one.in_sync) for one in view.volumes} if view else {}
        plan = now = make_plan(checked, copies)
        for _ in range(rounds):
            if not now.steps:
                break
            results = {step.checked.name: await _do(app, control, view, step, full) for step in now.steps}
            checked = [results.get(one.name, one) for one in checked]
            now = make_plan(checked, copies)
            plan = RepairPlan((*plan.steps, *now.steps), now.hopeless)
        return plan, checked


async def _do(app: App, control: Control, view: ClusterView | None, step: Step, full: bool) -> Checked:
    """Do one step, and check the copy again."""
    try:
        if step.checked.path is not None:
            mend_file(step, app.output)
            return check_file(step.checked.path, full=full, output=app.output)
        assert view is not None and step.checked.copy is not None
        await mend_copy(control, view, step)
        return await _check_copy(control, view, *step.checked.copy, full)
    except HaystackError as error:
        app.output.note(f"haystack: {step.words}: failed: {error}")
        return step.checked


def _of_stores(checked: Sequence[Checked]) -> bool:
    return any(one.copy is not None for one in checked)


async def _view(control: Control) -> ClusterView:
    return parse_cluster(await control.directory("GET", "/dir/status"))


async def _check_by_stores(app: App, numbers: Sequence[int], full: bool) -> list[Checked]:
    async with Control(app.directory_urls(), app.secret) as control:
        view = await _view(control)
        volumes = [view.volume(number) for number in numbers] or list(view.volumes)
        checked = []
        total_bytes = sum(one.size_bytes * len(one.in_sync) for one in volumes)
        with app.output.progress("checking volumes", total_bytes, "bytes") as bar:
            for one in volumes:
                for store_id in one.in_sync:
                    checked.append(await _check_copy(control, view, one.volume, store_id, full))
                    bar.advance(one.size_bytes)
        return checked


async def _check_copy(control: Control, view: ClusterView, number: int, store_id: str, full: bool) -> Checked:
    name, copy = f"volume {number} on {view.address_of(store_id)}", (number, store_id)
    store = view.store(store_id)
    if store is None:
        return Checked(name, {}, "the Directory does not know where this Store is", copy=copy)
    try:
        path = f"/admin/volumes/{number}/check"
        report = await control.store(store.admin_url, "POST", path, {"full": full}, timeout_seconds=SILENCE_SECONDS)
    except HaystackError as error:
        return Checked(name, {}, str(error), copy=copy)
    return Checked(name, report, copy=copy)


def _say_plan(app: App, plan: RepairPlan) -> None:
    for number, step in enumerate(plan.steps, 1):
        app.output.say(f"  {number}. {step.words}")
    for words in plan.hopeless:
        app.output.note(f"haystack: cannot be mended: {words}")


def _report(app: App, checked: Sequence[Checked], plan: RepairPlan | None = None, *, applied: bool = False) -> int:
    out = app.output
    bad = [one for one in checked if not one.ok]
    results = [{"name": one.name, "ok": one.ok, "error": one.error, "report": one.report} for one in checked]
    repair = {} if plan is None else {"repair": plan.document(), "applied": applied}
    out.document({"ok": not bad, "checked": results, **repair})
    for one in checked:
        if one.error is not None:
            out.say(f"{one.name}: could not be checked: {one.error}")
            continue
        report = one.report
        found = f"{report.get('needles', 0):,} needles, {report.get('tombstones', 0):,} deletes"
        size = format_size(int(report.get("sizeBytes", 0)))
        out.say(f"{one.name}: {'ok' if one.ok else 'PROBLEMS'}, {found}, {size}")
        problems = report.get("problems", [])
        for problem in problems:
            out.say(f"  - {problem}")
        more = int(report.get("problemCount", len(problems))) - len(problems)
        if more > 0:
            out.say(f"  - and {more:,} more")
    good = len(checked) - len(bad)
    out.say(f"{good} of {len(checked)} ok." if checked else "There is no volume to check.")
    return EXIT_FAILED if bad else 0
