"""What the kernel says about processes and disks: CPU time, memory, disk reads, page cache."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import CannotMeasure

SECTOR_BYTES = 512
"""Unit of /sys/block/*/stat, whatever the disk's own sectors are."""

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class DiskStat:
    """Requests that a disk has completed since boot; a flush makes durable what its own cache holds."""

    reads: int
    read_bytes: int
    writes: int
    written_bytes: int
    flushes: int

    def __sub__(self, earlier: DiskStat) -> DiskStat:
        return DiskStat(
            self.reads - earlier.reads,
            self.read_bytes - earlier.read_bytes,
            self.writes - earlier.writes,
            self.written_bytes - earlier.written_bytes,
            self.flushes - earlier.flushes,
        )


def parse_disk_stat(text: str) -> DiskStat:
    """Read /sys/block/*/stat (Documentation/block/stat.rst of the kernel)."""
    fields = [int(word) for word in text.split()]
    flushes = fields[15] if len(fields) > 15 else 0
    return DiskStat(fields[0], fields[2] * SECTOR_BYTES, fields[4], fields[6] * SECTOR_BYTES, flushes)


def disk_of(folder: Path, sys_folder: Path = Path("/sys")) -> Path:
    """The folder in /sys of the disk (not the partition) that holds ``folder``.

    Raises CannotMeasure when there is none, as for tmpfs or an overlay.
    """
    device = folder.stat().st_dev
    entry = sys_folder / "dev" / "block" / f"{os.major(device)}:{os.minor(device)}"
    if not entry.exists():
        raise CannotMeasure(f"{folder} is on no disk of its own (tmpfs, overlay?); choose another with --folder")
    resolved = entry.resolve()
    return resolved.parent if (resolved / "partition").exists() else resolved


def disk_stat(disk: Path) -> DiskStat:
    """Counters of a disk as found by :func:`disk_of`."""
    return parse_disk_stat((disk / "stat").read_text())


def parse_memory(text: str) -> dict[str, int]:
    """Read /proc/PID/smaps_rollup: bytes by name."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        if len(words) == 2 and words[1] == "kB":
            found[name] = int(words[0]) * 1024
    return found


def memory(pid: int) -> Mapping[str, int]:
    """Memory of a process in bytes by the kernel's names.

    ``Anonymous`` is what belongs to the process alone and cannot be given back: its heap. Pages of mapped files are
    page cache; the kernel counts them as ``Private_Clean`` while only one process maps them, and takes them back at
    will.
    """
    return parse_memory(Path(f"/proc/{pid}/smaps_rollup").read_text())


def parse_cpu_seconds(stat: str) -> float:
    """CPU seconds of a process, all threads, from /proc/PID/stat."""
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU seconds that processes have used so far, together."""
    return sum(parse_cpu_seconds(Path(f"/proc/{pid}/stat").read_text()) for pid in pids)


def children(pid: int) -> list[int]:
    """Processes started by ``pid`` that still run."""
    found: set[int] = set()
    for thread in Path(f"/proc/{pid}/task").iterdir():
        found.update(int(child) for child in (thread / "children").read_text().split())
    return sorted(found)


def command_line(pid: int) -> str:
    """Arguments of a process, separated by spaces."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()


def drop_page_cache() -> None:
    """Write back what is dirty, then empty the page cache of the whole machine; needs root."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def read_into_page_cache(path: Path) -> None:
    """Read a file once."""
    with path.open("rb", buffering=0) as file:
        buffer = bytearray(2**20)
        while file.readinto(buffer):
            pass


def free_bytes(folder: Path) -> int:
    """Room on the disk of ``folder``."""
    space = os.statvfs(folder)
    return space.f_bavail * space.f_frsize


def require_room(folder: Path, needed_bytes: int) -> None:
    """Raises CannotMeasure when the disk of ``folder`` has no room for the data of a measurement."""
    there = free_bytes(folder)
    if there < needed_bytes * 1.1:
        raise CannotMeasure(
            f"{folder} has {there / 2**30:.1f} GiB free, {needed_bytes * 1.1 / 2**30:.1f} are needed; use --folder"
        )
