"""Data folders rack by rack, those first that should get the next copy.

Made once and changed folder by folder, so that one more copy among ten thousands of folders costs a look at the best of
each rack, not at all of them. A plan works on a :meth:`Room.branch`: what it takes there stays in the original.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from directory.decisions.replication import Home
from directory.decisions.spaces import FolderSpace

Claim = Callable[[FolderSpace], Any]
"""How much a folder should get the next copy: comparable, more is better, never equal for two folders."""

Entry = tuple[Any, FolderSpace]
"""A folder behind its claim."""

_by_claim = itemgetter(0)


@dataclass(slots=True)
class _Rack:
    """The folders of one rack, the best last; the same by Store and name."""

    order: list[Entry] = field(default_factory=list)
    entries: dict[tuple[str, str], Entry] = field(default_factory=dict)

    def copy(self) -> _Rack:
        return _Rack(self.order.copy(), self.entries.copy())

    def put(self, entry: Entry) -> None:
        self.drop(entry[1].store_id, entry[1].folder)
        insort(self.order, entry, key=_by_claim)
        self.entries[entry[1].store_id, entry[1].folder] = entry

    def drop(self, store_id: str, folder: str) -> None:
        entry = self.entries.pop((store_id, folder), None)
        if entry is None:
            return
        at = bisect_left(self.order, entry[0], key=_by_claim)
        while self.order[at] is not entry:
            at += 1
        del self.order[at]


class Room:
    """Data folders, in order.

    Parameters
    ----------
    claim: decides over the order; asked when a folder is put in.
    """

    def __init__(self, spaces: Iterable[FolderSpace], claim: Claim) -> None:
        self.claim = claim
        self._racks: dict[Home, _Rack] = {}
        self._homes: dict[str, Home] = {}
        self._tops: list[tuple[Any, Home]] = []
        self._owned: set[Home] | None = None
        # Equal claims, should there be any, keep the order in which the folders came: the first one is the best.
        for space in reversed(list(spaces)):
            home = (space.data_center, space.rack)
            rack = self._racks.setdefault(home, _Rack())
            entry = (claim(space), space)
            rack.order.append(entry)
            rack.entries[space.store_id, space.folder] = entry
            self._homes[space.store_id] = home
        for home, rack in self._racks.items():
            rack.order.sort(key=_by_claim)
            self._tops.append((rack.order[-1][0], home))
        self._tops.sort()

    def branch(self) -> Room:
        """Return a room of the same content, to be changed without changing this one. This one must stay as it is."""
        branch = object.__new__(Room)
        branch.claim = self.claim
        branch._racks = self._racks.copy()
        branch._homes = self._homes.copy()
        branch._tops = self._tops.copy()
        branch._owned = set()
        return branch

    def put(self, space: FolderSpace) -> None:
        """Put a folder in, or in its new place. A Store stays in its rack."""
        home = (space.data_center, space.rack)
        rack = self._own(home)
        before = rack.order[-1][0] if rack.order else None
        rack.put((self.claim(space), space))
        self._homes[space.store_id] = home
        self._retop(home, rack, before)

    def drop(self, store_id: str, folder: str) -> None:
        """Take a folder out, if it is there."""
        home = self._homes.get(store_id)
        if home is None:
            return
        rack = self._own(home)
        before = rack.order[-1][0] if rack.order else None
        rack.drop(store_id, folder)
        self._retop(home, rack, before)

    def get(self, store_id: str, folder: str) -> FolderSpace | None:
        """Return a folder, None when it is not there."""
        home = self._homes.get(store_id)
        entry = self._racks[home].entries.get((store_id, folder)) if home is not None else None
        return entry[1] if entry is not None else None

    def of_store(self, store_id: str) -> list[FolderSpace]:
        """Return the folders of a Store, in no order."""
        home = self._homes.get(store_id)
        if home is None:
            return []
        return [space for (store, _), (_, space) in self._racks[home].entries.items() if store == store_id]

    def free_bytes(self, stores: Collection[str]) -> dict[str, int]:
        """Return the free space of Stores in all their folders."""
        found = dict.fromkeys(stores, 0)
        for home in {self._homes[store] for store in stores if store in self._homes}:
            for (store, _), (_, space) in self._racks[home].entries.items():
                if store in found:
                    found[store] += space.free_bytes
        return found

    def homes(self) -> Iterator[tuple[Any, Home]]:
        """Yield the racks that have folders, each behind the claim of its best one, the best first."""
        yield from reversed(self._tops)

    def best(self, home: Home) -> Iterator[Entry]:
        """Yield the folders of a rack, the best first."""
        yield from reversed(self._racks[home].order)

    def __iter__(self) -> Iterator[FolderSpace]:
        for rack in self._racks.values():
            for _, space in rack.order:
                yield space

    def _own(self, home: Home) -> _Rack:
        rack = self._racks.get(home)
        if rack is None:
            rack = _Rack()
        elif self._owned is None or home in self._owned:
            return rack
        else:
            rack = rack.copy()
        if self._owned is not None:
            self._owned.add(home)
        self._racks[home] = rack
        return rack

    def _retop(self, home: Home, rack: _Rack, before: Any) -> None:
        after = rack.order[-1][0] if rack.order else None
        if before == after:
            return
        if before is not None:
            del self._tops[bisect_left(self._tops, (before, home))]
        if after is not None:
            insort(self._tops, (after, home))


def pick(
    room: Room,
    homes: Iterable[tuple[Any, Home]],
    hosts: Collection[str],
    fits: Callable[[FolderSpace], bool] | None = None,
) -> FolderSpace | None:
    """Return the best folder of some racks: one of a machine that is not among ``hosts`` first, then by its claim.

    Parameters
    ----------
    homes: as :meth:`Room.homes` yields them, the best first.
    fits: says whether a folder may be taken at all.
    """
    found: tuple[bool, Any] | None = None
    chosen = None
    for top, home in homes:
        if found is not None and found >= (True, top):
            break  # neither here nor in what follows is a better one
        for claim, space in room.best(home):
            if fits is not None and not fits(space):
                continue
            worth = (space.host not in hosts, claim)
            if found is None or worth > found:
                found, chosen = worth, space
            if worth[0]:
                break
    return chosen
