"""Table ``[directory]``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from haystack.config.fields import (
    DEFAULT_DIRECTORY_PORT,
    HOST_SETTING,
    ONE_DAY_SECONDS,
    check_fields,
    setting,
)
from haystack.config.kinds import (
    PORT,
    REPLICATION,
    Choice,
    Duration,
    FilePath,
    Integer,
    Share,
    Size,
)
from haystack.errors import ConfigError
from haystack.units import GIB, KIB, MIB, TIB


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryOptions:
    """Table ``[directory]``: one Directory.

    The command maps it onto the Directory's own settings class, which ``haystack`` does not import.
    """

    data: Path = field(metadata=setting(FilePath(), "Data folder."))
    host: str = field(default="127.0.0.1", metadata=HOST_SETTING)
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
        check_fields(self, "directory")
        if self.peers_index >= self.peers_count:
            raise ConfigError(
                f"directory.peers_index: {self.peers_index} must be smaller than peers_count ({self.peers_count})"
            )
        if self.dead_after_seconds <= self.heartbeat_seconds:
            raise ConfigError(
                f"directory.dead_after_seconds: {self.dead_after_seconds:g} must be larger than "
                f"heartbeat_seconds ({self.heartbeat_seconds:g})"
            )
