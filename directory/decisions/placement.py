"""Where copies go: which data folders hold a new volume, and where a volume that lacks a copy gets one.

Invariants: two copies are never on one Store; every copy that is placed is one that the replication promises (see
:meth:`~directory.decisions.replication.Replication.kept`); folders that refuse
(:func:`~directory.decisions.spaces.refusal`) get none. What cannot be placed is explained in words, and nothing is
placed half.

Among the folders that fit, those come first that need a volume most (``claim``), a machine that has no copy yet before
one that has: several Stores may run on one, told by the host of their addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from directory.decisions.replication import Home, Replication, Site, homes
from directory.decisions.spaces import FolderSpace, Place

Claim = Callable[[FolderSpace], Any]
"""How much a folder should get the next copy: comparable, more is better, never equal for two folders."""


@dataclass(frozen=True, slots=True)
class Placed:
    """The folders of one volume, the primary's first; or none, and why."""

    spaces: tuple[FolderSpace, ...]
    reason: str = ""

    @property
    def places(self) -> tuple[Place, ...]:
        """The places alone."""
        return tuple(Place(space.store_id, space.folder) for space in self.spaces)


def place_volume(
    replication: Replication, primaries: Iterable[FolderSpace], usable: Sequence[FolderSpace], claim: Claim
) -> Placed:
    """Return where a new volume goes.

    Parameters
    ----------
    primaries: those of ``usable`` that may hold the primary.
    usable: folders that take a copy.
    """
    if replication.copies == 1:
        best = max(primaries, key=claim, default=None)
        return Placed((best,) if best else ())
    reason, tried = "", set[tuple[str, str, str]]()
    for primary in sorted(primaries, key=claim, reverse=True):
        # What stands in the way of one primary stands in the way of all of its rack, but for its own Store.
        place = (primary.data_center, primary.rack, primary.store_id if replication.stores else "")
        if place in tried:
            continue
        tried.add(place)
        chosen, problem = _place_around(replication, primary, usable, claim)
        if chosen:
            return Placed(chosen)
        reason = reason or problem
    return Placed((), reason)


def place_copy(
    replication: Replication,
    holders: Collection[Site],
    usable: Iterable[FolderSpace],
    claim: Claim,
    hosts: Collection[str] = (),
) -> FolderSpace | None:
    """Return where one more copy brings a volume nearer to what is promised; None when it does so nowhere.

    It is looked ahead: a rack is chosen as the volume's home from which everything that is promised can be reached with
    the folders that there are, and of these the one that needs fewest more copies.

    Parameters
    ----------
    holders: where copies are that stay.
    usable: folders that take a copy; those of Stores that have one already are passed over.
    hosts: machines that have one.
    """
    there = {site.store_id for site in holders}
    free = [space for space in usable if space.store_id not in there]
    sites = {site.store_id: site for site in (*holders, *map(site_of, free))}
    home = max(
        sorted(homes(sites.values())),
        key=lambda rack: (replication.kept_around(rack, sites.values()), replication.kept_around(rack, holders)),
        default=None,
    )
    if home is None:
        return None
    kept = replication.kept_around(home, holders)
    worth: dict[Home, bool] = {}
    fitting = []
    for space in free:
        where = _rack(space)
        if where not in worth:
            worth[where] = replication.kept_around(home, [*holders, site_of(space)]) > kept
        if worth[where]:
            fitting.append(space)
    return max(fitting, key=lambda space: (space.host not in hosts, claim(space)), default=None)


def site_of(space: FolderSpace) -> Site:
    """Return where a folder's Store stands."""
    return Site(space.store_id, space.data_center, space.rack)


def missing_in_words(replication: Replication, holders: Collection[Site]) -> str:
    """Return which places another copy may be in."""
    if not holders:
        return replication.in_words()
    centers = sorted({site.data_center for site in holders})
    racks = sorted({f"{site.data_center}/{site.rack}" for site in holders})
    if replication.centers and len(centers) <= replication.centers:
        return f"a Store in a data center other than {', '.join(centers)}"
    if replication.racks and replication.kept(holders) < replication.copies - replication.stores:
        return f"a Store in a rack other than {', '.join(racks)} of the same data center"
    return f"another Store in rack {' or '.join(racks)}"


def _place_around(
    replication: Replication, primary: FolderSpace, usable: Sequence[FolderSpace], claim: Claim
) -> tuple[tuple[FolderSpace, ...], str]:
    """Return the folders of a volume with this primary, or nothing and why. The three kinds never share a Store."""
    hosts = {primary.host}
    chosen = [primary]
    neighbours = [s for s in usable if _rack(s) == _rack(primary) and s.store_id != primary.store_id]
    elsewhere = [s for s in usable if s.data_center == primary.data_center and s.rack != primary.rack]
    abroad = [s for s in usable if s.data_center != primary.data_center]
    kinds: tuple[tuple[int, list[FolderSpace], Callable[[FolderSpace], str], str], ...] = (
        (replication.stores, neighbours, lambda s: s.store_id, f"Store(s) in rack {primary.rack}"),
        (replication.racks, elsewhere, lambda s: s.rack, f"rack(s) in data center {primary.data_center}"),
        (replication.centers, abroad, lambda s: s.data_center, "data center(s)"),
    )
    for count, candidates, domain, words in kinds:
        found = _best_of_each(count, candidates, domain, claim, hosts)
        if len(found) < count:
            return (), (
                f"replication {replication} needs {count} other {words} beside Store {primary.url}; with room for a "
                f"new volume there {'is' if len(found) == 1 else 'are'} {len(found)}"
            )
        chosen += found
    return tuple(chosen), ""


def _best_of_each(
    count: int, candidates: list[FolderSpace], domain: Callable[[FolderSpace], str], claim: Claim, hosts: set[str]
) -> list[FolderSpace]:
    """Return up to ``count`` folders of different domains; notes their hosts."""
    left = {id(space): space for space in candidates}
    found: list[FolderSpace] = []
    while left and len(found) < count:
        best = max(left.values(), key=lambda space: (space.host not in hosts, claim(space)))
        hosts.add(best.host)
        found.append(best)
        left = {key: space for key, space in left.items() if domain(space) != domain(best)}
    return found


def _rack(space: FolderSpace) -> tuple[str, str]:
    return space.data_center, space.rack
