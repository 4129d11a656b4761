"""``haystack status``: how the cluster is, in words."""

from __future__ import annotations

import asyncio

import click

from haystack.units import format_size
from tools.app import EXIT_FAILED, App, cluster_options, pass_app
from tools.control import Control
from tools.output import Column, Output
from tools.view import ClusterView, parse_cluster, problems_of

_COLUMNS = (
    Column("store"),
    Column("state"),
    Column("data center"),
    Column("rack"),
    Column("volumes", right=True),
    Column("free", right=True),
    Column("of", right=True),
    Column("writes/s", right=True),
    Column("version"),
)


@click.command()
@cluster_options
@pass_app
def status(app: App) -> int:
    """Say how the cluster is.

    The exit code is 0 when all is well and 1 when something needs attention, or when the Directory does not answer.
    """
    view = asyncio.run(_ask(app))
    problems = problems_of(view)
    app.output.document({"ok": not problems, "problems": problems, **view.document})
    _show(app.output, view, problems)
    return EXIT_FAILED if problems else 0


async def _ask(app: App) -> ClusterView:
    async with Control(app.directory_urls(), app.secret) as control:
        return parse_cluster(await control.directory("GET", "/dir/status"))


def _show(output: Output, view: ClusterView, problems: list[str]) -> None:
    counts = view.counts
    output.say(
        f"{'The cluster is well' if not problems else 'The cluster needs attention'}: "
        f"{counts['storesAlive']} of {counts['stores']} Stores alive, {counts['volumes']} volumes "
        f"({counts['volumesWritable']} writable), {counts['photos']:,} photos."
    )
    for problem in problems:
        output.say(f"  - {problem}")
    if view.stores:
        output.say()
        output.table(_COLUMNS, [_row(view, index) for index in range(len(view.stores))])
    output.say()
    output.say(f"Directory {view.version}, cluster {view.cluster_id}")


def _row(view: ClusterView, index: int) -> list[object]:
    store = view.stores[index]
    return [
        store.url,
        store.state,
        store.data_center,
        store.rack,
        store.volumes,
        format_size(store.free_bytes),
        format_size(store.total_bytes),
        f"{store.writes_per_second:.1f}",
        store.version,
    ]
