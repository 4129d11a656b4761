"""Table ``[store]``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from haystack.config.fields import (
    ADMIN_PORT_SETTING,
    DEFAULT_STORE_PORT,
    HEADER_TIMEOUT_SECONDS,
    HEADER_TIMEOUT_SETTING,
    HOST_SETTING,
    IDLE_TIMEOUT_SECONDS,
    IDLE_TIMEOUT_SETTING,
    MAX_CONNECTIONS,
    MAX_CONNECTIONS_SETTING,
    MAX_HEADER_BYTES,
    MAX_HEADER_SETTING,
    NAME,
    ONE_DAY_SECONDS,
    STOP_TIMEOUT_SETTING,
    WORKERS_SETTING,
    NodeSettings,
    public_url_setting,
    setting,
)
from haystack.config.kinds import (
    PORT,
    Choice,
    Duration,
    FilePath,
    ListOf,
    Size,
    Text,
    check_service,
)
from haystack.errors import ConfigError
from haystack.units import GIB, KIB, MIB, TIB


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings(NodeSettings):
    """Table ``[store]``: one Store node. The limits and their reasons are listed in docs/design.md."""

    data: tuple[Path, ...] = field(metadata=setting(ListOf(FilePath()), "Data folder; repeat it for several disks."))
    host: str = field(default="127.0.0.1", metadata=HOST_SETTING)
    port: int = field(default=DEFAULT_STORE_PORT, metadata=setting(PORT, "Port of the data path; 0: any free one."))
    admin_port: int | None = field(default=None, metadata=ADMIN_PORT_SETTING)
    public_url: str | None = field(default=None, metadata=public_url_setting("Store"))
    services: tuple[str, ...] = field(
        default=(),
        metadata=setting(
            ListOf(Text("name=host:port, such as intake=10.0.0.5:8300", "NAME=ADDRESS", check_service), most_items=16),
            "Other servers of this machine that clients of the Directory are told of; repeat it for several.",
        ),
    )
    directories: tuple[str, ...] = ()
    workers: int | None = field(default=None, metadata=WORKERS_SETTING)
    durability: Literal["fsync", "os"] = field(
        default="fsync",
        metadata=setting(Choice(("fsync", "os")), "When an upload is acknowledged: after fdatasync, or after write."),
    )
    data_center: str = field(default="default", metadata=setting(NAME, "Data center that this machine is in."))
    rack: str = field(default="default", metadata=setting(NAME, "Rack that this machine is in."))
    secret: bytes | None = field(default=None, repr=False)
    max_photo_bytes: int = field(
        default=64 * MIB, metadata=setting(Size(1, 4 * GIB - 1), "Largest photo that is accepted.")
    )
    max_volume_bytes: int = field(
        default=32 * GIB, metadata=setting(Size(64 * KIB, 8 * TIB), "Size at which a volume takes no more photos.")
    )
    reserve_bytes: int | None = field(
        default=None,
        metadata=setting(
            Size(0, 8 * TIB),
            "Free space to leave on a disk (at most a tenth of it); below it, no more photos [default: room to compact "
            "its largest volume, at least 64MiB].",
        ),
    )
    max_header_bytes: int = field(default=MAX_HEADER_BYTES, metadata=MAX_HEADER_SETTING)
    max_connections: int = field(default=MAX_CONNECTIONS, metadata=MAX_CONNECTIONS_SETTING)
    header_timeout_seconds: float = field(default=HEADER_TIMEOUT_SECONDS, metadata=HEADER_TIMEOUT_SETTING)
    idle_timeout_seconds: float = field(default=IDLE_TIMEOUT_SECONDS, metadata=IDLE_TIMEOUT_SETTING)
    stall_timeout_seconds: float = field(
        default=30.0, metadata=setting(Duration(0.001, ONE_DAY_SECONDS), "Time a body may make no progress.")
    )
    upload_memory_bytes: int = field(
        default=4 * MIB, metadata=setting(Size(4 * KIB, 4 * GIB), "Memory for one upload; more is spilled to disk.")
    )
    upload_memory_total_bytes: int = field(
        default=256 * MIB, metadata=setting(Size(4 * KIB, 1 * TIB), "Memory for all uploads of one worker.")
    )
    stop_timeout_seconds: float = field(default=20.0, metadata=STOP_TIMEOUT_SETTING)
    trash_retention_seconds: float = field(
        default=7 * ONE_DAY_SECONDS,
        metadata=setting(
            Duration(0, 3650 * ONE_DAY_SECONDS), "Time in which a deleted photo can be brought back; 0: it cannot."
        ),
    )
    compact_bytes_per_second: int = field(
        default=64 * MIB,
        metadata=setting(Size(0, 1 * TIB), "Speed at which volumes are compacted, for each data folder; 0: no limit."),
    )
    scrub_bytes_per_second: int = field(
        default=8 * MIB,
        metadata=setting(Size(0, 1 * TIB), "Speed at which volumes are scrubbed, for each data folder; 0: never."),
    )
    heat_window_seconds: float = field(
        default=60.0,
        metadata=setting(
            Duration(0.1, 3600), "The shortest window over which reads are averaged; the others are 10 and 60 times it."
        ),
    )

    def __post_init__(self) -> None:
        self.check_node("store")
        if not self.data:
            raise ConfigError("store.data: at least one data folder is needed")
        if len(self.service_addresses) != len(self.services):
            raise ConfigError("store.services: one name has two addresses")
        if self.max_photo_bytes >= self.max_volume_bytes:
            raise ConfigError(
                f"store.max_photo_bytes: {self.max_photo_bytes} must be smaller than "
                f"max_volume_bytes ({self.max_volume_bytes})"
            )
        if self.upload_memory_bytes > self.upload_memory_total_bytes:
            raise ConfigError(
                f"store.upload_memory_bytes: {self.upload_memory_bytes} is more than "
                f"upload_memory_total_bytes ({self.upload_memory_total_bytes})"
            )

    @property
    def service_addresses(self) -> dict[str, str]:
        """Name of a service on this machine → its address."""
        return dict(one.split("=", 1) for one in self.services)
