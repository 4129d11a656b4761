"""Which Store should lead which writable volume, when some lead clearly more than others.

Whoever leads a volume takes its uploads and sends them to the other copies. A Store that was away leads nothing when it
is back, until volumes are handed over to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from directory.decisions.choice import Candidate
from directory.storage.tables import VolumeRecord

MIN_DIFFERENCE = 2
"""Volumes that one Store leads more than another before one of them is handed over. With less, it would come back."""


@dataclass(frozen=True, slots=True)
class Handover:
    """A volume, and the Stores that lead it until now and from then on; both have it in sync."""

    volume: int
    giver: str
    taker: str


def plan_handover(candidates: Sequence[Candidate]) -> Handover | None:
    """Return the one handover that evens out most, None when no Store leads clearly more than one that could take over.

    Parameters
    ----------
    candidates: the volumes that take photos now, with all their copies in sync on living Stores.
    """
    roomy = [candidate for candidate in candidates if not candidate.crowded]
    led = Counter(candidate.store_id for candidate in roomy)
    possible = [
        (led[candidate.store_id] - led[other.store_id], Handover(candidate.volume, candidate.store_id, other.store_id))
        for candidate in roomy
        for other in candidate.others
    ]
    # The names make the choice between equals the same every time.
    difference, handover = min(
        possible, key=lambda one: (-one[0], one[1].volume, one[1].taker), default=(0, Handover(0, "", ""))
    )
    return handover if difference >= MIN_DIFFERENCE else None


def handed_over(record: VolumeRecord, handover: Handover, epoch: int) -> VolumeRecord:
    """Return the record with its new primary; the same record when its membership is not that of ``epoch`` any more."""
    if record.epoch != epoch or record.primary != handover.giver or handover.taker not in record.in_sync:
        return record
    return replace(record, epoch=record.epoch + 1, primary=handover.taker)
