"""Settings of every role: TOML file, then ``HAYSTACK_…`` environment, then flags. Later sources win.

One dataclass is one TOML table; a field with a kind is a setting. From it follow the TOML key, the variable
``HAYSTACK_<TABLE>_<KEY>`` and the flag ``--<key>``, so that the three cannot drift. The table ``[cluster]`` has short
variables: ``HAYSTACK_SECRET``, ``HAYSTACK_SECRET_FILE``, ``HAYSTACK_DIRECTORY``.

Anything unknown or out of range is a :class:`~haystack.errors.ConfigError` that names the setting, where it was found
and what is allowed. Settings that are constructed in Python are checked in the same way.
"""

from __future__ import annotations

from haystack.config.cache import CacheSettings
from haystack.config.cluster import ClusterSettings
from haystack.config.configuration import Configuration
from haystack.config.directory import DirectoryOptions
from haystack.config.fields import (
    DEFAULT_CACHE_PORT,
    DEFAULT_DIRECTORY_URL,
    DEFAULT_FRONTEND_PORT,
    DEFAULT_INTAKE_PORT,
    setting,
)
from haystack.config.photo_service import FrontendSettings, IntakeOptions
from haystack.config.store import StoreSettings
from haystack.config.tables import TABLES, flag_name, settings_of, variable_name
from haystack.config.up import UpSettings

__all__ = [
    "DEFAULT_CACHE_PORT",
    "DEFAULT_DIRECTORY_URL",
    "DEFAULT_FRONTEND_PORT",
    "DEFAULT_INTAKE_PORT",
    "TABLES",
    "CacheSettings",
    "ClusterSettings",
    "Configuration",
    "DirectoryOptions",
    "FrontendSettings",
    "IntakeOptions",
    "StoreSettings",
    "UpSettings",
    "flag_name",
    "setting",
    "settings_of",
    "variable_name",
]
