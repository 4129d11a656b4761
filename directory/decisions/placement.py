"""Where copies go: which data folders hold a new volume, and where a volume that lacks a copy gets one.

Invariants: two copies are never on one Store; every copy that is placed is one that the replication promises (see
:meth:`~directory.decisions.replication.Replication.kept`); folders that refuse
(:func:`~directory.decisions.spaces.refusal`) get none. What cannot be placed is explained in words, and nothing is
placed half.

Among the folders that fit, those come first that need a volume most (``claim``), a machine that has no copy yet before
one that has: several Stores may run on one, told by the host of their addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from directory.decisions.replication import Home, Replication, Site, homes
from directory.decisions.room import Room, pick
from directory.decisions.spaces import FolderSpace, Place


@dataclass(frozen=True, slots=True)
class Placed:
    """The folders of one volume, the primary's first; or none, and why."""

    spaces: tuple[FolderSpace, ...]
    reason: str = ""

    @property
    def places(self) -> tuple[Place, ...]:
        """The places alone."""
        return tuple(Place(space.store_id, space.folder) for space in self.spaces)


def place_in(room: Room, replication: Replication, may_lead: Callable[[FolderSpace], bool] | None = None) -> Placed:
    """Return where a new volume goes, of the folders in ``room``.

    Parameters
    ----------
    may_lead: says whether a folder may hold the primary; None: each may.
    """
    best = pick(room, room.homes(), (), may_lead)
    if best is None or replication.copies == 1:
        return Placed((best,) if best else ())
    chosen, reason = _place_around(replication, best, room)
    return Placed(chosen) if chosen else _place_elsewhere(room, replication, may_lead, best, reason)


def _place_elsewhere(
    room: Room,
    replication: Replication,
    may_lead: Callable[[FolderSpace], bool] | None,
    refused: FolderSpace,
    reason: str,
) -> Placed:
    """Return where a volume goes whose best primary finds no room for the other copies."""
    primaries = [space for space in room if may_lead is None or may_lead(space)]
    # What stands in the way of one primary stands in the way of all of its rack, but for its own Store.
    tried = {_obstacle(refused, replication)}
    for primary in sorted(primaries, key=room.claim, reverse=True):
        obstacle = _obstacle(primary, replication)
        if obstacle in tried:
            continue
        tried.add(obstacle)
        chosen, _ = _place_around(replication, primary, room)
        if chosen:
            return Placed(chosen)
    return Placed((), reason)


def _obstacle(primary: FolderSpace, replication: Replication) -> tuple[str, str, str]:
    return primary.data_center, primary.rack, primary.store_id if replication.stores else ""


def copy_in(
    room: Room,
    replication: Replication,
    holders: Collection[Site],
    fits: Callable[[FolderSpace], bool],
    hosts: Collection[str] = (),
) -> FolderSpace | None:
    """Return where one more copy brings a volume nearer to what is promised; None when it does so nowhere.

    It is looked ahead: a rack is chosen as the volume's home from which everything that is promised can be reached with
    the folders that there are, and of these the one that needs fewest more copies.

    Parameters
    ----------
    holders: where copies are that stay. Folders of Stores that have one already are passed over.
    fits: says whether a folder may be taken.
    hosts: machines that have one.
    """
    there = {site.store_id for site in holders}

    def free(space: FolderSpace) -> bool:
        return space.store_id not in there and fits(space)

    reach = _Reach(room, replication, holders, free)
    home = max(sorted(reach.homes), key=lambda rack: (reach.at_most(rack), reach.kept(rack)), default=None)
    if home is None:
        return None
    worthwhile = [(top, rack) for top, rack in room.homes() if rack in reach.free and reach.gains(home, rack)]
    return pick(room, worthwhile, hosts, free)


class _Reach:
    """How much of a promise can be kept from each rack, with the copies that there are and the folders that fit."""

    def __init__(
        self, room: Room, replication: Replication, holders: Collection[Site], free: Callable[[FolderSpace], bool]
    ) -> None:
        self._promise = replication
        self._holders = holders
        self._holder_homes = homes(holders)
        self.free: dict[Home, int] = {}
        """Stores with a folder that fits, by rack; counted up to what a rack may count for."""
        for _, home in room.homes():
            if stores := _count_stores(room, home, 1 + replication.stores, free):
                self.free[home] = stores
        self.homes = self._holder_homes | self.free.keys()
        self._racks: dict[str, int] = {}
        for center, _ in self.homes:
            self._racks[center] = self._racks.get(center, 0) + 1
        self._kept: dict[str, int] = {}
        self._gains: dict[tuple[bool, str, bool], bool] = {}

    def at_most(self, home: Home) -> int:
        """Return how many promised copies a volume at home in a rack can come to."""
        here = self.free.get(home, 0) + sum((site.data_center, site.rack) == home for site in self._holders)
        return self._promise.counted(here, self._racks[home[0]] - 1, len(self._racks) - 1)

    def kept(self, home: Home) -> int:
        """Return how many promised copies there are already."""
        if home in self._holder_homes:
            return self._promise.kept_around(home, self._holders)
        if home[0] not in self._kept:  # all racks of a data center without a copy are alike
            self._kept[home[0]] = self._promise.kept_around(home, self._holders)
        return self._kept[home[0]]

    def gains(self, home: Home, rack: Home) -> bool:
        """Say whether a further copy in a rack counts for a volume at home in another one, or in this one."""
        kind = (rack == home, rack[0], rack in self._holder_homes)
        if kind not in self._gains:
            more = [*self._holders, Site("", *rack)]
            self._gains[kind] = self._promise.kept_around(home, more) > self.kept(home)
        return self._gains[kind]


def _count_stores(room: Room, home: Home, most: int, free: Callable[[FolderSpace], bool]) -> int:
    stores = set[str]()
    for _, space in room.best(home):
        if space.store_id not in stores and free(space):
            stores.add(space.store_id)
            if len(stores) == most:
                break
    return len(stores)


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


def _place_around(replication: Replication, primary: FolderSpace, room: Room) -> tuple[tuple[FolderSpace, ...], str]:
    """Return the folders of a volume with this primary, or nothing and why. The three kinds never share a Store."""
    hosts = {primary.host}
    chosen = [primary]
    here = (primary.data_center, primary.rack)
    kinds: tuple[tuple[int, Callable[[Home], bool], Callable[[FolderSpace], str], str], ...] = (
        (replication.stores, lambda home: home == here, _store, f"Store(s) in rack {primary.rack}"),
        (
            replication.racks,
            lambda home: home[0] == here[0] and home != here,
            _rack,
            f"rack(s) in data center {primary.data_center}",
        ),
        (replication.centers, lambda home: home[0] != here[0], _center, "data center(s)"),
    )
    for count, admits, domain, words in kinds:
        found = _best_of_each(room, count, admits, domain, primary, hosts)
        if len(found) < count:
            return (), (
                f"replication {replication} needs {count} other {words} beside Store {primary.url}; with room for a "
                f"new volume there {'is' if len(found) == 1 else 'are'} {len(found)}"
            )
        chosen += found
    return tuple(chosen), ""


def _best_of_each(
    room: Room,
    count: int,
    admits: Callable[[Home], bool],
    domain: Callable[[FolderSpace], str],
    primary: FolderSpace,
    hosts: set[str],
) -> list[FolderSpace]:
    """Return up to ``count`` folders of different domains; notes their hosts."""
    used = {domain(primary)}
    found: list[FolderSpace] = []
    while len(found) < count:
        ranked = ((top, home) for top, home in room.homes() if admits(home) and not _is_used(home, domain, used))
        best = pick(room, ranked, hosts, (lambda space: space.store_id not in used) if domain is _store else None)
        if best is None:
            break
        hosts.add(best.host)
        used.add(domain(best))
        found.append(best)
    return found


def _is_used(home: Home, domain: Callable[[FolderSpace], str], used: set[str]) -> bool:
    """Say whether a rack as a whole is of a domain that has its copy."""
    return (domain is _rack and home[1] in used) or (domain is _center and home[0] in used)


def _store(space: FolderSpace) -> str:
    return space.store_id


def _rack(space: FolderSpace) -> str:
    return space.rack


def _center(space: FolderSpace) -> str:
    return space.data_center
