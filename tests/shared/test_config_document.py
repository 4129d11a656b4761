"""docs/configuration.md lists every setting with its default and what is allowed; it is compared with the code.

After a change of settings, print the tables anew: ``python tests/shared/test_config_document.py``.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from haystack.config import TABLES, Configuration, settings_of
from haystack.config.kinds import Share
from haystack.units import exact_size

DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"


def table_rows(table: str) -> list[str]:
    rows = ["| setting | default | allowed | meaning |", "|---|---|---|---|"]
    for key, kind, help_text, default in settings_of(table):
        allowed = kind.allowed.partition(": a number with")[0]
        meaning, _, noted = help_text.partition(" [default: ")
        shown = noted.rstrip("].") if noted else _default(key, default)
        shown = shown.removesuffix("s") if isinstance(kind, Share) else shown
        rows.append(f"| `{key}` | {shown} | {allowed} | {meaning.rstrip('.')} |")
    return rows


def _default(key: str, default: object) -> str:
    if default is dataclasses.MISSING:
        return "(required)"
    if default is None or default == ():
        return "(none)"
    if "_bytes" in key and isinstance(default, int):
        return exact_size(default)
    return f"{default:g}s" if isinstance(default, float) else str(default)


@pytest.mark.parametrize("table", TABLES)
def test_the_document_has_every_setting(table: str) -> None:
    section = DOCUMENT.read_text().partition(f"\n## `[{table}]`\n")[2].partition("\n## ")[0]
    assert [line for line in section.splitlines() if line.startswith("|")] == table_rows(table)


def test_the_example_is_valid(tmp_path: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert example is not None
    path = tmp_path / "haystack.toml"
    path.write_text(example[1])
    configuration = Configuration.load(path, {})
    configuration.directory()
    assert configuration.directories() == ("http://10.0.0.5:9333",)


if __name__ == "__main__":
    for name in TABLES:
        print(f"\n## `[{name}]`\n", *table_rows(name), sep="\n")
