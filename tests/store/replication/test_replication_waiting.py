"""A batch that waits for something at a replica, while the replica's volume changes under it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from haystack.errors import VolumeUnavailable
from haystack.store.replication.landing import Arrived, BatchRefused
from haystack.store.replication.receiving import Receiver
from haystack.store.replication.rules import Verdict
from haystack.volume.replica import Landed


async def test_a_batch_that_waits_while_its_volume_is_compacted_lands_in_the_next_generation() -> None:
    old, new = SimpleNamespace(retired=False), SimpleNamespace(retired=False)
    catalog = SimpleNamespace(successor=lambda left: new if left is old else None)
    receiver = Receiver(cast(Any, catalog), cast(Any, None), cast(Any, None), max_photo_bytes=1)

    async def land(arrived: Arrived) -> Landed | BatchRefused | VolumeUnavailable:
        if arrived.served is new:
            return Landed(128, False)
        if old.retired:
            return VolumeUnavailable("closed")
        old.retired = True  # nobody had it pinned while the batch waited
        return BatchRefused(1, Verdict.BEHIND, 5, 64)

    cast(Any, receiver)._land = land
    assert await receiver.take(Arrived(cast(Any, old), 6, 64, b"")) == (Landed(128, False), new)
