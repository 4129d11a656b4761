"""Which data center and rack each Store of ``haystack up`` plays, so that copies can be kept as asked.

Stores are dealt to racks, and racks to data centers, one after the other; adding Stores moves none of the others.
"""

from __future__ import annotations

from dataclasses import dataclass

from directory.decisions.replication import Replication, Site, parse_replication
from haystack.errors import ConfigError

MAX_STORES = 64
ONLY = "default"
"""Name of a data center or a rack when there is one only."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a Store stands."""

    data_center: str
    rack: str


@dataclass(frozen=True, slots=True)
class Layout:
    """The shape of a cluster on one machine.

    Parameters
    ----------
    replication: three digits, of new photos.
    data_centers, racks: how many there are in all; each rack is in one data center.
    """

    replication: str = "000"
    data_centers: int = 1
    racks: int = 1

    def place(self, number: int) -> Place:
        """Return the place of Store ``number``, counted from 1."""
        rack = (number - 1) % self.racks
        return Place(
            f"dc{rack % self.data_centers + 1}" if self.data_centers > 1 else ONLY,
            f"rack{rack + 1}" if self.racks > 1 else ONLY,
        )

    def least_stores(self) -> int | None:
        """Return how many Stores are needed for the promised copies; None: no number is enough."""
        promise = parse_replication(self.replication)
        for count in range(promise.copies, MAX_STORES + 1):
            if _kept(self, promise, count) == promise.copies:
                return count
        return None


def make_layout(replication: str, data_centers: int | None, racks: int | None, store_count: int = 0) -> Layout:
    """Return the layout for what was asked for; what was not is chosen as the replication needs it.

    Parameters
    ----------
    store_count: how many Stores there will be, if that is known: they are spread so that none has to be in all volumes.

    Raises ConfigError when that contradicts itself, or no number of Stores keeps the copies apart as promised.
    """
    promise = parse_replication(replication)
    spread = _layout(promise, replication, data_centers, racks, store_count)
    least = _layout(promise, replication, data_centers, racks, 0)
    layout = spread if _kept(spread, promise, store_count) == promise.copies else least
    if layout.racks < layout.data_centers:
        raise ConfigError(
            f"up.racks: {layout.racks} racks cannot be in {layout.data_centers} data centers; give --racks "
            f"{layout.data_centers} or more, or leave it out"
        )
    if layout.least_stores() is None:
        raise ConfigError(
            f"up.replication: {replication} ({promise.in_words()}) is not possible with {layout.data_centers} data "
            f"centers and {layout.racks} racks; leave --data-centers and --racks out, and they are chosen for it"
        )
    return layout


def check_count(layout: Layout, store_count: int) -> None:
    """Raise ConfigError when so many Stores are too few for the promised copies."""
    least = layout.least_stores()
    if least is not None and store_count >= least:
        return
    promise = parse_replication(layout.replication)
    raise ConfigError(
        f"up.stores: {layout.replication} ({promise.in_words()}) needs at least {least} Stores, and there would be "
        f"{store_count}; give --stores {least} or more, or another --replication"
    )


def _layout(
    promise: Replication, replication: str, data_centers: int | None, racks: int | None, store_count: int
) -> Layout:
    groups = store_count // (1 + promise.stores) if promise.racks or promise.centers else 1
    if data_centers is None:
        wanted = (racks or groups) // (1 + promise.racks) if promise.centers else 1
        data_centers = min(max(wanted, 1 + promise.centers), racks or MAX_STORES)
    # The racks that the first data center needs, and one for each of the others.
    needed = max(promise.racks * data_centers + 1, data_centers)
    return Layout(replication, data_centers, racks or max(needed, groups))


def _kept(layout: Layout, promise: Replication, count: int) -> int:
    places = [layout.place(number) for number in range(1, count + 1)]
    return promise.kept(Site(str(number), one.data_center, one.rack) for number, one in enumerate(places))
