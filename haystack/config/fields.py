"""What all tables of settings share: how a field becomes a setting, and checks that several tables make."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

from haystack.config.kinds import Kind, Text, check_host, check_url
from haystack.errors import ConfigError

DEFAULT_DIRECTORY_PORT = 9333
DEFAULT_STORE_PORT = 8080
DEFAULT_CACHE_PORT = 8100
DEFAULT_FRONTEND_PORT = 8000
DEFAULT_INTAKE_PORT = 8300
ADMIN_PORT_DISTANCE = 10_000
DEFAULT_DIRECTORY_URL = f"http://127.0.0.1:{DEFAULT_DIRECTORY_PORT}"
ONE_DAY_SECONDS = 86_400.0

HOST = Text("a host name or an IP address", "HOST", check_host)
URL = Text("an address such as http://10.0.0.5:9333", "URL", check_url)
NAME = Text("a name of up to 255 characters", "NAME")


def setting(kind: Kind, help_text: str) -> dict[str, Any]:
    """Return the metadata that makes a dataclass field a setting."""
    return {"kind": kind, "help": help_text}


def settings_in(table: Any) -> Iterator[tuple[str, Kind, str, object]]:
    """Yield key, kind, help text and default (``dataclasses.MISSING`` if required) of each setting of a dataclass."""
    for one in dataclasses.fields(table):
        if "kind" in one.metadata:
            yield one.name, one.metadata["kind"], one.metadata["help"], one.default


def check_fields(settings: Any, table: str) -> None:
    """Raise ConfigError for the first setting of the table that is not allowed."""
    for key, kind, _, default in settings_in(settings):
        value = getattr(settings, key)
        if value is None and default is None:
            continue
        try:
            kind.check(value)
        except ValueError as error:
            raise ConfigError(f"{table}.{key}: {value!r}: {error}; expected {kind.allowed}") from error


def check_ports(port: int, admin_port: int | None, table: str) -> None:
    """Raise ConfigError when the ports of the data path and of the admin API cannot be those."""
    if admin_port is None and port + ADMIN_PORT_DISTANCE > 65535:
        raise ConfigError(
            f"{table}.admin_port: port {port} + {ADMIN_PORT_DISTANCE} is no port; set admin_port yourself"
        )
    if admin_port == port != 0:
        raise ConfigError(f"{table}.admin_port: {port} is the data path's port already")


def admin_port(port: int, admin_port: int | None) -> int:
    """Return the admin API's port; 0 (any free one) when the data path's is 0 and none is set."""
    if admin_port is not None:
        return admin_port
    return port + ADMIN_PORT_DISTANCE if port else 0


def worker_count(workers: int | None) -> int:
    """Return the number of workers: as set, or one for each processor that this process may use."""
    return workers if workers is not None else len(os.sched_getaffinity(0))
