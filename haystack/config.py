"""Settings of every role: TOML file, then ``HAYSTACK_…`` environment, then flags. Later sources win.

One dataclass is one TOML table; a field with a kind is a setting. From it follow the TOML key, the variable
``HAYSTACK_<TABLE>_<KEY>`` and the flag ``--<key>``, so that the three cannot drift. The table ``[cluster]`` has short
variables: ``HAYSTACK_SECRET``, ``HAYSTACK_SECRET_FILE``, ``HAYSTACK_DIRECTORY``.

Anything unknown or out of range is a :class:`~haystack.errors.ConfigError` that names the setting, where it was found
and what is allowed. Settings that are constructed in Python are checked in the same way.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from haystack.config_kinds import (
    PORT,
    REPLICATION,
    Choice,
    Duration,
    FilePath,
    Integer,
    Kind,
    ListOf,
    Share,
    Size,
    Text,
    check_host,
    check_public_url,
    check_service,
    check_url,
)
from haystack.errors import ConfigError
from haystack.security import check_secret, load_secret
from haystack.units import GIB, KIB, MIB, TIB

DEFAULT_DIRECTORY_PORT = 9333
DEFAULT_STORE_PORT = 8080
DEFAULT_CACHE_PORT = 8100
DEFAULT_FRONTEND_PORT = 8000
DEFAULT_INTAKE_PORT = 8300
ADMIN_PORT_DISTANCE = 10_000
DEFAULT_DIRECTORY_URL = f"http://127.0.0.1:{DEFAULT_DIRECTORY_PORT}"

ENVIRONMENT_PREFIX = "HAYSTACK_"
PLAIN_VARIABLES = frozenset({"HAYSTACK_CONFIG", "HAYSTACK_DEBUG"})
"""Variables that the command itself reads; they are no settings."""

MAX_CONFIG_FILE_BYTES = 1 * MIB
ONE_DAY_SECONDS = 86_400.0

_HOST = Text("a host name or an IP address", "HOST", check_host)
_URL = Text("an address such as http://10.0.0.5:9333", "URL", check_url)
_NAME = Text("a name of up to 255 characters", "NAME")


def setting(kind: Kind, help_text: str) -> dict[str, Any]:
    """Return the metadata that makes a dataclass field a setting."""
    return {"kind": kind, "help": help_text}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """Table ``[cluster]``: what all roles and the command share."""

    secret: str | None = field(
        default=None,
        repr=False,
        metadata=setting(Text("a text of at least 32 characters", "SECRET", most_chars=4096), "The cluster's secret."),
    )
    secret_file: Path | None = field(
        default=None, metadata=setting(FilePath(), "File with the cluster's secret; only its owner may read it.")
    )
    directories: tuple[str, ...] = field(default=(), metadata=setting(ListOf(_URL), "Addresses of the Directories."))


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """Table ``[store]``: one Store node. The limits and their reasons are listed in docs/design.md."""

    data: tuple[Path, ...] = field(metadata=setting(ListOf(FilePath()), "Data folder; repeat it for several disks."))
    host: str = field(default="127.0.0.1", metadata=setting(_HOST, "Address to listen on; 0.0.0.0 for all."))
    port: int = field(default=DEFAULT_STORE_PORT, metadata=setting(PORT, "Port of the data path; 0: any free one."))
    admin_port: int | None = field(
        default=None, metadata=setting(PORT, f"Port of the admin API [default: port + {ADMIN_PORT_DISTANCE}].")
    )
    public_url: str | None = field(
        default=None,
        metadata=setting(
            Text("host:port or an address with http:// or https://", "URL", check_public_url),
            "Where clients reach this Store, when that is not host and port.",
        ),
    )
    services: tuple[str, ...] = field(
        default=(),
        metadata=setting(
            ListOf(Text("name=host:port, such as intake=10.0.0.5:8300", "NAME=ADDRESS", check_service), most_items=16),
            "Other servers of this machine that clients of the Directory are told of; repeat it for several.",
        ),
    )
    directories: tuple[str, ...] = ()
    workers: int | None = field(
        default=None, metadata=setting(Integer(1, 256), "Worker processes [default: one a processor].")
    )
    durability: Literal["fsync", "os"] = field(
        default="fsync",
        metadata=setting(Choice(("fsync", "os")), "When an upload is acknowledged: after fdatasync, or after write."),
    )
    data_center: str = field(default="default", metadata=setting(_NAME, "Data center that this machine is in."))
    rack: str = field(default="default", metadata=setting(_NAME, "Rack that this machine is in."))
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
    max_header_bytes: int = field(
        default=16 * KIB, metadata=setting(Size(512, 1 * MIB), "Largest request line with headers.")
    )
    max_connections: int = field(
        default=4096, metadata=setting(Integer(1, 1_000_000), "Connections that one worker keeps open.")
    )
    header_timeout_seconds: float = field(
        default=10.0, metadata=setting(Duration(0.001, ONE_DAY_SECONDS), "Time for a client to send its headers.")
    )
    idle_timeout_seconds: float = field(
        default=75.0, metadata=setting(Duration(0.001, ONE_DAY_SECONDS), "Time a connection may stay without request.")
    )
    stall_timeout_seconds: float = field(
        default=30.0, metadata=setting(Duration(0.001, ONE_DAY_SECONDS), "Time a body may make no progress.")
    )
    upload_memory_bytes: int = field(
        default=4 * MIB, metadata=setting(Size(4 * KIB, 4 * GIB), "Memory for one upload; more is spilled to disk.")
    )
    upload_memory_total_bytes: int = field(
        default=256 * MIB, metadata=setting(Size(4 * KIB, 1 * TIB), "Memory for all uploads of one worker.")
    )
    stop_timeout_seconds: float = field(
        default=20.0, metadata=setting(Duration(0, 3600), "Time that requests in flight have to finish at a stop.")
    )
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
        _check_fields(self, "store")
        if not self.data:
            raise ConfigError("store.data: at least one data folder is needed")
        _check_ports(self.port, self.admin_port, "store")
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

    @property
    def effective_admin_port(self) -> int:
        """The admin API's port; 0 (any free one) when the data path's is 0 and none is set."""
        return _admin_port(self.port, self.admin_port)

    @property
    def worker_count(self) -> int:
        """The number of workers: as set, or one for each processor that this process may use."""
        return _worker_count(self.workers)


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryOptions:
    """Table ``[directory]``: one Directory.

    The command maps it onto the Directory's own settings class, which ``haystack`` does not import.
    """

    data: Path = field(metadata=setting(FilePath(), "Data folder."))
    host: str = field(default="127.0.0.1", metadata=setting(_HOST, "Address to listen on; 0.0.0.0 for all."))
    port: int = field(default=DEFAULT_DIRECTORY_PORT, metadata=setting(PORT, "Port; 0: any free one."))
    peers_index: int = field(
        default=0, metadata=setting(Integer(0, 255), "Which of the Directories this is, counted from 0.")
    )
    peers_count: int = field(default=1, metadata=setting(Integer(1, 256), "How many Directories there are."))
    writable_volumes: int = field(
        default=7, metadata=setting(Integer(1, 10_000), "Writable volumes to keep, grown on demand.")
    )
    max_volume_bytes: int | None = field(
        default=None, metadata=setting(Size(64 * KIB, 8 * TIB), "Size limit of new volumes [default: the Store's].")
    )
    default_replication: str = field(
        default="000", metadata=setting(REPLICATION, "Copies of new photos, where an upload does not ask for others.")
    )
    repair_delay_seconds: float = field(
        default=600.0,
        metadata=setting(
            Duration(0, ONE_DAY_SECONDS), "Time that a lost copy has to come back before another one is made."
        ),
    )
    repair_copies: int = field(
        default=4, metadata=setting(Integer(1, 1000), "Copies of volumes that are made at the same time.")
    )
    repair_bytes_per_second: int = field(
        default=100 * MIB, metadata=setting(Size(64 * KIB, 1 * TIB), "What all of them together may copy in a second.")
    )
    move_copies: int = field(
        default=4,
        metadata=setting(Integer(0, 1000), "Copies of volumes that moves make at the same time; 0: moves wait."),
    )
    move_copies_per_store: int = field(
        default=2, metadata=setting(Integer(1, 1000), "The same at one Store, those of repair counted in.")
    )
    move_bytes_per_second: int = field(
        default=100 * MIB, metadata=setting(Size(64 * KIB, 1 * TIB), "What all moves together may copy in a second.")
    )
    move_linger_seconds: float = field(
        default=10.0,
        metadata=setting(Duration(0, ONE_DAY_SECONDS), "Time that a copy stays readable where it was moved from."),
    )
    compact_garbage_share: float = field(
        default=0.3,
        metadata=setting(Share(), "Garbage in a volume from which on it is compacted by itself; 0: never."),
    )
    rebalance_auto: Literal["on", "off"] = field(
        default="off", metadata=setting(Choice(("on", "off")), "Even out load and fill of the Stores by itself.")
    )
    rebalance_look_seconds: float = field(
        default=60.0, metadata=setting(Duration(0.1, ONE_DAY_SECONDS), "How often it is looked at whether that is due.")
    )
    rebalance_watch_seconds: float = field(
        default=60.0,
        metadata=setting(Duration(0, ONE_DAY_SECONDS), "How long all Stores must have watched their reads before."),
    )
    rebalance_bytes: int = field(
        default=256 * GIB, metadata=setting(Size(64 * KIB, 8192 * TIB), "What one plan may copy.")
    )
    rebalance_moves: int = field(
        default=4, metadata=setting(Integer(1, 1000), "Moves of a plan that are under way at the same time.")
    )
    rebalance_rest_seconds: float = field(
        default=3600.0,
        metadata=setting(Duration(0, 7 * ONE_DAY_SECONDS), "How long a volume that was moved is left where it is."),
    )
    rebalance_payback_seconds: float = field(
        default=ONE_DAY_SECONDS,
        metadata=setting(Duration(1, 7 * ONE_DAY_SECONDS), "Time in which a move must win what its copying costs."),
    )
    rebalance_copies: int = field(
        default=10,
        metadata=setting(Integer(1, 100), "Copies that a very hot volume may have, temporary ones included."),
    )
    rebalance_fill_limit: float = field(
        default=0.85, metadata=setting(Share(), "Part of a Store's disks that moves of a plan may fill.")
    )
    rebalance_load_bytes: int = field(
        default=64 * KIB, metadata=setting(Size(1, 1 * GIB), "Bytes read that are as much load as one read more.")
    )
    cache_spread_reads_per_second: int = field(
        default=5000,
        metadata=setting(
            Integer(0, 1_000_000_000), "Reads of one photo that one Cache is to take; hotter ones are shared; 0: never."
        ),
    )
    heartbeat_seconds: float = field(default=0.5, metadata=setting(Duration(0.01, 3600), "How often a Store reports."))
    dead_after_seconds: float = field(
        default=3.0, metadata=setting(Duration(0.02, ONE_DAY_SECONDS), "Silence after which a Store counts as dead.")
    )

    def __post_init__(self) -> None:
        _check_fields(self, "directory")
        if self.peers_index >= self.peers_count:
            raise ConfigError(
                f"directory.peers_index: {self.peers_index} must be smaller than peers_count ({self.peers_count})"
            )
        if self.dead_after_seconds <= self.heartbeat_seconds:
            raise ConfigError(
                f"directory.dead_after_seconds: {self.dead_after_seconds:g} must be larger than "
                f"heartbeat_seconds ({self.heartbeat_seconds:g})"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """Table ``[cache]``: one Cache node."""

    data: Path = field(metadata=setting(FilePath(), "Data folder: it holds the node's id, and no photos."))
    host: str = field(default="127.0.0.1", metadata=setting(_HOST, "Address to listen on; 0.0.0.0 for all."))
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
        _check_fields(self, "cache")
        _check_ports(self.port, self.admin_port, "cache")

    @property
    def effective_admin_port(self) -> int:
        """The admin API's port; 0 (any free one) when the data path's is 0 and none is set."""
        return _admin_port(self.port, self.admin_port)

    @property
    def worker_count(self) -> int:
        """The number of workers: as set, or one for each processor that this process may use."""
        return _worker_count(self.workers)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontendSettings:
    """Table ``[frontend]``: one front end of the photo service."""

    database: str = field(
        repr=False,
        metadata=setting(
            Text("a URL such as sqlite:////srv/photos.db or postgresql://user@host/photos", "URL", most_chars=1000),
            "Database of people and of photos' records.",
        ),
    )
    host: str = field(default="127.0.0.1", metadata=setting(_HOST, "Address to listen on; 0.0.0.0 for all."))
    port: int = field(default=DEFAULT_FRONTEND_PORT, metadata=setting(PORT, "Port; 0: any free one."))
    public_url: str | None = field(
        default=None,
        metadata=setting(
            _URL, "Where browsers reach it, when that is not host and port; https:// makes cookies secure."
        ),
    )
    images_url: str | None = field(
        default=None,
        metadata=setting(
            _URL, "A CDN that pictures are read from; by itself it is the Caches, or the Stores when there are none."
        ),
    )
    proxies: int = field(
        default=0,
        metadata=setting(
            Integer(0, 10), "Proxies before it; the client's address is that many from the right in X-Forwarded-For."
        ),
    )
    sign_up: Literal["on", "off"] = field(
        default="on", metadata=setting(Choice(("on", "off")), "Whether anybody may sign up.")
    )
    session_seconds: float = field(
        default=30 * ONE_DAY_SECONDS,
        metadata=setting(Duration(60, 3650 * ONE_DAY_SECONDS), "How long somebody stays logged in."),
    )
    rate_limits: Literal["on", "off"] = field(
        default="on",
        metadata=setting(Choice(("on", "off")), "Whether requests of one address or user are limited in number."),
    )
    max_upload_bytes: int = field(
        default=20 * MIB, metadata=setting(Size(1, 1 * GIB), "Largest photo that may be uploaded.")
    )
    keep_untouched: Literal["on", "off"] = field(
        default="off",
        metadata=setting(Choice(("on", "off")), "Whether uploads are kept as they came, beside what is shown of them."),
    )
    directories: tuple[str, ...] = ()
    secret: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _check_fields(self, "frontend")


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeOptions:
    """Table ``[intake]``: what takes uploads for the photo service, beside one Store.

    The command maps it onto the intake's own settings class, which ``haystack`` does not import.
    """

    data: Path = field(metadata=setting(FilePath(), "Folder for its outbox and for uploads on their way."))
    store: str = field(metadata=setting(Text("host:port", "HOST:PORT", check_public_url), "The Store beside it."))
    frontends: tuple[str, ...] = field(
        metadata=setting(ListOf(_URL), "Front end that is told of photos; repeat it for others, asked in this order.")
    )
    host: str = field(default="127.0.0.1", metadata=setting(_HOST, "Address to listen on; 0.0.0.0 for all."))
    port: int = field(default=DEFAULT_INTAKE_PORT, metadata=setting(PORT, "Port; 0: any free one."))
    max_upload_bytes: int = field(default=20 * MIB, metadata=setting(Size(1, 1 * GIB), "Largest photo that is taken."))
    max_pixels: int = field(
        default=100_000_000, metadata=setting(Integer(1, 10**9), "Pixels of the largest picture that is decoded.")
    )
    avif: Literal["on", "off"] = field(
        default="off", metadata=setting(Choice(("on", "off")), "Whether renditions are made in AVIF, too.")
    )
    image_processes: int | None = field(
        default=None,
        metadata=setting(Integer(1, 256), "Processes that work on pictures [default: one a processor]."),
    )
    image_seconds: float = field(
        default=8.0, metadata=setting(Duration(0.1, 3600), "Time for one picture; above, it is refused.")
    )
    image_memory_bytes: int = field(
        default=2 * GIB, metadata=setting(Size(256 * MIB, 1 * TIB), "Memory for one picture; above, it is refused.")
    )
    max_uploads: int = field(
        default=500, metadata=setting(Integer(1, 1_000_000), "Uploads that are on their way at the same time.")
    )
    max_uploads_bytes: int = field(
        default=8 * GIB, metadata=setting(Size(1 * MIB, 8 * TIB), "Bytes on disk of all of them together.")
    )

    def __post_init__(self) -> None:
        _check_fields(self, "intake")
        if not self.frontends:
            raise ConfigError("intake.frontends: at least one front end is needed")

    @property
    def process_count(self) -> int:
        """Processes for pictures: as set, or one for each processor that this process may use."""
        return _worker_count(self.image_processes)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpSettings:
    """Table ``[up]``: a whole cluster on one machine."""

    data: Path = field(metadata=setting(FilePath(), "Folder of the whole cluster; made when it is not there."))
    stores: int | None = field(
        default=None,
        metadata=setting(Integer(1, 64), "Number of Stores [default: those that are there, or the copies]."),
    )
    replication: str | None = field(
        default=None,
        metadata=setting(REPLICATION, "Copies of new photos [default: as at the last start, or 000: one copy]."),
    )
    racks: int | None = field(
        default=None,
        metadata=setting(Integer(1, 64), "Racks that the Stores play [default: as the replication needs them]."),
    )
    data_centers: int | None = field(
        default=None, metadata=setting(Integer(1, 64), "Data centers that the racks are in [default: the same].")
    )
    host: str = field(default="127.0.0.1", metadata=setting(_HOST, "Address that all listen on; 0.0.0.0 for all."))
    directory_port: int = field(
        default=DEFAULT_DIRECTORY_PORT, metadata=setting(PORT, "Port of the Directory; 0: any free one.")
    )
    store_port: int = field(
        default=DEFAULT_STORE_PORT,
        metadata=setting(PORT, "Port of the first Store, the others follow; 0: any free ones."),
    )
    cache_port: int | None = field(
        default=None,
        metadata=setting(
            PORT, f"Port of the Cache; 0: any free one [default: {DEFAULT_CACHE_PORT}, or 0 as the Stores' port]."
        ),
    )
    cache_memory_bytes: int = field(
        default=256 * MIB, metadata=setting(Size(0, 64 * TIB), "Memory of the Cache for photos; 0: no Cache.")
    )
    frontend: Literal["on", "off"] = field(
        default="on",
        metadata=setting(
            Choice(("on", "off")), "Whether there is a photo service: a front end, an intake for each Store."
        ),
    )
    frontend_port: int | None = field(
        default=None,
        metadata=setting(
            PORT,
            f"Port of the front end; 0: any free one [default: {DEFAULT_FRONTEND_PORT}, or 0 as the Stores' port].",
        ),
    )
    intake_port: int | None = field(
        default=None,
        metadata=setting(
            PORT,
            "Port of the first intake, the others follow; 0: any free ones "
            f"[default: {DEFAULT_INTAKE_PORT}, or 0 as the Stores' port].",
        ),
    )
    port_offset: int = field(default=0, metadata=setting(Integer(0, 60_000), "Added to all ports."))
    workers: int | None = field(
        default=None, metadata=setting(Integer(1, 256), "Worker processes of each Store [default: share processors].")
    )
    durability: Literal["fsync", "os"] | None = field(
        default=None, metadata=setting(Choice(("fsync", "os")), "As of a Store [default: the Store's].")
    )
    start_timeout_seconds: float = field(
        default=60.0, metadata=setting(Duration(0.1, ONE_DAY_SECONDS), "Time for each process to become ready.")
    )

    def __post_init__(self) -> None:
        _check_fields(self, "up")


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
_Settings = TypeVar("_Settings")


@dataclass(frozen=True, slots=True)
class Found:
    """One setting's value and where it was found, in words."""

    value: Any
    source: str
    rank: int
    """0 file, 1 environment, 2 flag."""


class Configuration:
    """What file, environment and flags say, checked setting by setting, with the source of each."""

    def __init__(self, found: Mapping[tuple[str, str], Found] | None = None) -> None:
        self._found = dict(found or {})

    @classmethod
    def load(cls, path: Path | None, environ: Mapping[str, str]) -> Configuration:
        """Read the file (if one is given) and the environment. Raises ConfigError."""
        found: dict[tuple[str, str], Found] = {}
        if path is not None:
            found.update(_read_file(path))
        found.update(_read_environment(environ))
        return cls(found)

    def with_flags(self, table: str, flags: Mapping[str, object]) -> Configuration:
        """Return a copy in which the flags that were given (neither None nor empty) win. Raises ConfigError."""
        found = dict(self._found)
        for key, raw in flags.items():
            if raw is not None and raw != ():
                source = f"flag --{flag_name(table, key)}"
                found[table, key] = Found(_parse(table, key, raw, source, Path()), source, 2)
        return Configuration(found)

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


def settings_of(table: str) -> Iterator[tuple[str, Kind, str, object]]:
    """Yield key, kind, help text and default (``dataclasses.MISSING`` if required) of each setting of a table."""
    for one in dataclasses.fields(TABLES[table]):
        if "kind" in one.metadata:
            yield one.name, one.metadata["kind"], one.metadata["help"], one.default


def variable_name(table: str, key: str) -> str:
    """Return the environment variable of a setting."""
    for name, place in _SHORT_VARIABLES.items():
        if place == (table, key):
            return name
    return f"{ENVIRONMENT_PREFIX}{table}_{key}".upper()


def flag_name(table: str, key: str) -> str:
    """Return the flag of a setting, without dashes in front."""
    return _SHORT_FLAGS.get((table, key), key.replace("_", "-"))


def _read_file(path: Path) -> dict[tuple[str, str], Found]:
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


def _read_environment(environ: Mapping[str, str]) -> dict[tuple[str, str], Found]:
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


def _parse(table: str, key: str, raw: object, source: str, base: Path) -> Any:
    kinds = {name: kind for name, kind, *_ in settings_of(table)}
    if key not in kinds:
        raise ConfigError(f"{source}: unknown setting {table}.{key}{_suggest(key, kinds)}")
    try:
        return kinds[key].parse(raw, base)
    except ValueError as error:
        shown = "the value" if key == "secret" else f"{raw!r}"[:120]
        raise ConfigError(f"{source}: {table}.{key}: {shown}: {error}; expected {kinds[key].allowed}") from error


def _check_ports(port: int, admin_port: int | None, table: str) -> None:
    if admin_port is None and port + ADMIN_PORT_DISTANCE > 65535:
        raise ConfigError(
            f"{table}.admin_port: port {port} + {ADMIN_PORT_DISTANCE} is no port; set admin_port yourself"
        )
    if admin_port == port != 0:
        raise ConfigError(f"{table}.admin_port: {port} is the data path's port already")


def _admin_port(port: int, admin_port: int | None) -> int:
    if admin_port is not None:
        return admin_port
    return port + ADMIN_PORT_DISTANCE if port else 0


def _worker_count(workers: int | None) -> int:
    return workers if workers is not None else len(os.sched_getaffinity(0))


def _check_fields(settings: Any, table: str) -> None:
    for key, kind, _, default in settings_of(table):
        value = getattr(settings, key)
        if value is None and default is None:
            continue
        try:
            kind.check(value)
        except ValueError as error:
            raise ConfigError(f"{table}.{key}: {value!r}: {error}; expected {kind.allowed}") from error


def _suggest(name: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(sorted(known))}"
