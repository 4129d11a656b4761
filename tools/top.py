"""``haystack top``: what the cluster does at the moment, live."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import click

from haystack.client.locations import with_scheme
from haystack.errors import HaystackError
from haystack.json_calls import CONNECTION_ERRORS, in_words, read_limited
from haystack.units import format_duration, format_size
from tools.app import App, cluster_options, pass_app
from tools.caches import RATE_COLUMNS, CacheRates, CacheWatch, parse_caches, rate_row
from tools.control import Control
from tools.findings import findings
from tools.output import Column, Output, plain_table, printable
from tools.repair import repair_lines
from tools.samples import OPERATIONS, Rates, Sample, hottest, parse_sample, rates
from tools.status import Snapshot, in_short, take_snapshot

MAX_PAGE_BYTES = 64 * 1024 * 1024
STORE_SECONDS = 2.0
"""A Store that says nothing for so long has no figures in this frame."""

KEY_POLL_SECONDS = 0.1
MAX_REPAIR_LINES = 8

_STORE_COLUMNS = (
    Column("store"),
    Column("state"),
    Column("load", right=True),
    Column("reads/s", right=True),
    Column("p99", right=True),
    Column("uploads/s", right=True),
    Column("p99", right=True),
    Column("deletes/s", right=True),
    Column("out/s", right=True),
    Column("in/s", right=True),
    Column("free", right=True),
)
_VOLUME_COLUMNS = (
    Column("volume", right=True),
    Column("reads/s", right=True),
    Column("uploads/s", right=True),
    Column("copies", right=True),
    Column("stores"),
)


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture: the cluster, and the rates of each Store by its id, or why there are none; those of the Caches."""

    snapshot: Snapshot
    rates: Mapping[str, Rates | str]
    caches: Sequence[CacheRates] = ()


@click.command()
@click.option("--interval", type=click.FloatRange(0.2, 60), default=2.0, show_default=True, help="Seconds of a frame.")
@click.option("--volumes", type=click.IntRange(0, 1000), default=10, show_default=True, help="Hottest volumes to show.")
@cluster_options
@pass_app
def top(app: App, interval: float, volumes: int) -> None:
    """Show what the cluster does: requests, bytes and times of each Store and Cache, the hottest volumes, and repair.

    On a terminal it goes on until q is pressed; in a pipe, and with --json, it is one frame.
    """
    asyncio.run(_top(app, interval, volumes))


async def _top(app: App, interval: float, volumes: int) -> None:
    live = app.output.stdout.isatty() and sys.stdin.isatty() and not app.output.json_mode
    timeout = aiohttp.ClientTimeout(total=STORE_SECONDS)
    async with (
        Control(app.directory_urls(), app.secret) as control,
        aiohttp.ClientSession(timeout=timeout) as session,
    ):
        watcher = _Watcher(control, session)
        first = await take_snapshot(control)
        watcher.cache_rates(first)
        await watcher.sample(first)
        if live:
            await _live(app.output, watcher, interval, volumes)
            return
        await asyncio.sleep(interval)
        frame = await watcher.frame()
        app.output.document(_document(frame, volumes))
        for line in lines_of(frame, volumes):
            app.output.say(line)


class _Watcher:
    """Reads the counters of all Stores again and again."""

    def __init__(self, control: Control, session: aiohttp.ClientSession) -> None:
        self._control = control
        self._session = session
        self._before: dict[str, Sample] = {}
        self._caches = CacheWatch()

    async def frame(self) -> Frame:
        """Return what happened since the frame before."""
        snapshot = await take_snapshot(self._control)
        caches = self.cache_rates(snapshot)
        return Frame(snapshot, await self.sample(snapshot), caches)

    def cache_rates(self, snapshot: Snapshot) -> list[CacheRates]:
        """Return what the Caches did since the call before; the Directory has their counters."""
        return self._caches.take(parse_caches(snapshot.view.document), time.monotonic())

    async def sample(self, snapshot: Snapshot) -> dict[str, Rates | str]:
        """Read the counters of all Stores."""
        nodes = [node for node in snapshot.nodes if node.state != "dead"]
        found = await asyncio.gather(*(self._read(node.url) for node in nodes))
        result: dict[str, Rates | str] = {}
        for node, after in zip(nodes, found, strict=True):
            if isinstance(after, str):
                result[node.store_id] = after
                continue
            before = self._before.get(node.store_id)
            result[node.store_id] = rates(before, after) if before is not None else "no figures yet"
            self._before[node.store_id] = after
        return result

    async def _read(self, url: str) -> Sample | str:
        try:
            async with self._session.get(f"{with_scheme(url)}/metrics") as response:
                page = await read_limited(response, MAX_PAGE_BYTES)
        except CONNECTION_ERRORS as error:
            return in_words(error, STORE_SECONDS)
        except HaystackError as error:
            return str(error)
        return parse_sample(page.decode(errors="replace"), time.monotonic())


def lines_of(frame: Frame, volumes: int) -> list[str]:
    """Return a frame as lines of text."""
    snapshot = frame.snapshot
    found = findings(snapshot.view, snapshot.nodes, snapshot.repair)
    lines = [f"{found.health.value}: {in_short(snapshot)}."]
    lines += [f"  - {problem}" for problem in found.problems]
    lines.append("")
    rows = [[printable(cell) for cell in _store_row(frame, index)] for index in range(len(snapshot.nodes))]
    lines += plain_table(_STORE_COLUMNS, rows)
    if frame.caches:
        lines.append("")
        lines += plain_table(RATE_COLUMNS, [[printable(cell) for cell in rate_row(one)] for one in frame.caches])
    known = [one for one in frame.rates.values() if isinstance(one, Rates)]
    hot = hottest(known, volumes)
    if hot:
        lines.append("")
        places = {one.volume: one for one in snapshot.view.volumes}
        hot_rows = []
        for volume, reads, writes in hot:
            one = places.get(volume)
            stores = ", ".join(snapshot.view.address_of(store) for store in one.in_sync) if one else ""
            copies = f"{len(one.in_sync)} of {one.copies}" if one else ""
            hot_rows.append([str(volume), f"{reads:,.0f}", f"{writes:,.1f}", copies, printable(stores)])
        lines += plain_table(_VOLUME_COLUMNS, hot_rows)
    told = repair_lines(snapshot.repair, snapshot.nodes)
    lines += ["", *told[:MAX_REPAIR_LINES]]
    if len(told) > MAX_REPAIR_LINES:
        lines.append(f"and {len(told) - MAX_REPAIR_LINES} lines more; see: haystack repair")
    return lines


def _store_row(frame: Frame, index: int) -> list[str]:
    node = frame.snapshot.nodes[index]
    state = node.state if node.mark == "none" else f"{node.state}, {node.mark}"
    one = frame.rates.get(node.store_id)
    if not isinstance(one, Rates):
        return [node.url, f"{state} ({one})" if one else state, *["-"] * 8, format_size(node.free_bytes)]
    return [
        node.url,
        state,
        f"{one.load:,.0f}",
        f"{one.requests['read']:,.0f}",
        _time(one.p99_seconds["read"]),
        f"{one.requests['write']:,.1f}",
        _time(one.p99_seconds["write"]),
        f"{one.requests['delete']:,.1f}",
        format_size(int(one.sent_bytes)),
        format_size(int(one.received_bytes)),
        format_size(node.free_bytes),
    ]


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds == float("inf"):
        return "long"
    return f"≤ {format_duration(seconds)}" if seconds >= 0.001 else "≤ 1 ms"


def _document(frame: Frame, volumes: int) -> dict[str, Any]:
    snapshot = frame.snapshot
    stores = []
    for node in snapshot.nodes:
        one = frame.rates.get(node.store_id)
        figures: dict[str, Any] = {"problem": one or "silent"}
        if isinstance(one, Rates):
            figures = {
                "load": round(one.load, 2),
                "perSecond": {name: round(one.requests[name], 2) for name in OPERATIONS},
                "p99Ms": {name: _milliseconds(one.p99_seconds[name]) for name in OPERATIONS},
                "sentBytesPerSecond": round(one.sent_bytes),
                "receivedBytesPerSecond": round(one.received_bytes),
            }
        stores.append({"storeId": node.store_id, "url": node.url, "state": node.state, "mark": node.mark, **figures})
    known = [one for one in frame.rates.values() if isinstance(one, Rates)]
    return {
        "stores": stores,
        "caches": [one.document() for one in frame.caches],
        "hottest": [
            {"volume": volume, "readsPerSecond": round(reads, 2), "writesPerSecond": round(writes, 2)}
            for volume, reads, writes in hottest(known, volumes)
        ],
        "counts": dict(snapshot.view.counts),
        "problems": findings(snapshot.view, snapshot.nodes, snapshot.repair).problems,
        "repair": snapshot.repair.document,
    }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None or seconds == float("inf") else round(seconds * 1000, 3)


async def _live(output: Output, watcher: _Watcher, interval: float, volumes: int) -> None:
    """Draw a frame each ``interval`` seconds until q is pressed."""
    # Imported here: rich takes a tenth of a second that a frame in a pipe need not wait.
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(file=output.stdout)
    text = "Reading the counters of all Stores…"
    with _keys() as pressed, Live(Text(text), console=console, screen=True, auto_refresh=False) as shown:
        while not await _quit_within(pressed, interval):
            try:
                frame = await watcher.frame()
                text = "\n".join(lines_of(frame, volumes))
                note = "q quits"
            except HaystackError as error:
                # The Directory may be back in a moment; what was seen last is still worth something.
                note = f"{printable(str(error))} - trying again; q quits"
            stamp = time.strftime("%H:%M:%S")
            body = Text(f"{stamp}  {note}\n\n{text}", no_wrap=True, overflow="ellipsis")
            shown.update(body, refresh=True)


async def _quit_within(pressed: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if select.select([pressed], [], [], 0)[0] and os.read(pressed, 64).lower().startswith((b"q", b"\x03")):
            return True
        await asyncio.sleep(min(KEY_POLL_SECONDS, left))
    return False


@contextlib.contextmanager
def _keys() -> Iterator[int]:
    """Have keys come one by one and unseen; yields the descriptor to read them from."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield descriptor
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
