"""Table ``[up]``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from haystack.config.fields import (
    DEFAULT_CACHE_PORT,
    DEFAULT_DIRECTORY_PORT,
    DEFAULT_FRONTEND_PORT,
    DEFAULT_INTAKE_PORT,
    DEFAULT_STORE_PORT,
    HOST,
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
    Size,
)
from haystack.units import MIB, TIB


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
    host: str = field(default="127.0.0.1", metadata=setting(HOST, "Address that all listen on; 0.0.0.0 for all."))
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
        check_fields(self, "up")
