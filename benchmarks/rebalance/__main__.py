"""How good rebalance plans are: how even, for how many bytes, and how soon; beside planners by count and by bytes.

    python -m benchmarks.rebalance [--plot FOLDER] [--json FILE]

Snapshots are made from seeds, so the results are the same everywhere but for the seconds, which are those of the
processor: planning does nothing but reckon.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.rebalance import baselines
from benchmarks.rebalance.dual import dual_bytes
from benchmarks.rebalance.optimum import TooManyPossibilities, fewest_bytes
from benchmarks.rebalance.snapshots import Shape, make
from directory.decisions.rebalance import Plan, RebalanceSettings, Snapshot, apply_plan, plan
from directory.decisions.rebalance.bounds import least_bytes
from directory.decisions.rebalance.state import State
from haystack.units import GIB, format_size

SETTINGS = RebalanceSettings(budget_bytes=2**62, max_copies=1_000, fill_band=1.0, fill_limit=1.0)
"""No budget, and no limit to temporary copies: what is asked is how few bytes suffice. Fill is not levelled."""

EXPONENTS = (0.6, 0.8, 1.0)
SMALL_CASES = 40
SMALL = Shape(machines=4, volumes=8, racks=1, exponent=1.0, sizes_bytes=(8 * GIB, 32 * GIB))
SMALL_OF_TWO = Shape(machines=6, volumes=10, racks=1, exponent=1.2, replication="001", sizes_bytes=(8 * GIB, 32 * GIB))


@dataclass(frozen=True, slots=True)
class Row:
    """One snapshot, and what came of it."""

    exponent: float
    replication: str
    worst_before: float
    worst_after: float
    by_count: float
    by_bytes: float
    steps: str
    size_bytes: int
    least_bytes_at_reached: int
    least_bytes_at_band: int
    seconds: float
    second_steps: int
    by_count_bytes: int
    by_bytes_bytes: int


def measure(shape: Shape, seed: int, settings: RebalanceSettings) -> tuple[Row, Snapshot, Plan]:
    """Plan for one snapshot, with all three planners."""
    snapshot = make(shape, seed)
    began = time.process_time()
    found = plan(snapshot, settings)
    seconds = time.process_time() - began
    count, size = baselines.by_count(snapshot), baselines.by_bytes(snapshot)
    state = State(snapshot, settings)
    kinds = Counter(step.kind.value for step in found.steps)
    row = Row(
        exponent=shape.exponent,
        replication=shape.replication,
        worst_before=found.worst_before,
        worst_after=found.worst_after,
        by_count=count.worst_after,
        by_bytes=size.worst_after,
        steps=", ".join(f"{number:,} {kind}" for kind, number in kinds.items()),
        size_bytes=found.size_bytes,
        least_bytes_at_reached=_least(state, max(found.worst_after, settings.aim) * state.mean),
        least_bytes_at_band=_least(state, settings.dead_band * state.mean),
        seconds=seconds,
        second_steps=len(plan(apply_plan(snapshot, found), settings).steps),
        by_count_bytes=count.size_bytes,
        by_bytes_bytes=size.size_bytes,
    )
    return row, snapshot, found


def _least(state: State, level: float) -> int:
    """The better of the two bounds."""
    return max(least_bytes(state, level), dual_bytes(state, level))


def small_cases(shape: Shape) -> tuple[int, int, int, float]:
    """Return of small snapshots how many there were, bytes of plans, bytes of optimal ones, and the largest ratio."""
    cases, planned_bytes, fewest, worst = 0, 0, 0, 1.0
    for seed in range(SMALL_CASES):
        snapshot = make(shape, seed)
        found = plan(snapshot, SETTINGS)
        state = State(snapshot, SETTINGS)
        try:
            level = max(found.worst_after, SETTINGS.aim) * state.mean
            least = fewest_bytes(state, level)
            assert _least(state, level) <= least, "the bound is none"
        except TooManyPossibilities:
            continue
        cases += 1
        planned_bytes += found.size_bytes
        fewest += least
        worst = max(worst, found.size_bytes / least if least else 1.0)
    return cases, planned_bytes, fewest, worst


def _print(rows: list[Row]) -> None:
    _heading("Zipf", "copies", "max/mean before", "ours", "by count", "by bytes", "copied", "by count", "by bytes")
    for row in rows:
        copies = 1 + sum(map(int, row.replication))
        print(
            f"| {row.exponent:g} | {copies} | {row.worst_before:.2f} | {row.worst_after:.3f} | {row.by_count:.2f} | "
            f"{row.by_bytes:.2f} | {format_size(row.size_bytes)} | {format_size(row.by_count_bytes)} | "
            f"{format_size(row.by_bytes_bytes)} |"
        )
    print()
    _heading("Zipf", "copies", "steps", "copied", "least", "ratio", "least for 1.10", "ratio", "CPU s", "second plan")
    for row in rows:
        copies = 1 + sum(map(int, row.replication))
        print(
            f"| {row.exponent:g} | {copies} | {row.steps} | {format_size(row.size_bytes)} | "
            f"{format_size(row.least_bytes_at_reached)} | {_ratio(row.size_bytes, row.least_bytes_at_reached)} | "
            f"{format_size(row.least_bytes_at_band)} | {_ratio(row.size_bytes, row.least_bytes_at_band)} | "
            f"{row.seconds:.1f} | {row.second_steps} |"
        )


def _copies(replication: str) -> str:
    copies = 1 + sum(map(int, replication))
    return f"{copies} copies" if copies > 1 else "one copy"


def _heading(*titles: str) -> None:
    print(f"| {' | '.join(titles)} |\n{'|---' * len(titles)}|")


def _ratio(size_bytes: int, least: int) -> str:
    return f"{size_bytes / least:.2f}" if least else "—"


def _plot(folder: Path, rows: list[Row], snapshot: Snapshot, found: Plan) -> None:
    try:
        import matplotlib
    except ImportError:
        raise SystemExit("plots need matplotlib: pip install 'haystack-photos[plots]'") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    labels = [f"Zipf {row.exponent:g}\n{_copies(row.replication)}" for row in rows]
    series = (
        ("before", "#888888", [row.worst_before for row in rows]),
        ("by count", "#d98b3a", [row.by_count for row in rows]),
        ("by bytes", "#c9b037", [row.by_bytes for row in rows]),
        ("by heat", "#2f6fab", [row.worst_after for row in rows]),
    )
    for place, (name, color, values) in enumerate(series):
        left.bar([x + 0.2 * place for x in range(len(rows))], values, 0.2, label=name, color=color)
    left.axhline(1.0, color="black", linewidth=0.6)
    left.set_xticks([x + 0.3 for x in range(len(rows))], labels)
    left.set_yscale("log")
    left.set_ylabel("load of the busiest machine / mean")
    left.legend()
    before = sorted((one.load_before / found.mean_load for one in found.machines), reverse=True)
    after = sorted((one.load_after / found.mean_load for one in found.machines), reverse=True)
    right.plot(before, color="#888888", label="before")
    right.plot(after, color="#2f6fab", label="after")
    right.set_ylim(0, min(5.0, before[0] * 1.05))
    right.set_xlabel(f"{len(snapshot.machines):,} machines, the busiest first (last snapshot of the table)")
    right.set_ylabel("load / mean")
    right.legend()
    figure.savefig(folder / "rebalance.png", dpi=110)


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machines", type=int, default=1_000)
    parser.add_argument("--volumes", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--aim", type=float, default=SETTINGS.aim, help="level that plans aim at, above 1 and below 1.1"
    )
    parser.add_argument("--plot", type=Path, metavar="FOLDER", help="write rebalance.png there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    given = parser.parse_args()
    rows = []
    for replication in ("010", "000"):
        for exponent in EXPONENTS:
            shape = Shape(given.machines, given.volumes, replication=replication, exponent=exponent)
            row, snapshot, found = measure(shape, given.seed, replace(SETTINGS, aim=given.aim))
            rows.append(row)
    _print(rows)
    for small in (SMALL, SMALL_OF_TWO):
        cases, planned_bytes, fewest, worst = small_cases(small)
        print(
            f"\n{cases} snapshots of {small.machines} machines, {small.volumes} volumes of "
            f"{_copies(small.replication)}: {planned_bytes / fewest:.2f} times the bytes of the best plans in all, "
            f"{worst:.2f} times in the worst case"
        )
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=2))
    if given.plot:
        _plot(given.plot, rows, snapshot, found)


if __name__ == "__main__":
    main()
