"""``haystack snapshot``: take, list and give up snapshots of the whole cluster."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime

import click

from haystack.units import DURATION_SYNTAX, format_size, parse_duration
from tools.app import App, Group, cluster_options, pass_app
from tools.control import Control
from tools.output import Column
from tools.snapshots import (
    TAKE_SILENCE_SECONDS,
    SnapshotView,
    delete_snapshot,
    list_snapshots,
    take_snapshot,
)

_COLUMNS = (
    Column("snapshot"),
    Column("taken"),
    Column("until"),
    Column("volumes", right=True),
    Column("bytes", right=True),
    Column("directory", right=True),
    Column("problem"),
)


@click.group(cls=Group)
def snapshot() -> None:
    """Take, list and give up snapshots of the whole cluster.

    A snapshot is a copy of the Directory's storage and the size of each volume at that moment. It takes no photo's
    bytes; but compaction keeps what it holds until it is given up. `haystack backup --snapshot` copies it elsewhere.
    """


@snapshot.command()
@click.argument("name", metavar="NAME")
@click.option("--hold", metavar="TIME", help="Give it up by itself after this time, such as 7d [default: never].")
@cluster_options
@pass_app
def create(app: App, name: str, hold: str | None) -> None:
    """Take a snapshot: consistent over the whole cluster, while uploads go on."""
    taken = asyncio.run(_create(app, name, _seconds(hold)))
    app.output.document(_document(taken))
    app.output.say(
        f"Snapshot {taken.name}: {taken.volume_count} volumes with {format_size(taken.volume_bytes)}, and "
        f"{format_size(taken.directory_bytes)} of the Directory. Held until {_until(taken)}."
    )


@snapshot.command("list")
@cluster_options
@pass_app
def list_(app: App) -> None:
    """List the snapshots that are held."""
    found = asyncio.run(_list(app))
    app.output.document({"snapshots": [_document(one) for one in found]})
    app.output.table(
        _COLUMNS,
        [
            (
                one.name,
                _time(one.created_ms),
                _until(one),
                one.volume_count,
                format_size(one.volume_bytes),
                format_size(one.directory_bytes),
                f"volumes {', '.join(map(str, one.lost))} are lost to it" if one.lost else "",
            )
            for one in found
        ],
    )


@snapshot.command()
@click.argument("name", metavar="NAME")
@cluster_options
@pass_app
def delete(app: App, name: str) -> None:
    """Give a snapshot up: compaction need not keep what it holds any longer."""
    asyncio.run(_delete(app, name))
    app.output.document({"name": name})
    app.output.say(f"Snapshot {name} is given up.")


async def _create(app: App, name: str, hold_seconds: int | None) -> SnapshotView:
    async with Control(app.directory_urls(), app.secret, timeout_seconds=TAKE_SILENCE_SECONDS) as control:
        return await take_snapshot(control, name, hold_seconds)


async def _list(app: App) -> list[SnapshotView]:
    async with Control(app.directory_urls(), app.secret) as control:
        return await list_snapshots(control)


async def _delete(app: App, name: str) -> None:
    async with Control(app.directory_urls(), app.secret) as control:
        await delete_snapshot(control, name)


def _seconds(hold: str | None) -> int | None:
    if hold is None:
        return None
    try:
        seconds = math.ceil(parse_duration(hold))
    except ValueError as error:
        raise click.BadParameter(f"--hold {hold}: {error}; expected {DURATION_SYNTAX}") from error
    if seconds < 1:
        raise click.BadParameter("--hold: at least one second")
    return seconds


def _document(one: SnapshotView) -> dict[str, object]:
    return {
        "name": one.name,
        "createdMs": one.created_ms,
        "expiresMs": one.expires_ms,
        "volumes": one.volume_count,
        "volumeBytes": one.volume_bytes,
        "directoryBytes": one.directory_bytes,
        "lost": list(one.lost),
    }


def _until(one: SnapshotView) -> str:
    return _time(one.expires_ms) if one.expires_ms else "it is deleted"


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
