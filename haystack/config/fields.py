"""What all tables of settings share: how a field becomes a setting, and checks that several tables make."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

from haystack.config.kinds import PORT, Duration, Integer, Kind, Size, Text, check_host, check_public_url, check_url
from haystack.errors import ConfigError
from haystack.units import KIB, MIB

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


HOST_SETTING = setting(HOST, "Address to listen on; 0.0.0.0 for all.")
ADMIN_PORT_SETTING = setting(PORT, f"Port of the admin API [default: port + {ADMIN_PORT_DISTANCE}].")
WORKERS_SETTING = setting(Integer(1, 256), "Worker processes [default: one a processor].")
MAX_HEADER_SETTING = setting(Size(512, 1 * MIB), "Largest request line with headers.")
MAX_CONNECTIONS_SETTING = setting(Integer(1, 1_000_000), "Connections that one worker keeps open.")
HEADER_TIMEOUT_SETTING = setting(Duration(0.001, ONE_DAY_SECONDS), "Time for a client to send its headers.")
IDLE_TIMEOUT_SETTING = setting(Duration(0.001, ONE_DAY_SECONDS), "Time a connection may stay without request.")
STOP_TIMEOUT_SETTING = setting(Duration(0, 3600), "Time that requests in flight have to finish at a stop.")
MAX_HEADER_BYTES = 16 * KIB
MAX_CONNECTIONS = 4096
HEADER_TIMEOUT_SECONDS = 10.0
IDLE_TIMEOUT_SECONDS = 75.0


def public_url_setting(node: str) -> dict[str, Any]:
    """Return the metadata of the address at which clients reach a node of this kind."""
    kind = Text("host:port or an address with http:// or https://", "URL", check_public_url)
    return setting(kind, f"Where clients reach this {node}, when that is not host and port.")


class NodeSettings:
    """What tables of nodes with worker processes and an admin API have in common."""

    __slots__ = ()

    port: int
    admin_port: int | None
    workers: int | None

    def check_node(self, table: str) -> None:
        """Raise ConfigError for what is not allowed, in any setting or in the two ports together."""
        check_fields(self, table)
        if self.admin_port is None and self.port + ADMIN_PORT_DISTANCE > 65535:
            raise ConfigError(
                f"{table}.admin_port: port {self.port} + {ADMIN_PORT_DISTANCE} is no port; set admin_port yourself"
            )
        if self.admin_port == self.port != 0:
            raise ConfigError(f"{table}.admin_port: {self.port} is the data path's port already")

    @property
    def effective_admin_port(self) -> int:
        """The admin API's port; 0 (any free one) when the data path's is 0 and none is set."""
        if self.admin_port is not None:
            return self.admin_port
        return self.port + ADMIN_PORT_DISTANCE if self.port else 0

    @property
    def worker_count(self) -> int:
        """The number of workers: as set, or one for each processor that this process may use."""
        return process_count(self.workers)


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


def process_count(count: int | None) -> int:
    """Return the number of processes: as set, or one for each processor that this process may use."""
    return count if count is not None else len(os.sched_getaffinity(0))
