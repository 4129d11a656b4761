"""The files of a volume, by name: what lies beside ``<id>.vol``, and what of that a crash may leave behind.

Every generation of a volume has an index of its own name: ``<id>.idx`` at first, ``<id>.<generation>.idx`` after
compactions. So the file of a generation and its index belong together at every moment, whoever opens them, and the
rename of the volume is all that a compaction's end has to do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from haystack.volume.files import disk_error, sync_folder


def index_path(volume: Path, generation: int) -> Path:
    """The index of a generation of the volume ``<id>.vol``."""
    return volume.with_suffix(f".{generation}.idx") if generation else volume.with_suffix(".idx")


def compact_path(volume: Path) -> Path:
    """Where a compaction writes the next generation of a volume."""
    return volume.with_suffix(".vol.compact")


def scratch_path(volume: Path, what: str) -> Path:
    """An index that a compaction needs for itself."""
    return volume.with_suffix(f".{what}.idx")


def index_files(volume: Path) -> Iterator[Path]:
    """The indexes of all generations, and those of compactions, with their locks."""
    name = re.compile(rf"{re.escape(volume.stem)}(\.[0-9a-z]+)?\.idx(-lock)?")
    return (path for path in volume.parent.glob(f"{volume.stem}.*") if name.fullmatch(path.name))


def remove_leftovers(volume: Path, generation: int) -> None:
    """Remove what a compaction left behind that a crash ended, and indexes of other generations. Raises DiskError.

    Parameters
    ----------
    generation: of the volume as it is.
    """
    index = index_path(volume, generation)
    kept = (index.name, f"{index.name}-lock")
    leftovers = [path for path in index_files(volume) if path.name not in kept]
    if compact_path(volume).exists():
        leftovers.append(compact_path(volume))
    try:
        for path in leftovers:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise disk_error(str(volume), "remove what a compaction left behind", error) from error
    if leftovers:
        sync_folder(volume.parent)
