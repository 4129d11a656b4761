"""How many volumes to make, and in which data folders.

New volumes are dealt out like seats: each copy goes where the free space for one writable volume, counting the new one,
is largest, among the folders that placement allows. Folders that have less than an even share of the writable volumes
come first, so that every disk takes part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from directory.decisions.choice import ANYWHERE, Where
from directory.decisions.placement import Placed, place_in
from directory.decisions.replication import Replication
from directory.decisions.room import Room
from directory.decisions.spaces import FolderSpace, Place, refusal
from directory.settings import MAX_VOLUMES_PER_FOLDER

MAX_REASONS = 4
"""Folders that a refusal names."""

MAX_OPEN_FACTOR = 8
"""Once this many times the wanted number of replicated volumes are not full, degraded ones among them, only the last
writable one is replaced: Stores that come and go must not leave a trail of half-empty volumes."""

SINGLE = Replication(0, 0, 0)


@dataclass(frozen=True, slots=True)
class NewVolume:
    """The places of one volume's copies, the primary's first."""

    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class GrowthPlan:
    """The volumes, and in words why there are fewer than were wanted (empty when there are not)."""

    volumes: tuple[NewVolume, ...]
    reason: str = ""

    @property
    def places(self) -> tuple[Place, ...]:
        """Where the primaries go."""
        return tuple(volume.places[0] for volume in self.volumes)


def volumes_wanted(
    folders: Sequence[FolderSpace],
    target: int,
    max_volume_bytes: int | None = None,
    *,
    replication: Replication = SINGLE,
    writable: int | None = None,
    still_open: int = 0,
    spread: bool = True,
) -> int:
    """Return how many volumes are missing: to ``target`` writable ones, and to an even share of them in each folder.

    The share is what a folder that has room would have if the copies of the target were dealt out evenly, at least one:
    a Store that is added, or that registers after others have got all the first volumes, takes its part at once.

    Parameters
    ----------
    writable: volumes of this replication that take photos; None counts those of the folders, each a volume.
    still_open: volumes of this replication that are not full, whether they take photos now or not.
    spread: count what is missing to even shares of replicated volumes, too. Not while copies are on their way back: the
        folders that have fewest will have theirs again in a moment.
    """
    if writable is None:
        writable = sum(folder.writable for folder in folders if folder.alive and folder.state == "ok")
    if writable and still_open >= MAX_OPEN_FACTOR * target:
        return 0
    roomy = [folder for folder in folders if not refusal(folder, max_volume_bytes)]
    share = even_share(roomy, target * replication.copies)
    if replication.copies == 1:
        return max(target - writable, sum(max(0, share - folder.writable) for folder in roomy), 0)
    missing = max(target - writable, 0)
    if not spread:
        return missing
    # Where the failure domains forbid an even share, what is missing to it is wanted for ever, and never placed.
    return missing + len(_plan(folders, missing, _MORE, target, ANYWHERE, max_volume_bytes, replication)[1])


def plan_top_up(
    folders: Sequence[FolderSpace],
    target: int,
    max_volume_bytes: int | None = None,
    *,
    replication: Replication,
    writable: int,
    still_open: int = 0,
    spread: bool = True,
) -> GrowthPlan:
    """Return where to make what :func:`volumes_wanted` counts, in one go; its parameters are the same."""
    if writable and still_open >= MAX_OPEN_FACTOR * target:
        return GrowthPlan(())
    missing = max(target - writable, 0)
    if replication.copies == 1:
        wanted = volumes_wanted(folders, target, max_volume_bytes, writable=writable, still_open=still_open)
        return plan_growth(folders, wanted, target=target, max_volume_bytes=max_volume_bytes)
    made, more, placed = _plan(
        folders, missing, _MORE if spread else 0, target, ANYWHERE, max_volume_bytes, replication
    )
    reason = _why_not_all(folders, ANYWHERE, max_volume_bytes, placed) if len(made) < missing else ""
    return GrowthPlan((*made, *more), reason)


_MORE = 1_000
"""Volumes beyond the target, for folders below their share, that one plan may have."""


def even_share(roomy: Sequence[FolderSpace], target: int) -> int:
    """Return how many of ``target`` writable copies each of these folders should have at least."""
    return max(1, target // max(1, len(roomy)))


def plan_growth(
    folders: Sequence[FolderSpace],
    wanted: int,
    *,
    target: int = 1,
    where: Where = ANYWHERE,
    max_volume_bytes: int | None = None,
    replication: Replication = SINGLE,
) -> GrowthPlan:
    """Return where to make ``wanted`` volumes, as many of them as there is room for.

    Folders that have less than their even share of ``target`` come first, the same that :func:`volumes_wanted` counts:
    otherwise a far larger disk would get the volumes that were wanted for a small one, again and again.
    """
    made, _, placed = _plan(folders, wanted, 0, target, where, max_volume_bytes, replication)
    if len(made) == wanted:
        return GrowthPlan(tuple(made))
    return GrowthPlan(tuple(made), _why_not_all(folders, where, max_volume_bytes, placed))


def _plan(
    folders: Sequence[FolderSpace],
    wanted: int,
    more: int,
    target: int,
    where: Where,
    max_volume_bytes: int | None,
    replication: Replication,
) -> tuple[list[NewVolume], list[NewVolume], Placed]:
    """Return ``wanted`` volumes, then up to ``more`` of which each helps a folder below its share; and the last try."""
    usable = [f for f in folders if not refusal(f, max_volume_bytes)]
    share = even_share(usable, target * replication.copies)
    added = {(f.store_id, f.folder): 0 for f in usable}

    def claim(folder: FolderSpace) -> tuple[bool, float, str, str]:
        writable = folder.writable + added[folder.store_id, folder.folder]
        # The names at the end make the choice between equals the same every time.
        return (writable < share, folder.free_bytes / (writable + 1), folder.store_id, folder.folder)

    def may_lead(folder: FolderSpace) -> bool:
        return where.admits(folder.data_center, folder.rack, folder.url)

    room = Room(usable, claim)
    made: list[NewVolume] = []
    extra: list[NewVolume] = []
    placed = Placed(())
    while len(made) + len(extra) < wanted + more:
        placed = place_in(room, replication, None if where == ANYWHERE else may_lead)
        if not placed.spaces or (len(made) == wanted and not any(claim(space)[0] for space in placed.spaces)):
            break
        for space in placed.spaces:
            added[space.store_id, space.folder] += 1
            if space.volumes + added[space.store_id, space.folder] < MAX_VOLUMES_PER_FOLDER:
                room.put(space)
            else:
                room.drop(space.store_id, space.folder)
        (made if len(made) < wanted else extra).append(NewVolume(placed.places))
    return made, extra, placed


def _why_not_all(folders: Sequence[FolderSpace], where: Where, max_volume_bytes: int | None, placed: Placed) -> str:
    admitted = [f for f in folders if where.admits(f.data_center, f.rack, f.url)]
    refusals = [text for text in (refusal(f, max_volume_bytes) for f in admitted) if text]
    if not folders:
        return "no Store has registered; start one: haystack store --data DIR --directory URL"
    if not admitted:
        return f"no Store is in {where}"
    more = f" (and {len(refusals) - MAX_REASONS} more)" if len(refusals) > MAX_REASONS else ""
    told = "; ".join(refusals[:MAX_REASONS]) + more
    if placed.reason:
        return placed.reason + (f" ({told})" if told else "")
    if not refusals:
        return f"the data folders hold {MAX_VOLUMES_PER_FOLDER} volumes each, the most that are put into one folder"
    return "no room for a new volume: " + told
