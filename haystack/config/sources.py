"""Reads settings from where they are given: TOML files, environment variables, flags."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haystack.config.tables import ENVIRONMENT_PREFIX, PLAIN_VARIABLES, TABLES, flag_name, settings_of, variable_name
from haystack.errors import ConfigError
from haystack.units import MIB

MAX_CONFIG_FILE_BYTES = 1 * MIB


@dataclass(frozen=True, slots=True)
class Found:
    """One setting's value and where it was found, in words."""

    value: Any
    source: str
    rank: int
    """0 file, 1 environment, 2 flag."""


def read_file(path: Path) -> dict[tuple[str, str], Found]:
    """Return what a TOML file sets. Raises ConfigError."""
    document, mode = _load_toml(path)
    found = {}
    for table, content in document.items():
        if table not in TABLES:
            raise ConfigError(f"{path}: unknown table or setting {table!r}{_suggest(table, TABLES)}")
        if not isinstance(content, dict):
            raise ConfigError(f"{path}: {table} must be a table, written as [{table}]")
        for key, raw in content.items():
            found[table, key] = Found(_parse(table, key, raw, str(path), path.absolute().parent), f"{path}", 0)
    if ("cluster", "secret") in found and mode & 0o077:
        raise ConfigError(
            f"{path}: holds cluster.secret but other users can read it; run: chmod 600 {path}, or use secret_file"
        )
    return found


def read_environment(environ: Mapping[str, str]) -> dict[tuple[str, str], Found]:
    """Return what ``HAYSTACK_…`` variables set. Raises ConfigError."""
    places = {variable_name(table, key): (table, key) for table in TABLES for key, *_ in settings_of(table)}
    found = {}
    for name, raw in environ.items():
        if not name.startswith(ENVIRONMENT_PREFIX) or name in PLAIN_VARIABLES:
            continue
        if name not in places:
            raise ConfigError(f"environment variable {name}: no such setting{_suggest(name, places)}")
        table, key = places[name]
        source = f"environment variable {name}"
        found[table, key] = Found(_parse(table, key, raw, source, Path()), source, 1)
    return found


def read_flags(table: str, flags: Mapping[str, object]) -> dict[tuple[str, str], Found]:
    """Return what flags of a command set: those that were given, neither None nor empty. Raises ConfigError."""
    found = {}
    for key, raw in flags.items():
        if raw is not None and raw != ():
            source = f"flag --{flag_name(table, key)}"
            found[table, key] = Found(_parse(table, key, raw, source, Path()), source, 2)
    return found


def _load_toml(path: Path) -> tuple[dict[str, Any], int]:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(MAX_CONFIG_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"configuration file {path}: cannot be read: {error.strerror}") from error
    if len(text) > MAX_CONFIG_FILE_BYTES:
        raise ConfigError(f"configuration file {path}: larger than {MAX_CONFIG_FILE_BYTES} bytes")
    try:
        return tomllib.loads(text.decode()), mode
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration file {path}: not valid TOML: {error}") from error


def _parse(table: str, key: str, raw: object, source: str, base: Path) -> Any:
    kinds = {name: kind for name, kind, *_ in settings_of(table)}
    if key not in kinds:
        raise ConfigError(f"{source}: unknown setting {table}.{key}{_suggest(key, kinds)}")
    try:
        return kinds[key].parse(raw, base)
    except ValueError as error:
        shown = "the value" if key == "secret" else f"{raw!r}"[:120]
        raise ConfigError(f"{source}: {table}.{key}: {shown}: {error}; expected {kinds[key].allowed}") from error


def _suggest(name: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(sorted(known))}"
