"""All sources of settings together, and the settings of each role from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from haystack.config.cache import CacheSettings
from haystack.config.directory import DirectoryOptions
from haystack.config.photo_service import FrontendSettings, IntakeOptions
from haystack.config.sources import Found, read_environment, read_file, read_flags
from haystack.config.store import StoreSettings
from haystack.config.tables import flag_name, variable_name
from haystack.config.up import UpSettings
from haystack.errors import ConfigError
from haystack.security import check_secret, load_secret

_Settings = TypeVar("_Settings")


class Configuration:
    """What file, environment and flags say, checked setting by setting, with the source of each."""

    def __init__(self, found: Mapping[tuple[str, str], Found] | None = None) -> None:
        self._found = dict(found or {})

    @classmethod
    def load(cls, path: Path | None, environ: Mapping[str, str]) -> Configuration:
        """Read the file (if one is given) and the environment. Raises ConfigError."""
        found: dict[tuple[str, str], Found] = {}
        if path is not None:
            found.update(read_file(path))
        found.update(read_environment(environ))
        return cls(found)

    def with_flags(self, table: str, flags: Mapping[str, object]) -> Configuration:
        """Return a copy in which the flags that were given (neither None nor empty) win. Raises ConfigError."""
        return Configuration({**self._found, **read_flags(table, flags)})

    def source(self, table: str, key: str) -> str | None:
        """Where a setting was found, or None when it has its default."""
        found = self._found.get((table, key))
        return found.source if found else None

    def store(self) -> StoreSettings:
        """Return the Store's settings, with secret and Directories of the cluster. Raises ConfigError."""
        return self._build(StoreSettings, "store", secret=self.secret(), directories=self.directories())

    def cache(self) -> CacheSettings:
        """Return the Cache's settings, with secret and Directories of the cluster. Raises ConfigError."""
        return self._build(CacheSettings, "cache", secret=self.secret(), directories=self.directories())

    def frontend(self) -> FrontendSettings:
        """Return the front end's settings, with secret and Directories of the cluster. Raises ConfigError."""
        return self._build(FrontendSettings, "frontend", secret=self.secret(), directories=self.directories())

    def intake(self) -> IntakeOptions:
        """Return the intake's settings. Raises ConfigError."""
        return self._build(IntakeOptions, "intake")

    def directory(self) -> DirectoryOptions:
        """Return the Directory's settings. Raises ConfigError."""
        return self._build(DirectoryOptions, "directory")

    def up(self) -> UpSettings:
        """Return the settings of a cluster on one machine. Raises ConfigError."""
        return self._build(UpSettings, "up")

    def directories(self) -> tuple[str, ...]:
        """Return the addresses of the Directories without a trailing slash; empty when none is set."""
        found = self._found.get(("cluster", "directories"))
        return tuple(url.rstrip("/") for url in found.value) if found else ()

    def secret(self) -> bytes | None:
        """Return the cluster's secret, or None when none is set. Raises ConfigError when it cannot be used."""
        text = self._found.get(("cluster", "secret"))
        file = self._found.get(("cluster", "secret_file"))
        if text and file and text.rank == file.rank:
            raise ConfigError(f"cluster.secret ({text.source}) and cluster.secret_file ({file.source}): set only one")
        if file and (text is None or file.rank > text.rank):
            return load_secret(file.value)
        return check_secret(text.value.encode(), f"cluster.secret ({text.source})") if text else None

    def _build(self, cls: type[_Settings], table: str, **extra: object) -> _Settings:
        values = {key: found.value for (name, key), found in self._found.items() if name == table}
        for one in dataclasses.fields(cls):  # type: ignore[arg-type]  # every table is a dataclass
            required = one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
            if required and one.name not in values:
                raise ConfigError(
                    f"{table}.{one.name} is not set: give --{flag_name(table, one.name)}, "
                    f"{variable_name(table, one.name)} or {one.name} in table [{table}] of the configuration file"
                )
        return cls(**values, **extra)
