"""What all measurements share: command line, rounds, medians, targets, and the report.

A measurement compares two sides. They take turns (the order is reversed in every other round), and the medians over the
rounds are compared: a machine that gets slower or faster meanwhile then does so for both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TypeVar

from haystack.errors import HaystackError

PACKAGES = {"nginx": "nginx-light", "wrk": "wrk", "fio": "fio", "strace": "strace", "taskset": "util-linux"}
"""Debian's packages of the programs that measurements need."""

_Side = TypeVar("_Side")


class CannotMeasure(HaystackError):
    """Something that a measurement needs is missing, or a side gave wrong answers."""


@dataclass(frozen=True, slots=True)
class Series:
    """Values of one quantity, one a round."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure should be.

    Parameters
    ----------
    at_least, at_most: bounds, either may be missing.
    aim: what was hoped for beyond the bound; only told, never required.
    of_ratio: the figure is ours divided by the peer's, otherwise it is ours alone.
    """

    at_least: float | None = None
    at_most: float | None = None
    aim: float | None = None
    of_ratio: bool = True

    def judge(self, figure: float) -> str:
        """``met``, ``aim met`` or ``MISSED``."""
        if self.at_least is not None and figure < self.at_least:
            return "MISSED"
        if self.at_most is not None and figure > self.at_most:
            return "MISSED"
        if self.aim is None:
            return "met"
        reached = figure >= self.aim if self.at_least is not None else figure <= self.aim
        return "aim met" if reached else "met"

    def __str__(self) -> str:
        sign, bound = ("≥", self.at_least) if self.at_least is not None else ("≤", self.at_most)
        aim = "" if self.aim is None else f", aim {self.aim:g}"
        return f"{sign} {bound:g}{'×' if self.of_ratio else ''}{aim}"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a report: a quantity of ours, perhaps beside a peer's.

    Parameters
    ----------
    what: what was measured.
    unit: of both sides.
    peer_name: who the peer is.
    target: what the figure (see :attr:`figure`) should be.
    """

    what: str
    unit: str
    ours: Series
    peer: Series | None = None
    peer_name: str = ""
    target: Target | None = None

    @property
    def ratio(self) -> float | None:
        """Our median divided by the peer's; None without a peer, or when the peer's is 0."""
        return self.ours.median / self.peer.median if self.peer and self.peer.median else None

    @property
    def figure(self) -> float | None:
        """What the target is about."""
        return self.ratio if self.target is None or self.target.of_ratio else self.ours.median

    @property
    def verdict(self) -> str:
        """What the target says; empty without one."""
        figure = self.figure
        return "" if self.target is None or figure is None else self.target.judge(figure)

    def document(self) -> dict[str, object]:
        """The line for JSON."""
        return {
            "what": self.what,
            "unit": self.unit,
            "ours": _series_document(self.ours),
            "peer": _series_document(self.peer),
            "peer_name": self.peer_name,
            "ratio": self.ratio,
            "target": str(self.target) if self.target else None,
            "verdict": self.verdict,
        }


@dataclass(slots=True)
class Report:
    """What a measurement found.

    Parameters
    ----------
    title: one line.
    settings: how it was measured, for the JSON.
    """

    title: str
    settings: Mapping[str, object]
    lines: list[Line] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(
        self,
        what: str,
        unit: str,
        ours: Iterable[float],
        peer: Iterable[float] | None = None,
        *,
        peer_name: str = "",
        target: Target | None = None,
    ) -> None:
        """Add a line from the values of all rounds."""
        other = None if peer is None else Series(tuple(peer))
        self.lines.append(Line(what, unit, Series(tuple(ours)), other, peer_name, target))

    def note(self, text: str) -> None:
        """Add a remark below the table; the same one only once."""
        if text not in self.notes:
            self.notes.append(text)

    def document(self) -> dict[str, object]:
        """The report for JSON."""
        return {
            "title": self.title,
            "machine": machine(),
            "settings": dict(self.settings),
            "lines": [line.document() for line in self.lines],
            "notes": self.notes,
        }

    def text(self) -> str:
        """The report as a table for people."""
        rows = [("", "unit", "Haystack median (min–max)", "peer median (min–max)", "peer", "ratio", "target", "")]
        for line in self.lines:
            rows.append(
                (
                    line.what,
                    line.unit,
                    _series_text(line.ours),
                    _series_text(line.peer) if line.peer else "",
                    line.peer_name,
                    "" if line.ratio is None else f"{line.ratio:.2f}",
                    "" if line.target is None else str(line.target),
                    line.verdict,
                )
            )
        return "\n".join([self.title, *align(rows), *(f"* {note}" for note in self.notes)])


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of a table as lines, each column as wide as its widest cell."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def number(value: float) -> str:
    """A value with as many digits as are worth reading: 81,900, 12.3 or 0.045."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def size_name(size_bytes: int) -> str:
    """4096 → 4 KB: sizes here are powers of two, and called as everybody calls them."""
    if size_bytes % 2**20 == 0:
        return f"{size_bytes // 2**20} MB"
    return f"{size_bytes // 1024} KB" if size_bytes % 1024 == 0 else f"{size_bytes} B"


def alternating(rounds: int, sides: Sequence[_Side]) -> Iterator[tuple[int, _Side]]:
    """Round number and side: forwards in even rounds, backwards in odd ones."""
    for number_ in range(rounds):
        for side in sides if number_ % 2 == 0 else reversed(sides):
            yield number_, side


def best(values: Mapping[str, Sequence[float]], *, lowest: bool = False) -> tuple[str, Sequence[float]]:
    """Name and values of the side with the highest median, or the lowest."""
    choose = min if lowest else max
    name = choose(values, key=lambda side: statistics.median(values[side]))
    return name, values[name]


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    models = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = [line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal")]
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": int(memory[0]) * 1024 if memory else None,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def require_tools(*names: str) -> None:
    """Raises CannotMeasure with what to install when a program is missing."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = [name for name in names if shutil.which(name, path=path) is None]
    if missing:
        packages = " ".join(sorted({PACKAGES.get(name, name) for name in missing}))
        raise CannotMeasure(f"{', '.join(missing)} not found: apt-get install {packages}")


def require_cores(count: int) -> tuple[int, ...]:
    """The first ``count`` processors that this process may use. Raises CannotMeasure when there are fewer."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < count:
        raise CannotMeasure(f"{count} processor cores are needed, {len(cores)} are there")
    return tuple(cores[:count])


def require_root(why: str) -> None:
    """Raises CannotMeasure unless the process is root's."""
    if os.geteuid() != 0:
        raise CannotMeasure(f"run this as root: {why}")


def arguments(description: str | None, *, seconds: float, rounds: int) -> argparse.ArgumentParser:
    """The options that all measurements have.

    Parameters
    ----------
    description: first paragraph of the help, usually the module's docstring.
    seconds: default length of one measured run.
    rounds: default number of rounds.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=seconds, help=f"length of one measured run [{seconds:g}]")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"rounds, both sides in each [{rounds}]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there as JSON, too")
    parser.add_argument("--folder", type=Path, help="make temporary data below this folder, on the disk to be measured")
    return parser


def settings_of(options: argparse.Namespace) -> dict[str, object]:
    """The options as they go into the JSON."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}


def progress(text: str) -> None:
    """Say what is being done, on standard error."""
    print(text, file=sys.stderr, flush=True)


def main(measure: Callable[[argparse.Namespace], Report], parser: argparse.ArgumentParser) -> None:
    """Run a measurement and print its report. Exit code 1: it could not be measured; never: it is slow."""
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if options.rounds < 1 or options.seconds <= 0:
            raise CannotMeasure("--rounds and --seconds must be positive")
        report = measure(options)
    except (HaystackError, OSError) as error:
        print(f"cannot measure: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    print(report.text())
    if options.json is not None:
        options.json.write_text(json.dumps(report.document(), indent=2, ensure_ascii=False) + "\n")


def _interrupt(number_: int, frame: FrameType | None) -> None:
    """Leave through the context managers, so that nothing is left behind."""
    raise SystemExit(128 + number_)


def _series_text(series: Series) -> str:
    if len(set(series.values)) == 1:
        return number(series.median)
    return f"{number(series.median)} ({number(series.low)}–{number(series.high)})"


def _series_document(series: Series | None) -> dict[str, object] | None:
    if series is None:
        return None
    return {"median": series.median, "min": series.low, "max": series.high, "values": list(series.values)}


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()
