"""Data folders as placement and growth see them, and whether one takes a new volume."""

from __future__ import annotations

from dataclasses import dataclass

from directory.settings import MAX_VOLUMES_PER_FOLDER
from haystack.units import GIB, format_size

MIN_FREE_BYTES = 1 * GIB
MIN_FREE_FRACTION = 0.05
"""Free space that a folder must have for a new volume: the smaller of the two, never more than the volume's limit."""


@dataclass(frozen=True, slots=True)
class FolderSpace:
    """A data folder.

    Parameters
    ----------
    alive: whether its Store is.
    volumes: how many it holds.
    writable: how many of them take photos, or will when they are recovered, and are not nearly full.
    trouble: why the last attempt to make a volume here failed, empty when it did not, or long ago.
    mark: why the operator wants no new volume here, in words; empty when he does not mind.
    """

    store_id: str
    url: str
    data_center: str
    rack: str
    folder: str
    path: str
    alive: bool
    state: str
    free_bytes: int
    total_bytes: int
    volumes: int
    writable: int
    trouble: str = ""
    mark: str = ""

    @property
    def host(self) -> str:
        """The machine, as far as the address tells."""
        return self.url.rpartition(":")[0]


@dataclass(frozen=True, slots=True)
class Place:
    """Where one copy is to be made."""

    store_id: str
    folder: str


def refusal(folder: FolderSpace, max_volume_bytes: int | None = None, *, taken_bytes: int = 0) -> str:
    """Return in words why a folder takes no new volume; empty when it does.

    Parameters
    ----------
    taken_bytes: part of its free space that is spoken for.
    """
    reason = _reason(folder, max_volume_bytes, taken_bytes)
    return f"{folder.path} of Store {folder.url}: {reason}" if reason else ""


def _reason(folder: FolderSpace, max_volume_bytes: int | None, taken_bytes: int) -> str:
    if not folder.alive:
        return "the Store is silent"
    if folder.mark:
        return folder.mark
    if folder.state != "ok":
        return f"the folder is {folder.state}"
    if folder.trouble:
        return folder.trouble
    free_bytes = folder.free_bytes - taken_bytes
    needed_bytes = min(MIN_FREE_BYTES, int(folder.total_bytes * MIN_FREE_FRACTION), max_volume_bytes or MIN_FREE_BYTES)
    if free_bytes < needed_bytes:
        return f"{format_size(free_bytes)} free, {format_size(needed_bytes)} needed"
    if folder.volumes >= MAX_VOLUMES_PER_FOLDER:
        return f"it holds {folder.volumes} volumes, the most that are put into one folder"
    return ""
