"""What changes of memberships mean to Caches, and how the words of Stores reach the answers of the feed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from directory.caches.changes import LOCATIONS, UNSURE, Change
from directory.caches.feed import CacheFeed
from directory.caches.messages import StoreWord
from directory.cluster.cluster import Cluster
from directory.messages import StoreDocument
from directory.storage.tables import VolumeRecord

A, B = "store-a", "store-b"
RECORD = VolumeRecord(7, "u", "001", 1, A, (A, B), "writable", 0, None, members=(A, B))


class Feed:
    """A feed of a cluster of two Stores, with a clock."""

    def __init__(self, *, alone: bool = True) -> None:
        self.now = 100.0
        self.cluster = Cluster(dead_after_seconds=3, started_seconds=0)
        for store_id in (A, B):
            self.cluster.restore_store(StoreDocument(store_id, None, "h:1", "h:1", "h:2", "dc", "r", "", 0, 1))
        self.feed = CacheFeed(self.cluster, lambda: self.now, alone=alone)
        self.put(RECORD)

    def put(self, record: VolumeRecord) -> list[Change]:
        """Write down a record; return what the Caches are told."""
        before = self.feed.changes.sequence
        self.cluster.index.put(record)
        return list(self.feed.changes.since(self.feed.changes.incarnation, before).changes)

    def know(self, store_id: str, record: VolumeRecord) -> None:
        self.cluster.stores[store_id].told[record.volume] = record.epoch

    def word(self, store_id: str, *, token: str | None = None, behind: dict[int, float | None] | None = None) -> None:
        given = self.feed.token() if token is None else token
        self.feed.take_word(StoreWord(store_id, given, 0.0, behind or {}))
        self.now += 0.01


@pytest.fixture
async def feed() -> Feed:
    """The primary knows, and has given its word."""
    feed = Feed()
    feed.know(A, RECORD)
    for _ in range(2):
        feed.word(A)
    assert feed.feed.doubtful() == []
    return feed


async def test_a_new_volume_is_no_news_but_in_doubt() -> None:
    feed = Feed()
    assert feed.put(replace(RECORD, volume=8)) == []
    assert feed.feed.doubtful() == [7, 8]


async def test_sizes_are_no_news(feed: Feed) -> None:
    assert feed.put(replace(RECORD, size_bytes=9, state="readonly")) == []
    assert feed.feed.doubtful() == []


async def test_a_membership_that_changes_is_told_and_doubted_until_its_primary_knows(feed: Feed) -> None:
    parted = replace(RECORD, epoch=2, in_sync=(A,))
    assert feed.put(parted) == [Change(7, None, None, LOCATIONS)]
    for _ in range(3):
        feed.word(A)
    assert feed.feed.doubtful() == [7]
    feed.know(A, parted)
    feed.word(A)
    assert feed.feed.doubtful() == [7], "this word may be from before it knew"
    feed.word(A)
    assert feed.feed.doubtful() == []


async def test_another_primary_that_counted_takes_nothing_back(feed: Feed) -> None:
    led = replace(RECORD, epoch=2, primary=B, in_sync=(B,))
    assert feed.put(led) == [Change(7, None, None, LOCATIONS)]
    for _ in range(3):
        feed.word(A)
    assert feed.feed.doubtful() == [7], "the word of the former primary does not count"


async def test_a_stale_copy_that_leads_makes_all_that_was_read_unsure(feed: Feed) -> None:
    alone = replace(RECORD, epoch=2, in_sync=(A,))
    feed.put(alone)
    resurrected = replace(alone, epoch=3, primary=B, in_sync=(B,))
    assert feed.put(resurrected) == [Change(7, None, None, LOCATIONS), Change(7, None, None, UNSURE)]


async def test_a_store_that_told_another_directory_before() -> None:
    feed = Feed(alone=False)
    before = feed.feed.changes.sequence
    feed.word(A, token="")
    assert feed.feed.changes.since(feed.feed.changes.incarnation, before).changes == (Change(7, None, None, UNSURE),)
    feed.word(A)
    assert feed.feed.changes.sequence == before + 1


async def test_a_token_of_the_future_is_of_now(feed: Feed) -> None:
    incarnation = feed.feed.changes.incarnation
    feed.word(A, token=f"{incarnation}.{10**15}")
    feed.now += 1
    assert feed.feed.doubtful() == [7]
