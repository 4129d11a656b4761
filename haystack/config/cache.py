"""Table ``[cache]``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from haystack.config.fields import (
    ADMIN_PORT_SETTING,
    DEFAULT_CACHE_PORT,
    HEADER_TIMEOUT_SECONDS,
    HEADER_TIMEOUT_SETTING,
    HOST_SETTING,
    IDLE_TIMEOUT_SECONDS,
    IDLE_TIMEOUT_SETTING,
    MAX_CONNECTIONS,
    MAX_CONNECTIONS_SETTING,
    MAX_HEADER_BYTES,
    MAX_HEADER_SETTING,
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
    Integer,
    Share,
    Size,
)
from haystack.units import GIB, MIB, TIB


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings(NodeSettings):
    """Table ``[cache]``: one Cache node."""

    data: Path = field(metadata=setting(FilePath(), "Data folder: it holds the node's id, and no photos."))
    host: str = field(default="127.0.0.1", metadata=HOST_SETTING)
    port: int = field(default=DEFAULT_CACHE_PORT, metadata=setting(PORT, "Port for reads; 0: any free one."))
    admin_port: int | None = field(default=None, metadata=ADMIN_PORT_SETTING)
    public_url: str | None = field(default=None, metadata=public_url_setting("Cache"))
    directories: tuple[str, ...] = ()
    workers: int | None = field(default=None, metadata=WORKERS_SETTING)
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
    max_header_bytes: int = field(default=MAX_HEADER_BYTES, metadata=MAX_HEADER_SETTING)
    max_connections: int = field(default=MAX_CONNECTIONS, metadata=MAX_CONNECTIONS_SETTING)
    max_fetches: int = field(
        default=128, metadata=setting(Integer(1, 10_000), "Photos that are fetched from Stores at the same time.")
    )
    max_waiting: int = field(
        default=10_000, metadata=setting(Integer(1, 1_000_000), "Requests that may wait for a Store; more are refused.")
    )
    header_timeout_seconds: float = field(default=HEADER_TIMEOUT_SECONDS, metadata=HEADER_TIMEOUT_SETTING)
    idle_timeout_seconds: float = field(default=IDLE_TIMEOUT_SECONDS, metadata=IDLE_TIMEOUT_SETTING)
    stall_timeout_seconds: float = field(
        default=30.0, metadata=setting(Duration(0.001, ONE_DAY_SECONDS), "Time an answer may make no progress.")
    )
    stop_timeout_seconds: float = field(default=5.0, metadata=STOP_TIMEOUT_SETTING)

    def __post_init__(self) -> None:
        self.check_node("cache")
