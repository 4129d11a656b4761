"""Who leads what: the decision, and the handing over with stand-in Stores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from directory_fakes import until
from hypothesis import given
from hypothesis import strategies as st

from directory.cluster import cluster
from directory.decisions.choice import Candidate, CopyPlace
from directory.decisions.leadership import MIN_DIFFERENCE, Handover, handed_over, plan_handover
from directory.membership import leadership
from directory.storage.tables import VolumeRecord

STORES = "abcde"


def candidate(volume: int, members: tuple[str, ...], size_bytes: int = 4096) -> Candidate:
    """Return a volume that its first member leads."""
    others = tuple(CopyPlace(member, "f", 2**40) for member in members[1:])
    return Candidate(volume, members[0], "", "", "dc", "r", "f", size_bytes, 2**30, 2**40, others=others)


members = st.lists(st.sampled_from(STORES), min_size=1, max_size=3, unique=True).map(tuple)
clusters = st.lists(members, max_size=20).map(
    lambda all_members: [candidate(volume, one) for volume, one in enumerate(all_members, 1)]
)


def carried_out(candidates: list[Candidate], handover: Handover) -> list[Candidate]:
    after = []
    for one in candidates:
        if one.volume == handover.volume:
            names = [one.store_id, *(place.store_id for place in one.others)]
            assert one.store_id == handover.giver and handover.taker in names[1:]
            names.remove(handover.taker)
            one = candidate(one.volume, (handover.taker, *names))
        after.append(one)
    return after


@given(clusters)
def test_handovers_come_to_an_end_at_which_nobody_leads_clearly_more_than_who_could_take_over(
    candidates: list[Candidate],
) -> None:
    for _ in range(len(candidates) ** 2 + 1):
        handover = plan_handover(candidates)
        if handover is None:
            break
        before = Counter(one.store_id for one in candidates)
        assert before[handover.giver] - before[handover.taker] >= MIN_DIFFERENCE
        candidates = carried_out(candidates, handover)
    led = Counter(one.store_id for one in candidates)
    for one in candidates:
        assert all(led[one.store_id] - led[place.store_id] < MIN_DIFFERENCE for place in one.others)


def test_what_is_nearly_full_is_left_alone() -> None:
    full = [candidate(volume, ("a", "b"), size_bytes=2**30) for volume in range(1, 9)]
    assert plan_handover(full) is None
    assert plan_handover([*full, candidate(9, ("a", "b"))]) is None
    assert plan_handover([candidate(volume, ("a", "b")) for volume in (4, 5)]) == Handover(4, "a", "b")


def test_only_the_membership_that_was_looked_at_is_changed() -> None:
    record = VolumeRecord(
        volume=1,
        uuid="u",
        replication="001",
        epoch=7,
        primary="a",
        in_sync=("a", "b"),
        state="writable",
        created_ms=1,
        max_bytes=None,
        members=("a", "b", "c"),
    )
    handover = Handover(1, "a", "b")
    assert handed_over(record, handover, 7) == replace(record, primary="b", epoch=8)
    assert handed_over(record, handover, 6) == record
    for other in (replace(record, primary="b"), replace(record, in_sync=("a", "c"))):
        assert handed_over(other, handover, 7) == other


FAST = {"heartbeat_seconds": 0.05, "dead_after_seconds": 0.6, "writable_volumes": 4, "default_replication": "001"}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOOK_SECONDS", "QUIET_SECONDS", "REST_SECONDS", "WATCH_SECONDS"):
        monkeypatch.setattr(leadership, name, 0.1)
    monkeypatch.setattr(cluster, "TOLD_SECONDS", 0.1)


async def records(directory: Any) -> list[dict[str, Any]]:
    _, document = await directory.call("/dir/status")
    return list(document["Volumes"])


async def until_even(directory: Any, stores: list[Any]) -> None:
    """Wait until all lead the same; meanwhile photos get their names all the time."""

    async def even() -> bool:
        known = await records(directory)
        if not all(len(record["inSync"]) == 2 for record in known):
            return False
        status, answer = await directory.call("/dir/assign")
        assert status == 200, answer
        led = Counter(record["primary"] for record in known)
        counts = [led[store.store_id] for store in stores]
        return max(counts) - min(counts) < MIN_DIFFERENCE

    await until(even, "all lead the same", 20)


async def joined(directory: Any, stores: list[Any]) -> None:
    for store in stores:
        await store.join(directory.base)

    async def made() -> bool:
        return len(await records(directory)) >= 4

    await until(made, "four volumes")


@pytest.mark.usefixtures("quick")
async def test_a_store_that_is_back_leads_its_share_again(start: Any, make_replicas: Callable[..., Any]) -> None:
    directory = await start(**FAST)
    away, stays = stores = await make_replicas(("dc1", "r1"), ("dc1", "r1"))
    await joined(directory, stores)
    await away.go()

    async def alone() -> bool:
        return all(record["inSync"] == [stays.store_id] for record in await records(directory))

    await until(alone, "one leads all")
    await away.come_back()
    await until_even(directory, stores)


@pytest.mark.usefixtures("quick")
async def test_handing_over_makes_no_volumes_and_is_told_to_both(start: Any, make_replicas: Callable[..., Any]) -> None:
    directory = await start(**FAST)
    first, second = stores = await make_replicas(("dc1", "r1"), ("dc1", "r1"))
    await joined(directory, stores)
    status, _ = await directory.call(f"/vol/grow?count=6&replication=001&dataNode={first.url}")
    assert status == 200
    count = len(await records(directory))
    assert count >= 10
    await until_even(directory, stores)
    assert len(await records(directory)) == count

    async def told() -> bool:
        return all(
            store.memberships[record["volume"]]["primary"] == record["primary"]
            for record in await records(directory)
            for store in stores
        )

    await until(told, "both know who leads")
    assert second.store_id in {record["primary"] for record in await records(directory) if record["epoch"] > 1}


@pytest.mark.usefixtures("quick")
async def test_a_volume_that_is_written_to_is_left_alone(
    start: Any, make_replicas: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[bool] = []
    look = leadership.Leadership.look

    async def watched(self: leadership.Leadership) -> bool:
        looks.append(await look(self))
        return looks[-1]

    monkeypatch.setattr(leadership.Leadership, "look", watched)
    directory = await start(**FAST)
    first, _ = stores = await make_replicas(("dc1", "r1"), ("dc1", "r1"))
    first.writing = True
    await joined(directory, stores)
    await directory.call(f"/vol/grow?count=6&replication=001&dataNode={first.url}")
    begun = len(looks)

    async def looked() -> bool:
        return len(looks) >= begun + 5

    await until(looked, "five looks", 20)
    assert not any(looks[begun:])
    first.writing = False
    await until_even(directory, stores)
