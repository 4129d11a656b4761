"""``haystack space``: where the bytes are, and what compactions would win."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import click

from haystack.errors import HaystackError
from haystack.units import format_size
from tools.app import EXIT_FAILED, App, cluster_options, pass_app
from tools.control import Control
from tools.output import Column, Output
from tools.spaces import Bytes, ClusterSpaces, VolumeSpaces, most_to_win, spaces_of
from tools.view import StoreView, parse_cluster

SHOWN_VOLUMES = 20
WALK_SILENCE_SECONDS = 3600.0
"""How long a Store may walk over one index."""

_SUMS = (
    Column("live", right=True),
    Column("garbage", right=True),
    Column("trash", right=True),
    Column("expired", right=True),
    Column("index", right=True),
    Column("to win", right=True),
)
_MACHINES = (Column("machine"), Column("disks", right=True), Column("volumes", right=True), *_SUMS)
_DISKS = (
    Column("store"),
    Column("disk"),
    Column("state"),
    Column("size", right=True),
    Column("free", right=True),
    Column("reserve", right=True),
    Column("volumes", right=True),
    *_SUMS,
)
_VOLUMES = (Column("volume", right=True), Column("store"), Column("size", right=True), *_SUMS, Column("compaction"))
OUTLOOK = "/cluster/compactions?outlook=true"


@click.command()
@click.option("--volumes", "all_volumes", is_flag=True, help="List all volumes, not only those with most to win.")
@click.option("--exact", is_flag=True, help="Tell trash and expired photos apart: the Stores walk over all indexes.")
@cluster_options
@pass_app
def space(app: App, all_volumes: bool, exact: bool) -> int:
    """Show where the bytes go, by machine, disk and volume; what compactions would win, and when they will run.

    Each copy of a volume counts. Without --exact, garbage includes what is in the trash, which a compaction keeps until
    its time is over, and live photos include those that have expired.

    The exit code is 1 when a Store could not be asked.
    """
    found, silent, automatic = asyncio.run(_ask(app, exact))
    shown = most_to_win(found.volumes, None if all_volumes else SHOWN_VOLUMES)
    app.output.document({**_document(found, silent), "automatic": automatic})
    _show(app.output, found, [_volume_row(one) for one in shown], all_volumes)
    if automatic:
        app.output.say()
        app.output.say(f"{automatic[0].upper()}{automatic[1:]}.")
    for store, error in silent.items():
        app.output.note(f"haystack: Store {store}: {error}")
    return EXIT_FAILED if silent else 0


async def _ask(app: App, exact: bool) -> tuple[ClusterSpaces, dict[str, str], str]:
    statuses: dict[str, Mapping[str, Any]] = {}
    walked: dict[tuple[str, int], Mapping[str, Any]] = {}
    silent: dict[str, str] = {}

    async def ask(control: Control, store: StoreView) -> None:
        try:
            status = await control.store(store.admin_url, "GET", "/admin/status")
            if exact:
                await _walk(control, store, status, walked)
            statuses[store.url] = status
        except HaystackError as error:
            silent[store.url] = str(error)

    async with Control(app.directory_urls(), app.secret) as control:
        view = parse_cluster(await control.directory("GET", "/dir/status"))
        await asyncio.gather(*(ask(control, store) for store in view.stores if store.mark != "removed"))
        said = await control.directory("GET", OUTLOOK)
    outlooks = {int(one["volume"]): str(one["when"]) for one in said.get("outlook", ())}
    return spaces_of(statuses, walked, outlooks), silent, str(said.get("automatic", ""))


async def _walk(
    control: Control, store: StoreView, status: Mapping[str, Any], walked: dict[tuple[str, int], Mapping[str, Any]]
) -> None:
    """Have a Store look at each of its volumes, one after another."""
    for document in status.get("volumes", ()):
        number = int(document["volume"])
        if document.get("state") in ("writable", "readonly"):
            path = f"/admin/volumes/{number}/space"
            walked[store.url, number] = await control.store(
                store.admin_url, "GET", path, timeout_seconds=WALK_SILENCE_SECONDS
            )


def _show(out: Output, found: ClusterSpaces, volumes: Sequence[Sequence[object]], all_volumes: bool) -> None:
    rows = [[one.host, one.disks, one.volumes, *_sums(one.bytes)] for one in found.machines]
    if len(rows) != 1:
        rows.append(["all", len(found.disks), len(found.volumes), *_sums(found.total)])
    out.table(_MACHINES, rows)
    out.say()
    out.table(
        _DISKS,
        [
            [
                one.store,
                one.path,
                one.state,
                format_size(one.total),
                format_size(one.free),
                format_size(one.reserve),
                one.volumes,
                *_sums(one.bytes),
            ]
            for one in found.disks
        ],
    )
    if volumes:
        out.say()
        if not all_volumes:
            out.say("Volumes with most to win:")
        out.table(_VOLUMES, volumes)


def _volume_row(one: VolumeSpaces) -> list[object]:
    return [one.volume, one.store, format_size(one.bytes.size), *_sums(one.bytes), one.compaction]


def _sums(one: Bytes) -> list[str]:
    known = (one.live, one.garbage, one.trash, one.expired, one.index, one.gain)
    return ["-" if size is None else format_size(size) for size in known]


def _document(found: ClusterSpaces, silent: Mapping[str, str]) -> dict[str, Any]:
    return {
        "total": found.total.document(),
        "machines": [
            {"host": one.host, "disks": one.disks, "volumes": one.volumes, **one.bytes.document()}
            for one in found.machines
        ],
        "disks": [
            {
                "store": one.store,
                "path": one.path,
                "state": one.state,
                "totalBytes": one.total,
                "freeBytes": one.free,
                "reserveBytes": one.reserve,
                "volumes": one.volumes,
                **one.bytes.document(),
            }
            for one in found.disks
        ],
        "volumes": [
            {
                "volume": one.volume,
                "store": one.store,
                "disk": one.disk,
                **one.bytes.document(),
                "compaction": one.compaction,
            }
            for one in found.volumes
        ],
        "silent": dict(silent),
    }
