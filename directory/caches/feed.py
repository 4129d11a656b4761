"""What the Caches are told: the feed of changes, and the volumes of which the feed may lack something."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from directory.caches.changes import LOCATIONS, UNSURE, Change, Changes
from directory.caches.messages import StoreWord
from directory.cluster.cluster import Cluster
from directory.decisions.confirmations import Effect
from directory.decisions.freshness import Freshness
from directory.storage.tables import VolumeRecord

log = logging.getLogger(__name__)


class CacheFeed:
    """Watches confirmations and memberships, and answers the Caches. Make it inside the event loop.

    Parameters
    ----------
    cluster: its volume index tells of every change of a record from now on.
    clock: monotonic seconds.
    alone: this is the only Directory.
    """

    def __init__(self, cluster: Cluster, clock: Callable[[], float], *, alone: bool = True) -> None:
        self._alone = alone
        self.changes = Changes()
        self._freshness = Freshness()
        self._cluster = cluster
        self._clock = clock
        cluster.index.watcher = self._record_changed

    def confirmed(self, volume: int, effect: Effect) -> None:
        """Needles of a volume were confirmed, which is durable."""
        self.changes.publish(Change(volume, key, alternate, kind) for key, alternate, kind in effect.taken_back)

    def take_word(self, word: StoreWord) -> None:
        """A Store says how far it has told everything."""
        given_at = self._read_token(word.token)
        if given_at is None:
            self._first_word(word.store_id)
            return
        state = self._cluster.stores[word.store_id]
        records = self._cluster.records
        self._freshness.said(
            word.store_id,
            given_at + word.age_seconds,
            word.behind,
            self._clock(),
            knows=lambda volume: volume in records and state.knows(records[volume]),
        )

    def token(self) -> str:
        """Return a token for a Store, to be given back with its next word."""
        return f"{self.changes.incarnation}.{int(self._clock() * 1e6)}"

    def answer(self, incarnation: str, after: int) -> dict[str, Any]:
        """Return what a Cache is told that knows everything up to number ``after``."""
        excerpt = self.changes.since(incarnation, after)
        return {
            "incarnation": self.changes.incarnation,
            "sequence": excerpt.sequence,
            "complete": excerpt.complete,
            "more": excerpt.more,
            "changes": [change.row() for change in excerpt.changes],
            "doubtful": self.doubtful(),
        }

    def doubtful(self) -> list[int] | None:
        """Return the volumes of which the feed may lack something; None: too many to be named."""
        index = self._cluster.index
        led = {store_id: index.led_by(store_id) for store_id, count in index.led.items() if count}
        return self._freshness.doubtful(led, self._clock())

    def _read_token(self, token: str) -> float | None:
        """Return when a token was given out, None when it was not by this process."""
        incarnation, _, microseconds = token.partition(".")
        if incarnation != self.changes.incarnation or not (microseconds.isascii() and microseconds.isdigit()):
            return None
        return min(int(microseconds) / 1e6, self._clock())

    def _first_word(self, store_id: str) -> None:
        """A Store has begun to give its word here; to another Directory it may have told what this one never hears."""
        if not self._alone:
            led = self._cluster.index.led_by(store_id)
            self.changes.publish(Change(volume, None, None, UNSURE) for volume in led)

    def _record_changed(self, before: VolumeRecord | None, record: VolumeRecord) -> None:
        self._freshness.changed(record.volume, record.primary)
        if before is None:
            return
        changes = [Change(record.volume, None, None, LOCATIONS)]
        if record.primary not in before.in_sync:
            # A copy leads now that had not counted: what was deleted, or replaced, while it was away is back.
            log.info("volume %d: Caches are to ask anew for what they have of it", record.volume)
            changes.append(Change(record.volume, None, None, UNSURE))
        self.changes.publish(changes)
