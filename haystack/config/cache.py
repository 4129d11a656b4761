"""Table ``[cache]``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from haystack.config.fields import (
    ADMIN_PORT_DISTANCE,
    DEFAULT_CACHE_PORT,
    HOST,
    ONE_DAY_SECONDS,
    admin_port,
    check_fields,
    check_ports,
    setting,
    worker_count,
)
from haystack.config.kinds import (
    PORT,
    Choice,
    Duration,
    FilePath,
    Integer,
    Share,
    Size,
    Text,
    check_public_url,
)
from haystack.units import GIB, KIB, MIB, TIB


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """Table ``[cache]``: one Cache node."""

    data: Path = field(metadata=setting(FilePath(), "Data folder: it holds the node's id, and no photos."))
    host: str = field(default="127.0.0.1", metadata=setting(HOST, "Address to listen on; 0.0.0.0 for all."))
    port: int = field(default=DEFAULT_CACHE_PORT, metadata=setting(PORT, "Port for reads; 0: any free one."))
    admin_port: int | None = field(
        default=None, metadata=setting(PORT, f"Port of the admin API [default: port + {ADMIN_PORT_DISTANCE}].")
    )
    public_url: str | None = field(
        default=None,
        metadata=setting(
            Text("host:port or an address with http:// or https://", "URL", check_public_url),
            "Where clients reach this Cache, when that is not host and port.",
        ),
    )
    directories: tuple[str, ...] = ()
    workers: int | None = field(
        default=None, metadata=setting(Integer(1, 256), "Worker processes [default: one a processor].")
    )
    secret: bytes | None = field(default=None, repr=False)
    memory_bytes: int = field(
        default=1 * GIB, metadata=setting(Size(16 * MIB, 64 * TIB), "Memory for photos, their bookkeeping included.")
    )
    policy: Literal["lru", "s3fifo"] = field(
        default="lru", metadata=setting(Choice(("lru", "s3fifo")), "Which photos go first: segmented LRU, or S3-FIFO.")
    )
    admission: Literal["all", "paper"] = field(
        default="all",
        metadata=setting(
            Choice(("all", "paper")),
            "What is kept: all; or, as in the Haystack paper, photos of volumes that take writes, unless a CDN asks.",
        ),
    )
    max_share: float = field(
        default=0.015625,
        metadata=setting(Share(), "Largest part of the memory for one photo; larger ones pass through."),
    )
    ssd: Path | None = field(
        default=None,
        metadata=setting(FilePath(), "File for a second level, on a solid-state disk; it is emptied at each start."),
    )
    ssd_size_bytes: int = field(
        default=64 * GIB, metadata=setting(Size(16 * MIB, 64 * TIB), "Size of that file; it is taken at the start.")
    )
    ssd_write_bytes_per_second: int = field(
        default=8 * MIB,
        metadata=setting(Size(0, TIB), "What may be written to it, so that it does not wear out; 0: no limit."),
    )
    serve_stale: Literal["on", "off"] = field(
        default="on",
        metadata=setting(
            Choice(("on", "off")), "Serve a photo that is here when nobody can be asked whether it is deleted."
        ),
    )
    max_header_bytes: int = field(
        default=16 * KIB, metadata=setting(Size(512, 1 * MIB), "Largest request line with headers.")
    )
    max_connections: int = field(
        default=4096, metadata=setting(Integer(1, 1_000_000), "Connections that one worker keeps open.")
    )
    max_fetches: int = field(
        default=128, metadata=setting(Integer(1, 10_000), "Photos that are fetched from Stores at the same time.")
    )
    max_waiting: int = field(
        default=10_000, metadata=setting(Integer(1, 1_000_000), "Requests that may wait for a Store; more are refused.")
    )
    header_timeout_seconds: float = field(
        default=10.0, metadata=setting(Duration(0.001, ONE_DAY_SECONDS), "Time for a client to send its headers.")
    )
    idle_timeout_seconds: float = field(
        default=75.0, metadata=setting(Duration(0.001, ONE_DAY_SECONDS), "Time a connection may stay without request.")
    )
    stall_timeout_seconds: float = field(
        default=30.0, metadata=setting(Duration(0.001, ONE_DAY_SECONDS), "Time an answer may make no progress.")
    )
    stop_timeout_seconds: float = field(
        default=5.0, metadata=setting(Duration(0, 3600), "Time that requests in flight have to finish at a stop.")
    )

    def __post_init__(self) -> None:
        check_fields(self, "cache")
        check_ports(self.port, self.admin_port, "cache")

    @property
    def effective_admin_port(self) -> int:
        """The admin API's port; 0 (any free one) when the data path's is 0 and none is set."""
        return admin_port(self.port, self.admin_port)

    @property
    def worker_count(self) -> int:
        """The number of workers: as set, or one for each processor that this process may use."""
        return worker_count(self.workers)
