"""Placement and repair's choice of a place, written as plainly as can be: all folders are looked at, each time.

The product decides the same without looking at all (:mod:`directory.decisions.room`); tests compare the two.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from directory.decisions.placement import site_of
from directory.decisions.replication import Replication, Site, homes
from directory.decisions.room import Claim
from directory.decisions.spaces import FolderSpace


def volume_places(
    replication: Replication, primaries: Iterable[FolderSpace], usable: Sequence[FolderSpace], claim: Claim
) -> tuple[FolderSpace, ...]:
    """Return the folders of a new volume, the primary's first; none when it has no place."""
    for primary in sorted(primaries, key=claim, reverse=True):
        chosen = _around(replication, primary, usable, claim)
        if chosen:
            return chosen
    return ()


def copy_place(
    replication: Replication,
    holders: Collection[Site],
    usable: Iterable[FolderSpace],
    claim: Claim,
    hosts: Collection[str] = (),
) -> FolderSpace | None:
    """Return where one more copy goes."""
    there = {site.store_id for site in holders}
    free = [space for space in usable if space.store_id not in there]
    sites = list({site.store_id: site for site in (*holders, *map(site_of, free))}.values())
    home = max(
        sorted(homes(sites)),
        key=lambda rack: (replication.kept_around(rack, sites), replication.kept_around(rack, holders)),
        default=None,
    )
    if home is None:
        return None
    kept = replication.kept_around(home, holders)
    fitting = [space for space in free if replication.kept_around(home, [*holders, site_of(space)]) > kept]
    return max(fitting, key=lambda space: (space.host not in hosts, claim(space)), default=None)


def _around(
    replication: Replication, primary: FolderSpace, usable: Sequence[FolderSpace], claim: Claim
) -> tuple[FolderSpace, ...]:
    here = (primary.data_center, primary.rack)
    hosts = {primary.host}
    chosen = [primary]
    neighbours = [s for s in usable if (s.data_center, s.rack) == here and s.store_id != primary.store_id]
    elsewhere = [s for s in usable if s.data_center == primary.data_center and s.rack != primary.rack]
    abroad = [s for s in usable if s.data_center != primary.data_center]
    kinds: tuple[tuple[int, list[FolderSpace], Callable[[FolderSpace], str]], ...] = (
        (replication.stores, neighbours, lambda s: s.store_id),
        (replication.racks, elsewhere, lambda s: s.rack),
        (replication.centers, abroad, lambda s: s.data_center),
    )
    for count, candidates, domain in kinds:
        found: list[FolderSpace] = []
        while candidates and len(found) < count:
            best = max(candidates, key=lambda space: (space.host not in hosts, claim(space)))
            hosts.add(best.host)
            found.append(best)
            candidates = [space for space in candidates if domain(space) != domain(best)]
        if len(found) < count:
            return ()
        chosen += found
    return tuple(chosen)
