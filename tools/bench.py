"""``haystack bench``: a first load on a cluster, with figures."""

from __future__ import annotations

from collections.abc import Sequence

import click

from haystack.client import HaystackClient
from haystack.units import GIB, SIZE_SYNTAX, format_size, parse_size
from tools.app import App, cluster_options, pass_app
from tools.connect import MAX_JOBS, connect, run_async
from tools.load import Load, Payloads, Phase, choose_reads, summarize
from tools.output import Column

MAX_COUNT = 10_000_000
MAX_SIZE_BYTES = 1 * GIB


def _size(context: click.Context, parameter: click.Parameter, text: str) -> int:
    try:
        size_bytes = parse_size(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: {error}; expected {SIZE_SYNTAX}") from error
    if not 1 <= size_bytes <= MAX_SIZE_BYTES:
        raise click.BadParameter(f"{text!r}: expected 1 to {MAX_SIZE_BYTES} bytes")
    return size_bytes


@click.command()
@click.option("--count", type=click.IntRange(1, MAX_COUNT), default=1000, show_default=True, help="Photos to upload.")
@click.option(
    "--size", "size_bytes", metavar="SIZE", callback=_size, default="200KB", show_default=True, help="Size of each."
)
@click.option(
    "--concurrency", type=click.IntRange(1, MAX_JOBS), default=32, show_default=True, help="Operations at a time."
)
@click.option("--reads", type=click.IntRange(0, MAX_COUNT), help="Reads [default: as many as photos].")
@click.option("--delete", is_flag=True, help="Delete the photos at the end.")
@click.option("--direct", is_flag=True, help="Read at the Stores, also when there are Caches.")
@click.option("--seed", type=int, default=1, show_default=True, help="Decides over contents and order.")
@cluster_options
@pass_app
def bench(
    app: App,
    count: int,
    size_bytes: int,
    concurrency: int,
    reads: int | None,
    delete: bool,
    direct: bool,
    seed: int,
) -> int:
    """Upload photos, read them back in random order, and say how fast that was.

    Every byte that is read is compared. The figures include this client, which takes one processor core.
    """
    client = connect(app, jobs=concurrency, steady=True, via_cache=not direct)
    reads = count if reads is None else reads
    return run_async(_bench(app, client, count, size_bytes, concurrency, reads, delete, seed))


async def _bench(
    app: App,
    unopened: HaystackClient,
    count: int,
    size_bytes: int,
    concurrency: int,
    reads: int,
    delete: bool,
    seed: int,
) -> int:
    async with unopened as client:
        with app.output.progress("Bench", count + reads + (count if delete else 0)) as progress:
            load = Load(client, Payloads(size_bytes, seed), concurrency, progress)
            written, fids = await load.write(count)
            phases = [written]
            if reads and not written.aborted:
                phases.append(await load.read(fids, choose_reads(list(fids), reads, seed)))
            if delete:
                phases.append(await load.delete(fids))
    _print(app, phases, {"count": count, "size": size_bytes, "concurrency": concurrency, "seed": seed})
    if fids and not delete:
        app.output.note(f"{len(fids):,} photos stay in the cluster; with --delete they are deleted at the end.")
    return 1 if any(phase.errors for phase in phases) else 0


def _print(app: App, phases: Sequence[Phase], parameters: dict[str, int]) -> None:
    app.output.document({**parameters, "phases": [phase.document() for phase in phases]})
    titles = ("done", "errors", "per s", "bytes/s", "p50 ms", "p90 ms", "p99 ms", "max ms")
    columns = [Column(""), *(Column(title, right=True) for title in titles)]
    app.output.table(columns, [_row(phase) for phase in phases])
    for phase in phases:
        if phase.first_error:
            app.output.note(f"haystack: {phase.name}: {phase.errors:,} errors; the first: {phase.first_error}")
        if phase.aborted:
            app.output.note(f"haystack: {phase.name}: {phase.aborted}")


def _row(phase: Phase) -> list[str]:
    done = len(phase.latencies_seconds)
    seconds = phase.seconds or float("inf")
    latencies = summarize(phase.latencies_seconds)
    return [
        phase.name,
        f"{done:,}",
        f"{phase.errors:,}",
        f"{done / seconds:,.0f}",
        f"{format_size(int(phase.size_bytes / seconds))}/s" if phase.name != "delete" else "",
        *(f"{latencies[name] * 1000:,.1f}" if latencies else "" for name in ("p50", "p90", "p99", "max")),
    ]
