"""How many volumes to make, and in which data folders.

New volumes are dealt out like seats: each goes where the free space for one writable volume, counting the new one, is
largest. Folders that have less than an even share of the writable volumes come first, so that every disk takes part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from directory.decisions.choice import ANYWHERE, Where
from directory.settings import MAX_VOLUMES_PER_FOLDER
from haystack.units import GIB, format_size

MIN_FREE_BYTES = 1 * GIB
MIN_FREE_FRACTION = 0.05
"""Free space that a folder must have for a new volume: the smaller of the two, never more than the volume's limit."""

MAX_REASONS = 4
"""Folders that a refusal names."""


@dataclass(frozen=True, slots=True)
class FolderSpace:
    """A data folder as the growth sees it.

    Parameters
    ----------
    alive: whether its Store is.
    volumes: how many it holds.
    writable: how many of them take photos, or will when they are recovered, and are not nearly full.
    trouble: why the last attempt to make a volume here failed, empty when it did not, or long ago.
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


@dataclass(frozen=True, slots=True)
class Place:
    """Where one volume is to be made."""

    store_id: str
    folder: str


@dataclass(frozen=True, slots=True)
class GrowthPlan:
    """The places, and in words why there are fewer than were wanted (empty when there are not)."""

    places: tuple[Place, ...]
    reason: str = ""


def volumes_wanted(folders: Sequence[FolderSpace], target: int, max_volume_bytes: int | None = None) -> int:
    """Return how many volumes are missing: to ``target`` writable ones, and to an even share of them in each folder.

    The share is what a folder that has room would have if the target were dealt out evenly, at least one: a Store that
    is added, or that registers after others have got all the first volumes, takes its part of the new photos at once.
    """
    writable = sum(folder.writable for folder in folders if folder.alive and folder.state == "ok")
    roomy = [folder for folder in folders if not refusal(folder, max_volume_bytes)]
    share = even_share(roomy, target)
    return max(target - writable, sum(max(0, share - folder.writable) for folder in roomy), 0)


def even_share(roomy: Sequence[FolderSpace], target: int) -> int:
    """Return how many of ``target`` writable volumes each of these folders should have at least."""
    return max(1, target // max(1, len(roomy)))


def plan_growth(
    folders: Sequence[FolderSpace],
    wanted: int,
    *,
    target: int = 1,
    where: Where = ANYWHERE,
    max_volume_bytes: int | None = None,
) -> GrowthPlan:
    """Return where to make ``wanted`` volumes, as many of them as there is room for.

    Folders that have less than their even share of ``target`` come first, the same that :func:`volumes_wanted` counts:
    otherwise a far larger disk would get the volumes that were wanted for a small one, again and again.
    """
    admitted = [f for f in folders if where.admits(f.data_center, f.rack, f.url)]
    refusals = {(f.store_id, f.folder): refusal(f, max_volume_bytes) for f in admitted}
    usable = [f for f in admitted if not refusals[f.store_id, f.folder]]
    share = even_share(usable, target)
    added = {(f.store_id, f.folder): 0 for f in usable}
    places: list[Place] = []
    while len(places) < wanted:
        open_folders = [f for f in usable if f.volumes + added[f.store_id, f.folder] < MAX_VOLUMES_PER_FOLDER]
        if not open_folders:
            break
        best = max(open_folders, key=lambda f: _claim(f, added[f.store_id, f.folder], share))
        added[best.store_id, best.folder] += 1
        places.append(Place(best.store_id, best.folder))
    if len(places) == wanted:
        return GrowthPlan(tuple(places))
    return GrowthPlan(tuple(places), _reason(folders, admitted, [text for text in refusals.values() if text], where))


def refusal(folder: FolderSpace, max_volume_bytes: int | None = None) -> str:
    """Return in words why a folder takes no new volume; empty when it does."""
    name = f"{folder.path} of Store {folder.url}"
    if not folder.alive:
        return f"{name}: the Store is silent"
    if folder.state != "ok":
        return f"{name}: the folder is {folder.state}"
    if folder.trouble:
        return f"{name}: {folder.trouble}"
    needed_bytes = min(MIN_FREE_BYTES, int(folder.total_bytes * MIN_FREE_FRACTION), max_volume_bytes or MIN_FREE_BYTES)
    if folder.free_bytes < needed_bytes:
        return f"{name}: {format_size(folder.free_bytes)} free, {format_size(needed_bytes)} needed"
    if folder.volumes >= MAX_VOLUMES_PER_FOLDER:
        return f"{name}: it holds {folder.volumes} volumes, the most that are put into one folder"
    return ""


def _claim(folder: FolderSpace, added: int, share: int) -> tuple[bool, float, str, str]:
    writable = folder.writable + added
    # The names at the end make the choice between equals the same every time.
    return (writable < share, folder.free_bytes / (writable + 1), folder.store_id, folder.folder)


def _reason(
    folders: Sequence[FolderSpace], admitted: Sequence[FolderSpace], refusals: Sequence[str], where: Where
) -> str:
    if not folders:
        return "no Store has registered; start one: haystack store --data DIR --directory URL"
    if not admitted:
        return f"no Store is in {where}"
    if not refusals:
        return f"the data folders hold {MAX_VOLUMES_PER_FOLDER} volumes each, the most that are put into one folder"
    more = f" (and {len(refusals) - MAX_REASONS} more)" if len(refusals) > MAX_REASONS else ""
    return "no room for a new volume: " + "; ".join(refusals[:MAX_REASONS]) + more
