"""Where the reads of a volume go: in proportion to the weights of its copies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from directory.messages import StoreDocument
from directory.storage.tables import EQUAL_WEIGHT, MAX_WEIGHT, VolumeRecord
from haystack.errors import InvalidRequest
from haystack.weighted import weighted_order


@dataclass(frozen=True, slots=True)
class Place:
    """A Store that readers of a volume are sent to.

    Parameters
    ----------
    weight: its share of the reads, beside the weights of the others; 0: only when all others fail.
    primary: it takes the writes; others pass them on.
    """

    store: StoreDocument
    weight: float
    primary: bool


def places_of(
    record: VolumeRecord | None, first: Sequence[StoreDocument], then: Sequence[StoreDocument] = ()
) -> list[Place]:
    """Return the Stores with their weights.

    Parameters
    ----------
    first: those that share the reads. When none of them has a weight they share evenly.
    then: those that are asked when all of these fail, in this order.
    """
    weights = [EQUAL_WEIGHT if record is None else record.weight_of(store.store_id) for store in first]
    if not any(weights):
        weights = [EQUAL_WEIGHT] * len(weights)
    primary = None if record is None else record.primary
    places = [Place(store, weight, store.store_id == primary) for store, weight in zip(first, weights, strict=True)]
    return places + [Place(store, 0.0, store.store_id == primary) for store in then]


def drawn(places: Sequence[Place], dice: Callable[[], float]) -> list[Place]:
    """Return the places in the order in which one reader is to try them."""
    return weighted_order(places, [place.weight for place in places], dice)


def checked_weights(record: VolumeRecord, weights: Mapping[str, float]) -> dict[str, float]:
    """Return the weights as they are kept. Raises InvalidRequest when the volume cannot have them."""
    for store_id, weight in weights.items():
        if store_id not in record.members:
            raise InvalidRequest(f"volume {record.volume} has no copy on Store {store_id[:100]}: it can have no weight")
        if not 0 <= weight <= MAX_WEIGHT:
            raise InvalidRequest(f"weight {weight!r} of Store {store_id} is not from 0 to {MAX_WEIGHT:g}")
    if weights and not any(weights.get(store_id, EQUAL_WEIGHT) for store_id in record.in_sync):
        raise InvalidRequest(f"volume {record.volume}: some copy in sync must have a weight above 0")
    return {store_id: float(weight) for store_id, weight in sorted(weights.items())}
