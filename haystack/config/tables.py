"""All tables, and the names of their settings as variables and flags."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from haystack.config.cache import CacheSettings
from haystack.config.cluster import ClusterSettings
from haystack.config.directory import DirectoryOptions
from haystack.config.fields import settings_in
from haystack.config.kinds import Kind
from haystack.config.photo_service import FrontendSettings, IntakeOptions
from haystack.config.store import StoreSettings
from haystack.config.up import UpSettings

ENVIRONMENT_PREFIX = "HAYSTACK_"
PLAIN_VARIABLES = frozenset({"HAYSTACK_CONFIG", "HAYSTACK_DEBUG"})
"""Variables that the command itself reads; they are no settings."""

TABLES: Mapping[str, type[Any]] = {
    "cluster": ClusterSettings,
    "directory": DirectoryOptions,
    "store": StoreSettings,
    "cache": CacheSettings,
    "frontend": FrontendSettings,
    "intake": IntakeOptions,
    "up": UpSettings,
}
_SHORT_VARIABLES = {
    "HAYSTACK_SECRET": ("cluster", "secret"),
    "HAYSTACK_SECRET_FILE": ("cluster", "secret_file"),
    "HAYSTACK_DIRECTORY": ("cluster", "directories"),
}
_SHORT_FLAGS = {
    ("cluster", "directories"): "directory",
    ("store", "services"): "service",
    ("intake", "frontends"): "frontend",
    ("cache", "memory_bytes"): "memory",
    ("cache", "ssd_size_bytes"): "ssd-size",
    ("up", "cache_memory_bytes"): "cache-memory",
}


def settings_of(table: str) -> Iterator[tuple[str, Kind, str, object]]:
    """Yield key, kind, help text and default (``dataclasses.MISSING`` if required) of each setting of a table."""
    return settings_in(TABLES[table])


def variable_name(table: str, key: str) -> str:
    """Return the environment variable of a setting."""
    for name, place in _SHORT_VARIABLES.items():
        if place == (table, key):
            return name
    return f"{ENVIRONMENT_PREFIX}{table}_{key}".upper()


def flag_name(table: str, key: str) -> str:
    """Return the flag of a setting, without dashes in front."""
    return _SHORT_FLAGS.get((table, key), key.replace("_", "-"))
