"""``haystack heat``: which machines, volumes and photos are read most."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from haystack.client.errors import UnexpectedAnswer
from haystack.units import format_size
from tools.app import App, cluster_options, pass_app
from tools.bars import bar
from tools.control import Control
from tools.output import Column, Output

HEAT = "/cluster/heat"
DECIDING = "10m"
"""The window by which decisions are made."""

_MACHINE_COLUMNS = (
    Column("store"),
    Column("rack"),
    Column("state"),
    Column("load", right=True),
    Column("of mean", right=True),
    Column(""),
    Column("reads/s", right=True),
    Column("1 min", right=True),
    Column("1 h", right=True),
    Column("out/s", right=True),
    Column("busy", right=True),
)
_VOLUME_COLUMNS = (
    Column("volume", right=True),
    Column("load", right=True),
    Column(""),
    Column("reads/s", right=True),
    Column("1 min", right=True),
    Column("1 h", right=True),
    Column("out/s", right=True),
    Column("size", right=True),
    Column("copies: load (weight)"),
)
_PHOTO_COLUMNS = (
    Column("photo", right=True),
    Column("volume", right=True),
    Column("reads/s", right=True),
    Column(""),
    Column("at"),
)


@dataclass(frozen=True, slots=True)
class Window:
    """What is read in a second, as an average over one window."""

    reads: float
    bytes: float
    busy_seconds: float


@dataclass(frozen=True, slots=True)
class MachineHeat:
    """A Store; ``windows`` by name."""

    url: str
    rack: str
    state: str
    load: float
    windows: Mapping[str, Window]


@dataclass(frozen=True, slots=True)
class VolumeHeat:
    """A volume; ``copies``: address, load and weight of each."""

    volume: int
    load: float
    size_bytes: int
    windows: Mapping[str, Window]
    copies: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True, slots=True)
class PhotoHeat:
    """A photo; ``volume`` is None when the Directory does not list it; ``at``: who is asked for it."""

    photo: str
    volume: int | None
    reads: float
    at: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HeatView:
    """All of it, hottest first."""

    machines: tuple[MachineHeat, ...]
    volumes: tuple[VolumeHeat, ...]
    photos: tuple[PhotoHeat, ...]


@click.command()
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=10, show_default=True, help="Volumes and photos to show."
)
@cluster_options
@pass_app
def heat(app: App, limit: int) -> None:
    """Show which machines, volumes and photos are read most, and where they are.

    Load is the number by which rebalancing decides: reads a second, and as much for each 64 KiB a second, averaged over
    10 minutes. Reads a second are of the 10 minutes, of the last minute and of the last hour.
    """
    document = asyncio.run(_ask(app, limit))
    view = parse_heat(document)
    app.output.document(document)
    show(app.output, view)


async def _ask(app: App, limit: int) -> dict[str, Any]:
    async with Control(app.directory_urls(), app.secret) as control:
        return await control.directory("GET", HEAT, {"limit": limit})


def parse_heat(document: Mapping[str, Any]) -> HeatView:
    """Read the document of ``/cluster/heat``. Raises UnexpectedAnswer when it is not one of ours."""
    try:
        return HeatView(
            tuple(_machine(one) for one in document["machines"]),
            tuple(_volume(one) for one in document["volumes"]),
            tuple(_photo(one) for one in document["photos"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnexpectedAnswer(
            f"{HEAT}: the answer is not understood ({type(error).__name__}: {error}); "
            "are Directory and this command of the same release?"
        ) from error


def show(output: Output, view: HeatView) -> None:
    """Print it as tables with bars."""
    output.table(_MACHINE_COLUMNS, _machine_rows(view.machines))
    output.say()
    if view.volumes:
        most = view.volumes[0].load
        output.table(_VOLUME_COLUMNS, [_volume_row(one, most) for one in view.volumes])
    else:
        output.say("No volume is read at the moment.")
    if view.photos:
        most = view.photos[0].reads
        output.say()
        output.table(_PHOTO_COLUMNS, [_photo_row(one, most) for one in view.photos])


def _machine_rows(machines: Sequence[MachineHeat]) -> list[list[object]]:
    alive = [one.load for one in machines if one.state == "alive"]
    mean, most = sum(alive) / len(alive) if alive else 0.0, max(alive, default=0.0)
    rows: list[list[object]] = []
    for one in machines:
        of_mean = f"{one.load / mean:.2f}" if mean and one.state == "alive" else "-"
        window = one.windows[DECIDING]
        rows.append(
            [
                one.url,
                one.rack,
                one.state,
                _figure(one.load),
                of_mean,
                bar(one.load, most),
                _figure(window.reads),
                _figure(one.windows["1m"].reads),
                _figure(one.windows["1h"].reads),
                format_size(int(window.bytes)),
                f"{window.busy_seconds:.1%}",
            ]
        )
    return rows


def _volume_row(one: VolumeHeat, most: float) -> list[object]:
    window = one.windows[DECIDING]
    copies = ", ".join(f"{url} {_figure(load)} ({weight:g})" for url, load, weight in one.copies)
    return [
        one.volume,
        _figure(one.load),
        bar(one.load, most),
        _figure(window.reads),
        _figure(one.windows["1m"].reads),
        _figure(one.windows["1h"].reads),
        format_size(int(window.bytes)),
        format_size(one.size_bytes),
        copies,
    ]


def _photo_row(one: PhotoHeat, most: float) -> list[object]:
    volume = "-" if one.volume is None else one.volume
    return [one.photo, volume, _figure(one.reads), bar(one.reads, most), ", ".join(one.at)]


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _machine(document: Mapping[str, Any]) -> MachineHeat:
    return MachineHeat(
        url=str(document["url"]),
        rack=str(document["rack"]),
        state=str(document["state"]),
        load=float(document["load"]),
        windows=_windows(document["heat"]),
    )


def _volume(document: Mapping[str, Any]) -> VolumeHeat:
    return VolumeHeat(
        volume=int(document["volume"]),
        load=float(document["load"]),
        size_bytes=int(document["sizeBytes"]),
        windows=_windows(document["heat"]),
        copies=tuple((str(one["url"]), float(one["load"]), float(one["weight"])) for one in document["copies"]),
    )


def _photo(document: Mapping[str, Any]) -> PhotoHeat:
    volume = document["volume"]
    return PhotoHeat(
        photo=str(document["photo"]),
        volume=None if volume is None else int(volume),
        reads=float(document["readsPerSecond"]),
        at=tuple(str(one["url"] or one["id"]) for one in document["sources"]),
    )


def _windows(document: Mapping[str, Any]) -> dict[str, Window]:
    return {
        name: Window(
            float(document[name]["readsPerSecond"]),
            float(document[name]["bytesPerSecond"]),
            float(document[name]["busySecondsPerSecond"]),
        )
        for name in ("1m", DECIDING, "1h")
    }
