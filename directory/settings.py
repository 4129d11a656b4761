"""Settings and limits of one Directory."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from directory.decisions.replication import parse_replication
from haystack.errors import ConfigError, InvalidRequest
from haystack.units import GIB, KIB, MIB

STORAGE_NAME = "directory.lmdb"
"""The file in the data folder that holds everything."""

MAX_ASSIGN_COUNT = 10_000
"""Names that one assign may reserve: the renditions that one photo's record can list."""

MAX_ASSIGN_PHOTOS = 1_000
"""Photos that one assign may name."""

MAX_GROW_COUNT = 100
"""Volumes that one call may grow."""

MAX_VOLUMES_PER_FOLDER = 4_096
"""Volumes that the Directory puts into one data folder."""

MAX_FOLDERS_PER_STORE = 256
MAX_VOLUMES_PER_STORE = 65_536
MAX_NEEDLES_PER_CONFIRMATION = 10_000

MAX_PUBLIC_BODY_BYTES = 64 * 1024
MAX_INTERNAL_BODY_BYTES = 64 * 1024 * 1024
MAX_REPAIRS_PER_STORE = 2
"""Copies of volumes that one Store makes, or is copied from, at once."""

MAX_CONNECTIONS = 10_000
MAX_WAITING_ASSIGNS = 1_000
"""Assigns that may wait for the first volume; more are answered with 503 at once."""

BODY_TIMEOUT_SECONDS = 30.0
KEEPALIVE_SECONDS = 75.0
FIRST_REQUEST_SECONDS = 10.0
"""Time that a new connection has to send its first request's headers."""

STOP_TIMEOUT_SECONDS = 20.0
GROW_TIMEOUT_SECONDS = 30.0
"""Time that a Store has to make a volume."""

STORE_CALL_TIMEOUT_SECONDS = 5.0
"""Time that a Store has for a call that does not make or remove a volume."""

ASSIGN_WAIT_SECONDS = 5.0
"""Time that an assign waits for volumes that are being made, or for Stores to report after a start."""

GROW_RETRY_SECONDS = 2.0
"""Pause after a growth that failed, before the Directory tries again by itself."""


@dataclass(frozen=True, slots=True)
class DirectorySettings:
    """Settings of one Directory.

    Parameters
    ----------
    data: data folder; made when it is not there.
    host, port: address to listen on; port 0 is any free one.
    secret: the cluster's secret; None leaves internal calls unsigned, for tests and single machines only.
    peers_index, peers_count: this is Directory k of N, which hands out the ids k, k+N, k+2N …
    writable_volumes: how many writable volumes are kept, grown on demand.
    max_volume_bytes: size limit of new volumes; None leaves it to the Store.
    heartbeat_seconds: how often a Store reports.
    dead_after_seconds: silence after which a Store counts as dead.
    default_replication: of photos whose assign names none.
    repair_copies: copies of volumes that are made at once, in the whole cluster.
    repair_bytes_per_second: what all of them together may copy.
    repair_delay_seconds: time that a volume waits for a lost copy to come back before another one is made.
    move_copies: copies of volumes that moves make at once, in the whole cluster; 0: moves wait.
    move_copies_per_store: the same at one Store, those that repair makes there counted in.
    move_bytes_per_second: what all moves together may copy.
    move_linger_seconds: time that the source of a move keeps its copy readable, for readers that remember it.
    compact_garbage_share: part of a volume that must be garbage for it to be compacted by itself; 0: never.
    cache_spread_reads_per_second: reads of one photo that one Cache is to take; what is read more is shared by several.
        0: photos are never shared.
    rebalance_auto: load and fill are evened out by itself. rebalance_look_seconds: how often that is looked at.
    rebalance_watch_seconds: how long every Store must have watched its reads before.
    rebalance_bytes: what one plan may copy. rebalance_moves: moves of a plan that are under way at once.
    rebalance_rest_seconds: how long a volume that was moved is left alone.
    rebalance_payback_seconds: time in which a move must win what it costs.
    rebalance_copies: copies of a very hot volume, temporary ones included.
    rebalance_fill_limit: part of a Store's disks that moves may fill.
    rebalance_load_bytes: bytes read that are as much load as one read.

    Raises
    ------
    ConfigError: a value is out of range, by name.
    """

    data: Path
    host: str = "127.0.0.1"
    port: int = 9333
    secret: bytes | None = field(default=None, repr=False)
    peers_index: int = 0
    peers_count: int = 1
    writable_volumes: int = 7
    max_volume_bytes: int | None = None
    heartbeat_seconds: float = 0.5
    dead_after_seconds: float = 3.0
    default_replication: str = "000"
    repair_copies: int = 4
    repair_bytes_per_second: int = 100 * MIB
    repair_delay_seconds: float = 600.0
    move_copies: int = 4
    move_copies_per_store: int = 2
    move_bytes_per_second: int = 100 * MIB
    move_linger_seconds: float = 10.0
    compact_garbage_share: float = 0.3
    cache_spread_reads_per_second: float = 5000.0
    rebalance_auto: bool = False
    rebalance_look_seconds: float = 60.0
    rebalance_watch_seconds: float = 60.0
    rebalance_bytes: int = 256 * GIB
    rebalance_moves: int = 4
    rebalance_rest_seconds: float = 3600.0
    rebalance_payback_seconds: float = 86_400.0
    rebalance_copies: int = 10
    rebalance_fill_limit: float = 0.85
    rebalance_load_bytes: int = 64 * KIB

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"directory.port: {self.port} is no port")
        if self.peers_count < 1 or not 0 <= self.peers_index < self.peers_count:
            raise ConfigError(
                f"directory.peers_index: {self.peers_index} must be at least 0 and smaller than "
                f"peers_count ({self.peers_count})"
            )
        if self.writable_volumes < 1:
            raise ConfigError(f"directory.writable_volumes: {self.writable_volumes} must be at least 1")
        if self.max_volume_bytes is not None and self.max_volume_bytes < 1:
            raise ConfigError(f"directory.max_volume_bytes: {self.max_volume_bytes} must be at least 1")
        if self.repair_copies < 1 or self.repair_bytes_per_second < 1 or self.repair_delay_seconds < 0:
            raise ConfigError(
                f"directory.repair_copies ({self.repair_copies}) and repair_bytes_per_second "
                f"({self.repair_bytes_per_second}) must be at least 1, repair_delay_seconds "
                f"({self.repair_delay_seconds:g}) at least 0"
            )
        if self.move_copies < 0 or self.move_copies_per_store < 1 or self.move_bytes_per_second < 1:
            raise ConfigError(
                f"directory.move_copies ({self.move_copies}) must be at least 0, move_copies_per_store "
                f"({self.move_copies_per_store}) and move_bytes_per_second ({self.move_bytes_per_second}) at least 1"
            )
        if self.move_linger_seconds < 0:
            raise ConfigError(f"directory.move_linger_seconds: {self.move_linger_seconds:g} must be at least 0")
        if not 0 <= self.compact_garbage_share <= 1:
            raise ConfigError(f"directory.compact_garbage_share: {self.compact_garbage_share:g} is not from 0 to 1")
        for name in ("look_seconds", "bytes", "moves", "payback_seconds", "copies", "load_bytes", "fill_limit"):
            if (value := getattr(self, f"rebalance_{name}")) <= 0:
                raise ConfigError(f"directory.rebalance_{name}: {value:g} must be above 0")
        if min(self.rebalance_watch_seconds, self.rebalance_rest_seconds) < 0 or self.rebalance_fill_limit > 1:
            raise ConfigError(
                f"directory.rebalance_watch_seconds ({self.rebalance_watch_seconds:g}) and rebalance_rest_seconds "
                f"({self.rebalance_rest_seconds:g}) must be at least 0, rebalance_fill_limit "
                f"({self.rebalance_fill_limit:g}) at most 1"
            )
        if self.cache_spread_reads_per_second < 0:
            raise ConfigError(
                f"directory.cache_spread_reads_per_second: {self.cache_spread_reads_per_second:g} must be at least 0"
            )
        try:
            parse_replication(self.default_replication)
        except InvalidRequest as error:
            raise ConfigError(f"directory.default_replication: {error}") from None
        if not 0 < self.heartbeat_seconds < self.dead_after_seconds:
            raise ConfigError(
                f"directory.dead_after_seconds: {self.dead_after_seconds:g} must be larger than heartbeat_seconds "
                f"({self.heartbeat_seconds:g}), and both above 0"
            )
