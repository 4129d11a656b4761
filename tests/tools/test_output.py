"""Tables, bars and notes: on a terminal, in a pipe, with --json."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.output import Column, Output, plain_table, printable


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


COLUMNS = [Column("name"), Column("size", right=True)]


def output(*, json_mode: bool = False, terminal: bool = False) -> tuple[Output, io.StringIO, io.StringIO]:
    kind = Terminal if terminal else io.StringIO
    stdout, stderr = kind(), kind()
    return Output(json_mode, stdout, stderr), stdout, stderr


def test_a_pipe_gets_plain_aligned_text_and_no_bar() -> None:
    out, stdout, stderr = output()
    out.table(COLUMNS, [["cat.jpg", 7], ["a", 1234]])
    with out.progress("copying", 10, "bytes") as bar:
        bar.advance(3)
        bar.at(10, 10)
    assert stdout.getvalue() == "NAME     SIZE\ncat.jpg     7\na        1234\n"
    assert stderr.getvalue() == ""


def test_a_terminal_gets_a_drawn_table_and_a_bar() -> None:
    out, stdout, stderr = output(terminal=True)
    out.table(COLUMNS, [["[bold]cat[/bold].jpg", 7]])
    with out.progress("copying [1]", 10, "bytes") as bar:
        bar.advance(3)
        bar.at(10, 10)
    assert "[bold]cat[/bold].jpg" in stdout.getvalue()
    assert "copying [1]" in stderr.getvalue()


def test_json_mode_writes_one_document_and_draws_nothing() -> None:
    out, stdout, stderr = output(json_mode=True, terminal=True)
    out.table(COLUMNS, [["a", 1]])
    out.say("text")
    out.raw("text")
    with out.progress("copying", None) as bar:
        bar.advance()
    out.document({"name": "Zoë", "n": 1})
    out.note("a note")
    assert json.loads(stdout.getvalue()) == {"name": "Zoë", "n": 1}
    assert stderr.getvalue() == "a note\n"


def test_text_mode_leaves_the_document_out() -> None:
    out, stdout, _ = output()
    out.document({"a": 1})
    out.say("text")
    assert stdout.getvalue() == "text\n"


def test_names_cannot_drive_the_terminal() -> None:
    out, stdout, stderr = output(terminal=True)
    out.say("\x1b]0;title\x07 \u202egpj.exe")
    out.note("\x1b[2J")
    out.table([Column("name")], [["\x1b[31m"]])
    assert "\x1b" not in stderr.getvalue()
    assert not {"\x1b]0;", "\x1b[31m", "\x07"} & set(stdout.getvalue().split())
    assert "\\x1b[31m" in stdout.getvalue()
    assert "\u202e" not in stdout.getvalue()


@given(st.text())
def test_printable_text_has_no_control_characters(text: str) -> None:
    assert all(one.isprintable() or one == "\n" for one in printable(text))


@given(st.lists(st.tuples(st.text("abc ", max_size=9), st.integers()), max_size=5))
def test_plain_tables_are_aligned(rows: list[tuple[str, int]]) -> None:
    lines = list(plain_table(COLUMNS, [[name, str(number)] for name, number in rows]))
    assert len(lines) == len(rows) + 1
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize("empty", [[], [["", ""]]])
def test_empty_tables(empty: list[list[str]]) -> None:
    assert next(plain_table(COLUMNS, empty)) == "NAME  SIZE"
