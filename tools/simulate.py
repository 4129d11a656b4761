"""``haystack simulate``: what a cluster would do over months, with the Directory's own decisions on a virtual clock."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from directory.simulation.engine import Result, Simulation
from directory.simulation.losses import share_bounds
from directory.simulation.measures import Sample
from directory.simulation.scenario import DAY_SECONDS, MONTH_SECONDS, Scenario, load_scenario, scenario_settings
from haystack.config.kinds import Duration, Size
from haystack.errors import ConfigError
from haystack.units import exact_size, format_duration, format_size
from tools import simulate_plot
from tools.app import App, json_option, pass_app
from tools.output import Column, Output

MAX_RUNS = 10_000
MAX_JOBS = 64
MAX_AGAINST_BYTES = 256 * 1024 * 1024

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _setting_options(command: _Function) -> _Function:
    for key, kind, help_text, default in reversed(list(scenario_settings())):
        shown = str(default)
        if isinstance(kind, Size):
            shown = exact_size(int(str(default)))
        elif isinstance(kind, Duration):
            shown = format_duration(float(str(default)))
        command = click.option(
            f"--{key.replace('_', '-')}", key, metavar=kind.placeholder, help=f"{help_text} [default: {shown}]"
        )(command)
    return command


@click.command()
@click.option("--scenario", "path", metavar="FILE", type=click.Path(path_type=Path), help="Settings in TOML.")
@click.option("--runs", type=click.IntRange(1, MAX_RUNS), default=1, show_default=True, help="Runs, each a seed more.")
@click.option("--jobs", type=click.IntRange(1, MAX_JOBS), default=1, show_default=True, help="Runs at a time.")
@click.option("--plot", "plot_path", metavar="FILE.png", type=click.Path(path_type=Path), help="Draw the curves.")
@click.option(
    "--against",
    metavar="FILE.json",
    type=click.Path(path_type=Path),
    help="Draw the curves of another run, too: what it printed with --json.",
)
@_setting_options
@json_option
@pass_app
def simulate(
    app: App,
    /,
    path: Path | None,
    runs: int,
    jobs: int,
    plot_path: Path | None,
    against: Path | None,
    **flags: str | None,
) -> int:
    """Simulate a cluster over months: its growth, reads, failures, repair and rebalancing.

    All decisions are those of the Directory, made by the same code; machines, disks, time and photos are simulated. The
    same settings and seed always give the same result. Settings come from FILE, then from flags. What is modelled, and
    what is not, is in docs/simulation.md.

    With --runs the runs differ in their seeds; tables and curves are those of the first, the chance of loss is that of
    all. --plot needs matplotlib: pip install 'haystack-photos[plots]'.
    """
    scenario = load_scenario(path, flags)
    other = _read_against(against) if against is not None else None
    if plot_path is not None:
        simulate_plot.check()
    results = _run_all(app.output, [replace(scenario, seed=scenario.seed + number) for number in range(runs)], jobs)
    document = {**results[0].document(), "runs": [_run_document(result) for result in results]}
    app.output.document(document)
    _show(app.output, results)
    if plot_path is not None:
        simulate_plot.draw(plot_path, document, other)
        app.output.note(f"The curves are in {plot_path}.")
    return 0


def _run_all(output: Output, scenarios: Sequence[Scenario], jobs: int) -> list[Result]:
    days = int(scenarios[0].seconds / DAY_SECONDS)
    with output.progress("Days", days * len(scenarios)) as progress:
        if jobs == 1 or len(scenarios) == 1:
            results = []
            for number, scenario in enumerate(scenarios):

                def watch(sample: Sample, before: int = number * days) -> None:
                    progress.at(before + int(sample.seconds / DAY_SECONDS))

                results.append(Simulation(scenario).run(watch))
            return results
        with _pool(jobs) as pool:
            results = []
            for result in pool.map(run_one, scenarios):
                results.append(result)
                progress.advance(days)
            return results


def run_one(scenario: Scenario) -> Result:
    """Run a scenario, in a process of its own."""
    return Simulation(scenario).run()


@contextmanager
def _pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    pool = ProcessPoolExecutor(jobs)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _read_against(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_AGAINST_BYTES:
            raise ConfigError(f"{path}: is larger than {format_size(MAX_AGAINST_BYTES)}, which no run prints")
        document = json.loads(path.read_text())
        if not isinstance(document, dict) or not isinstance(document.get("samples"), list):
            raise ConfigError(f"{path}: is not what haystack simulate --json prints")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    return document


def _run_document(result: Result) -> dict[str, Any]:
    depth = result.estimates[-2].losses if len(result.estimates) > 2 else result.estimates[-1].losses
    return {"seed": result.scenario.seed, "lost_volumes": result.totals.lost_volumes, "losses": depth}


# -- tables


def _show(output: Output, results: Sequence[Result]) -> None:
    result = results[0]
    _show_curves(output, result)
    output.say()
    _show_hardware(output, result)
    output.say()
    _show_copies(output, result)
    output.say()
    _show_losses(output, result)
    if len(results) > 1:
        hits = sum(1 for one in results if one.totals.lost_volumes)
        least, most = share_bounds(hits, len(results))
        output.say(
            f"Of {len(results)} runs {hits} lost a volume: the chance of that is {least:.2g} to {most:.2g} "
            "(95 % confidence)."
        )


def _show_curves(output: Output, result: Result) -> None:
    titles = ("machines", "stored", "fill", "fullest", "load p99", "load max", "moved", "repaired", "lacking")
    columns = [Column("month", right=True), *(Column(title, right=True) for title in titles)]
    output.table(columns, [_curve_row(sample) for sample in _by_month(result.samples)])
    output.say("Fill of all disks and of the fullest machine; loads as multiples of the mean, at the end of the month.")


def _by_month(samples: Sequence[Sample]) -> list[Sample]:
    """Return the last sample of each month."""
    found: dict[int, Sample] = {}
    for sample in samples:
        found[-int(-(sample.seconds - 1) // MONTH_SECONDS)] = sample
    return list(found.values())


def _curve_row(sample: Sample) -> list[str]:
    return [
        f"{sample.seconds / MONTH_SECONDS:.0f}",
        f"{sample.machines:,}",
        _bytes(sample.stored_bytes),
        f"{sample.fill_mean:.0%}",
        f"{sample.fill_max:.0%}",
        f"{sample.load_p99:.2f}",
        f"{sample.load_max:.2f}",
        _bytes(sample.moved_bytes),
        _bytes(sample.repaired_bytes),
        f"{sample.degraded:,}",
    ]


def _show_hardware(output: Output, result: Result) -> None:
    bought, last = result.bought, result.last
    rows = [
        ("machines bought for growth", bought.machines),
        ("machines bought for dead ones", bought.replaced_machines),
        ("disks bought for dead ones", bought.replaced_disks),
        ("orders, of which bad batches", f"{bought.orders:,}, {bought.bad_lots:,}"),
        ("machines that died, in bursts", f"{bought.dead_machines:,}, {bought.burst_deaths:,}"),
        ("disks that died", bought.dead_disks),
        ("machines and disks at the end", f"{last.machines:,}, {last.disks:,}"),
        ("reads a second of a machine", f"{result.scenario.reads_per_second / max(1, last.machines):,.1f}"),
    ]
    output.table([Column("to buy"), Column("", right=True)], [(name, _count(value)) for name, value in rows])


def _show_copies(output: Output, result: Result) -> None:
    totals, times = result.totals, result.repair_seconds
    share = result.degraded_volume_seconds / result.volume_seconds if result.volume_seconds else 0.0
    load_plans = [plan for plan in result.plans if plan.steps]
    rows = [
        ("uploaded", _bytes(result.stored_bytes)),
        ("refused for want of room", _bytes(result.refused_bytes)),
        ("copies made by repair", f"{totals.repaired_copies:,}, {_bytes(totals.repaired_bytes)}"),
        ("copies moved", f"{totals.moved_copies:,}, {_bytes(totals.moved_bytes)}"),
        ("rebalance plans, with steps", f"{len(result.plans):,}, {len(load_plans):,}"),
        ("time to a full set of copies, mean", format_duration(times["mean"])),
        ("the same, 99 of 100, longest", f"{format_duration(times['p99'])}, {format_duration(times['max'])}"),
        ("part of the time that a volume lacks a copy", f"{share:.2g}"),
        ("volumes lost", f"{totals.lost_volumes:,}, {_bytes(totals.lost_bytes)}"),
    ]
    output.table([Column("copies"), Column("", right=True)], rows)


def _show_losses(output: Output, result: Result) -> None:
    copies = result.scenario.promise.copies
    rows = []
    for estimate in result.estimates:
        if estimate.depth == 0:
            name = "counted"
        elif estimate.depth == copies:
            name = f"formula: {copies} independent copies"
        else:
            name = f"from volumes that had {estimate.depth} {'copy' if estimate.depth == 1 else 'copies'} left"
        seen = f"{estimate.seen:,}" if estimate.depth < copies else ""
        bounds = "" if estimate.depth == copies else f"{estimate.least:.2g} to {estimate.most:.2g}"
        if estimate.depth and estimate.depth < copies and not estimate.seen:
            rows.append((name, seen, "not seen", "", ""))
        else:
            rows.append((name, seen, f"{estimate.losses:.2g}", bounds, f"{estimate.chance:.2g}"))
    columns = [Column("volumes lost"), *(Column(t, right=True) for t in ("seen", "expected", "95 %", "chance of any"))]
    output.table(columns, rows)


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _bytes(size_bytes: float) -> str:
    """Return a number of bytes as disks are sold: powers of 1000."""
    value = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(value) < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.2f} PB"
