"""What a command prints: text or ``--json``, tables, progress bars.

Standard output holds the result and nothing else: with ``--json`` one JSON document, otherwise text. Notes, warnings
and progress go to standard error. On a terminal tables and bars are drawn by rich; in a pipe tables are plain aligned
text and there are no bars, so that scripts and logs stay readable.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TextIO

Unit = Literal["bytes", "items"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    title: str
    right: bool = False
    """Right-aligned, for numbers."""


class Progress(Protocol):
    """A bar, or nothing when nobody watches."""

    def advance(self, amount: int = 1) -> None:
        """Say that ``amount`` more (bytes or items) are done."""

    def at(self, done: int, total: int | None = None) -> None:
        """Say how much is done, and optionally of how much."""


@dataclass(slots=True)
class Output:
    """The three places where a command's words go.

    Parameters
    ----------
    json_mode: standard output takes one JSON document only.
    stdout, stderr: where to write.
    """

    json_mode: bool = False
    stdout: TextIO = field(default_factory=lambda: sys.stdout)
    stderr: TextIO = field(default_factory=lambda: sys.stderr)

    def document(self, document: Any) -> None:
        """Print the result as JSON if that is asked for. Call it once, with everything that the text says."""
        if self.json_mode:
            print(json.dumps(document, indent=2, ensure_ascii=False), file=self.stdout, flush=True)

    def say(self, text: str = "") -> None:
        """Print a line of the result; not with ``--json``, whose document says it."""
        if not self.json_mode:
            print(printable(text), file=self.stdout, flush=True)

    def raw(self, text: str) -> None:
        """Print text of our own making unchanged, tabs and all; not with ``--json``."""
        if not self.json_mode:
            print(text, file=self.stdout, flush=True)

    def note(self, text: str) -> None:
        """Print a line about the work: warnings, plans, hints. Standard error in every mode."""
        print(printable(text), file=self.stderr, flush=True)

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[object]]) -> None:
        """Print a table; not with ``--json``."""
        if self.json_mode:
            return
        texts = [[printable(str(cell)) for cell in row] for row in rows]
        if self.stdout.isatty():
            self._rich_table(columns, texts)
        else:
            for line in plain_table(columns, texts):
                print(line, file=self.stdout)
            self.stdout.flush()

    @contextmanager
    def progress(self, title: str, total: int | None, unit: Unit = "items") -> Iterator[Progress]:
        """Show a bar on standard error while the block runs, if that is a terminal and ``--json`` is not given."""
        if self.json_mode or not self.stderr.isatty():
            yield _NoProgress()
            return
        # Imported here: rich takes a tenth of a second that commands without a bar need not wait.
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            ProgressColumn,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.progress import Progress as RichProgress

        amounts: list[ProgressColumn] = (
            [DownloadColumn(binary_units=True), TransferSpeedColumn()] if unit == "bytes" else [MofNCompleteColumn()]
        )
        shown = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            *amounts,
            TimeRemainingColumn(),
            console=Console(file=self.stderr),
            transient=True,
        )
        with shown:
            yield _RichProgress(shown, shown.add_task(printable(title), total=total))

    def _rich_table(self, columns: Sequence[Column], texts: Sequence[Sequence[str]]) -> None:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in columns:
            table.add_column(Text(column.title), justify="right" if column.right else "left", overflow="fold")
        for row in texts:
            table.add_row(*(Text(cell) for cell in row))
        Console(file=self.stdout).print(table)


class _NoProgress:
    def advance(self, amount: int = 1) -> None:
        """Nobody watches."""

    def at(self, done: int, total: int | None = None) -> None:
        """Nobody watches."""


class _RichProgress:
    def __init__(self, shown: Any, task: Any) -> None:
        self._shown = shown
        self._task = task

    def advance(self, amount: int = 1) -> None:
        self._shown.advance(self._task, amount)

    def at(self, done: int, total: int | None = None) -> None:
        self._shown.update(self._task, completed=done, total=total)


def plain_table(columns: Sequence[Column], texts: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table: a header in capitals, columns two blanks apart, nothing behind the last cell."""
    rows = [[column.title.upper() for column in columns], *texts]
    widths = [max(len(row[index]) for row in rows) for index in range(len(columns))]
    for row in rows:
        cells = (
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(row, widths, columns, strict=True)
        )
        yield "  ".join(cells).rstrip()


def printable(text: str) -> str:
    """Return the text with control characters shown as escapes: names from elsewhere must not drive the terminal."""
    return "".join(one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode() for one in text)
