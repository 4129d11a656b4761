"""What is simulated: traffic, hardware, failures and limits, as a TOML file or flags say.

The defaults are the traffic that Haystack was asked for: 500 million uploads a month of 1 MB, 20 reads an upload, kept
for two years; on machines a little larger than those of the Haystack paper (12 disks of 2 TB instead of 1 TB; volumes
of 100 GB; Beaver et al., OSDI 2010).
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from directory.decisions.replication import Replication, parse_replication
from haystack.config import setting
from haystack.config.kinds import REPLICATION, Duration, Integer, Kind, Number, Share, Size
from haystack.errors import ConfigError
from haystack.units import TIB

DAY_SECONDS = 86_400.0
YEAR_SECONDS = 365.25 * DAY_SECONDS
MONTH_SECONDS = YEAR_SECONDS / 12

MAX_FILE_BYTES = 1 << 20
MAX_MACHINES = 100_000
_FOREVER_SECONDS = 100 * YEAR_SECONDS


_RATE = Number(0, 100)
_BYTES = Size(1, 1 << 60)


def _set(default: Any, kind: Kind, help_text: str) -> Any:
    return field(default=default, metadata=setting(kind, help_text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One simulation. Every field is a setting; its help says what it means.

    Raises
    ------
    ConfigError: a setting is out of range, by name, or two contradict each other.
    """

    seed: int = _set(1, Integer(0, 2**63 - 1), "Decides over everything that is drawn.")
    months: int = _set(24, Integer(1, 240), "How long.")
    uploads_per_month: int = _set(500_000_000, Integer(1, 10**13), "Photos that come in.")
    photo_bytes: int = _set(1_000_000, _BYTES, "Size of a photo as it is kept.")
    reads_per_upload: float = _set(20.0, Number(0, 1e6), "Reads for each upload, at any moment.")
    popularity_age_seconds: float = _set(
        DAY_SECONDS / 2, Duration(1, _FOREVER_SECONDS), "Age at which the reads of a photo begin to fall."
    )
    popularity_exponent: float = _set(1.1, Number(0, 5), "Reads fall with this power of the age.")
    popularity_shape: float = _set(
        1.25, Number(1.01, 100), "Pareto shape of how popular photos are; 1.25 is a Zipf exponent of 0.8."
    )
    bursts_per_month: float = _set(60.0, Number(0, 1e6), "Old photos that become popular for a few days.")

    replication: str = _set("110", REPLICATION, "Copies in other data centers, racks, machines of the rack.")
    data_centers: int = _set(3, Integer(1, 100), "Data centers.")
    rack_machines: int = _set(20, Integer(1, 1000), "Machines in a rack.")
    machine_disks: int = _set(12, Integer(1, 256), "Disks (data folders) of a machine.")
    disk_bytes: int = _set(2 * 10**12, Size(10**6, 1 << 60), "Size of a disk.")
    volume_bytes: int = _set(100 * 10**9, Size(10**5, 8 * TIB), "Size at which a volume is full.")
    writable_volumes: int = _set(500, Integer(1, 1_000_000), "Volumes that are kept writable, at least.")

    machines: int = _set(0, Integer(0, MAX_MACHINES), "Machines at the start; 0: as many as one order.")
    order_racks: int = _set(2, Integer(1, 1000), "Racks that one order adds in each data center.")
    order_at_fill: float = _set(0.75, Share(), "Fill, foreseen for the day of delivery, at which machines are ordered.")
    delivery_seconds: float = _set(14 * DAY_SECONDS, Duration(0, _FOREVER_SECONDS), "From order to use.")
    replace_seconds: float = _set(7 * DAY_SECONDS, Duration(0, _FOREVER_SECONDS), "Until what died is replaced.")

    machine_failures_per_year: float = _set(0.025, _RATE, "Machines that die for good, of each machine in a year.")
    disk_failures_per_year: float = _set(0.0157, _RATE, "Disks that die, of each disk in a year.")
    bad_lot_share: float = _set(0.1, Share(), "Orders that are of a bad batch.")
    bad_lot_factor: float = _set(
        5.0, Number(1, 1000), "How many times as often machines and disks of such an order die."
    )
    burst_share: float = _set(0.05, Share(), "Machines of a bad batch that die together, once.")
    burst_seconds: float = _set(DAY_SECONDS, Duration(1, _FOREVER_SECONDS), "Within which time they do.")

    repair_delay_seconds: float = _set(600.0, Duration(0, _FOREVER_SECONDS), "Wait for a lost copy to come back.")
    repair_copies: int = _set(64, Integer(1, 100_000), "Copies that repair makes at once.")
    repair_bytes_per_second: int = _set(1_600_000_000, _BYTES, "What copies of repair and moves take together.")
    copy_bytes_per_second: int = _set(100_000_000, _BYTES, "What one copy takes at most: a disk, a network card.")

    rebalance_seconds: float = _set(14 * DAY_SECONDS, Duration(0, _FOREVER_SECONDS), "Between two plans; 0: never.")
    rebalance_bytes: int = _set(100 * 10**12, _BYTES, "What one plan may move.")
    rebalance_moves: int = _set(64, Integer(1, 100_000), "Moves at once.")

    step_seconds: float = _set(2 * DAY_SECONDS, Duration(60, 31 * DAY_SECONDS), "Uploads are added up for so long.")
    sample_seconds: float = _set(7 * DAY_SECONDS, Duration(60, _FOREVER_SECONDS), "Between two points of the curves.")

    def __post_init__(self) -> None:
        for key, kind, _, _ in scenario_settings():
            try:
                kind.check(getattr(self, key))
            except ValueError as error:
                raise ConfigError(f"{key}: {getattr(self, key)!r}: {error}; expected {kind.allowed}") from error
        if self.volume_bytes > self.disk_bytes:
            raise ConfigError(f"volume_bytes ({self.volume_bytes}) is more than a disk holds ({self.disk_bytes})")
        if self.photo_bytes > self.volume_bytes:
            raise ConfigError(f"photo_bytes ({self.photo_bytes}) is more than a volume holds ({self.volume_bytes})")
        promise = self.promise
        if promise.centers >= self.data_centers:
            raise ConfigError(f"replication {promise} needs more than {self.data_centers} data centers")
        if promise.stores >= self.rack_machines:
            raise ConfigError(f"replication {promise} needs more than {self.rack_machines} machines in a rack")
        if promise.racks >= self.order_racks:
            raise ConfigError(
                f"replication {promise} needs more than {self.order_racks} racks in a data center; raise order_racks"
            )

    @property
    def promise(self) -> Replication:
        """The replication, parsed."""
        return parse_replication(self.replication)

    @property
    def seconds(self) -> float:
        """How long is simulated."""
        return self.months * MONTH_SECONDS

    @property
    def bytes_per_second(self) -> float:
        """Bytes that are uploaded, each counted once."""
        return self.uploads_per_month * self.photo_bytes / MONTH_SECONDS

    @property
    def reads_per_second(self) -> float:
        """Reads of all photos."""
        return self.uploads_per_month * self.reads_per_upload / MONTH_SECONDS

    @property
    def order_machines(self) -> int:
        """Machines of one order."""
        return self.order_racks * self.data_centers * self.rack_machines

    def document(self) -> dict[str, Any]:
        """Return all settings."""
        return dataclasses.asdict(self)


def scenario_settings() -> Iterator[tuple[str, Kind, str, object]]:
    """Yield key, kind, help text and default of each setting."""
    for one in dataclasses.fields(Scenario):
        yield one.name, one.metadata["kind"], one.metadata["help"], one.default


def load_scenario(path: Path | None, flags: Mapping[str, object]) -> Scenario:
    """Return the scenario of a TOML file, whose keys are the settings, with what the flags say instead.

    Raises ConfigError: the file cannot be read, or a setting is unknown or wrong.
    """
    values: dict[str, Any] = {}
    for key, raw in _read(path).items() if path is not None else ():
        values[key] = _parse(key, raw, f"{path}: ")
    for key, raw in flags.items():
        if raw is not None:
            values[key] = _parse(key, raw, "")
    return Scenario(**values)


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: is larger than {MAX_FILE_BYTES} bytes; a scenario is a few lines")
        return tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as a scenario in TOML: {error}") from error


def _parse(key: str, raw: object, where: str) -> Any:
    kinds = {name: kind for name, kind, _, _ in scenario_settings()}
    if key not in kinds:
        close = difflib.get_close_matches(key, kinds, n=1)
        raise ConfigError(f"{where}unknown setting {key!r}{f'; did you mean {close[0]}?' if close else ''}")
    try:
        return kinds[key].parse(raw, Path())
    except ValueError as error:
        raise ConfigError(f"{where}{key}: {raw!r}: {error}; expected {kinds[key].allowed}") from error
