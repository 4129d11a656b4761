"""Volumes of several copies: growth, failure and what Stores are told, with stand-in Stores over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from directory_fakes import until
from replica_fakes import ReplicaStore

from directory.cluster import cluster
from directory.membership import memberships

FAST = {"heartbeat_seconds": 0.05, "dead_after_seconds": 0.6, "writable_volumes": 3}
RACK = ("dc1", "r1")


async def volumes(directory: Any) -> dict[int, dict[str, Any]]:
    _, document = await directory.call("/dir/status")
    return {volume["volume"]: volume for volume in document["Volumes"]}


async def joined(directory: Any, *stores: ReplicaStore) -> None:
    for store in stores:
        await store.join(directory.base)


async def assigned(directory: Any, query: str = "replication=001") -> dict[str, Any]:
    status, answer = await directory.call(f"/dir/assign?{query}")
    assert status == 200, answer
    result: dict[str, Any] = answer
    return result


async def pair(directory: Any, stores: list[ReplicaStore]) -> tuple[int, dict[str, Any], ReplicaStore, ReplicaStore]:
    """A new volume of two copies: its number, its record, the Store that leads, and the other one."""
    volume = int((await assigned(directory))["fid"].partition(",")[0])
    record = (await volumes(directory))[volume]
    by_id = {store.store_id: store for store in stores}
    leader = by_id[record["primary"]]
    (other,) = (by_id[member] for member in record["inSync"] if member != leader.store_id)
    return volume, record, leader, other


@pytest.mark.parametrize("born_told", [True, False])
async def test_a_volume_is_made_on_all_its_stores_which_learn_of_each_other(
    start: Any, make_replicas: Callable[..., Any], born_told: bool
) -> None:
    directory = await start(**FAST)
    stores = await make_replicas(RACK, RACK, ("dc1", "r2"), ("dc2", "r1"))
    for store in stores:
        store.born_told = born_told
    await joined(directory, *stores)
    answer = await assigned(directory, "replication=111")
    volume = int(answer["fid"].partition(",")[0])
    by_id = {store.store_id: store for store in stores}
    record = (await volumes(directory))[volume]
    assert len(record["inSync"]) == len(set(record["inSync"])) == 4 == record["copies"]
    assert record["members"] == record["inSync"] and record["degradedSinceMs"] == 0
    for member in record["inSync"]:
        pushed = by_id[member].memberships[volume]
        assert (pushed["epoch"], pushed["primary"], pushed["copies"]) == (1, record["primary"], 4)
        assert {one["storeId"] for one in pushed["inSync"]} == set(record["inSync"])
        assert {one["adminUrl"] for one in pushed["inSync"]} == {store.url for store in stores}
    assert answer["url"] == by_id[record["primary"]].url


async def test_replications_live_side_by_side(start: Any, make_replicas: Callable[..., Any]) -> None:
    directory = await start(**FAST)
    await joined(directory, *await make_replicas(RACK, RACK))
    for replication in ("000", "001"):
        for _ in range(5):
            volume = int((await assigned(directory, f"replication={replication}"))["fid"].partition(",")[0])
            assert (await volumes(directory))[volume]["replication"] == replication
    _, document = await directory.call("/dir/status")
    assert {layout["replication"] for layout in document["Topology"]["Layouts"]} == {"000", "001"}


async def test_the_default_replication_is_what_an_assign_without_one_gets(
    start: Any, make_replicas: Callable[..., Any]
) -> None:
    directory = await start(**FAST, default_replication="001")
    await joined(directory, *await make_replicas(RACK, RACK))
    await assigned(directory, "")
    assert {volume["replication"] for volume in (await volumes(directory)).values()} == {"001"}


async def test_where_chooses_the_primary(start: Any, make_replicas: Callable[..., Any]) -> None:
    directory = await start(**FAST)
    stores = await make_replicas(("dc1", "r1"), ("dc2", "r1"))
    await joined(directory, *stores)
    for center, store in zip(("dc1", "dc2"), stores, strict=True):
        for _ in range(5):
            assert (await assigned(directory, f"replication=100&dataCenter={center}"))["url"] == store.url


async def test_it_says_which_domain_is_missing(start: Any, make_replicas: Callable[..., Any]) -> None:
    directory = await start(**FAST)
    await joined(directory, *await make_replicas(RACK, RACK))
    for replication, words in (("010", "other rack(s)"), ("100", "other data center(s)"), ("002", "2 other Store(s)")):
        status, answer = await directory.call(f"/dir/assign?replication={replication}")
        assert status == 503 and words in answer["error"]


@pytest.mark.parametrize("primary_dies", [True, False])
async def test_a_lost_store_leaves_the_in_sync_sets_and_uploads_go_on(
    start: Any, make_replicas: Callable[..., Any], primary_dies: bool
) -> None:
    directory = await start(**FAST)
    stores = await make_replicas(RACK, RACK, RACK)
    await joined(directory, *stores)
    volume, before, leader, other = await pair(directory, stores)
    lost, left = (leader, other) if primary_dies else (other, leader)
    await lost.go()

    async def changed() -> Any:
        record = (await volumes(directory))[volume]
        return record if record["epoch"] > before["epoch"] else None

    record = await until(changed, "a new epoch")
    assert (record["primary"], record["inSync"]) == (left.store_id, [left.store_id])
    assert set(record["members"]) == {left.store_id, lost.store_id} and record["degradedSinceMs"] > 0

    async def told() -> bool:
        return bool(left.memberships[volume]["epoch"] == record["epoch"])

    await until(told, "the new membership is told")
    for _ in range(20):
        assert (await assigned(directory))["url"] != lost.url
        assert int((await assigned(directory))["fid"].partition(",")[0]) != volume
    _, lookup = await directory.call(f"/dir/lookup?volumeId={volume}")
    assert [location["url"] for location in lookup["locations"]] == [left.url]


async def test_when_all_are_lost_the_first_that_returns_leads(start: Any, make_replicas: Callable[..., Any]) -> None:
    directory = await start(**FAST)
    stores = await make_replicas(RACK, RACK)
    await joined(directory, *stores)
    volume = int((await assigned(directory))["fid"].partition(",")[0])
    before = (await volumes(directory))[volume]
    await asyncio.gather(*(store.go() for store in stores))

    async def dead() -> bool:
        _, document = await directory.call("/cluster/status")
        return bool(document["Counts"]["storesAlive"] == 0)

    await until(dead, "both Stores are dead")
    assert (await volumes(directory))[volume]["inSync"] == before["inSync"]
    back = next(store for store in stores if store.store_id != before["primary"])
    await back.come_back()

    async def leads() -> bool:
        record = (await volumes(directory))[volume]
        return bool(record["primary"] == back.store_id and record["inSync"] == [back.store_id])

    await until(leads, "the one that is back leads")


async def test_a_primary_reports_a_suspect_and_is_told_what_is_in_force(
    start: Any, make_replicas: Callable[..., Any]
) -> None:
    directory = await start(**FAST)
    stores = await make_replicas(RACK, RACK)
    await joined(directory, *stores)
    volume, record, primary, replica = await pair(directory, stores)
    other = replica.store_id
    path = f"/internal/volumes/{volume}/suspect"
    report = {"storeId": primary.store_id, "epoch": record["epoch"], "suspects": [other], "reason": "time-out"}
    # A replica is not believed, nor is who speaks of another epoch, nor a question.
    disbelieved: list[dict[str, Any]] = [
        {"storeId": other, "suspects": [primary.store_id]},
        {"epoch": 0},
        {"suspects": []},
    ]
    for changes in disbelieved:
        status, answer = await primary.post(directory.base, path, {**report, **changes})
        assert status == 200 and answer["epoch"] == record["epoch"] and len(answer["inSync"]) == 2
    status, answer = await primary.post(directory.base, path, report)
    assert status == 200 and answer["epoch"] == record["epoch"] + 1
    assert [member["storeId"] for member in answer["inSync"]] == [primary.store_id]
    again = await primary.post(directory.base, path, report)
    assert again[1]["epoch"] >= answer["epoch"]
    status, answer = await primary.post(directory.base, "/internal/volumes/999/suspect", report)
    assert status == 404


async def test_a_suspect_takes_no_part_in_uploads_until_it_is_heard_again(
    start: Any, make_replicas: Callable[..., Any]
) -> None:
    directory = await start(**FAST | {"dead_after_seconds": 60.0})
    stores = await make_replicas(RACK, RACK, RACK)
    for store in stores:
        assert (await store.register(directory.base))[0] == 200  # and no heartbeat
    volume, record, primary, other = await pair(directory, stores)
    led_by_other = f"replication=001&dataNode={other.url}"
    report = {"storeId": primary.store_id, "epoch": record["epoch"], "suspects": [other.store_id], "reason": "time-out"}
    path = f"/internal/volumes/{volume}/suspect"
    await primary.post(directory.base, path, report | {"epoch": 0})  # is not believed
    await assigned(directory, led_by_other)
    await primary.post(directory.base, path, report)
    made = len(other.made)
    assert (await directory.call(f"/dir/assign?{led_by_other}"))[0] == 503
    for _ in range(20):
        name = (await assigned(directory))["fid"]
        assert other.store_id not in (await volumes(directory))[int(name.partition(",")[0])]["members"]
    assert len(other.made) == made
    await other.heartbeat(directory.base)
    await assigned(directory, led_by_other)


async def test_a_stale_copy_is_no_place_to_read_from_while_the_one_in_sync_talks_to_the_directory(
    start: Any, make_replicas: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The heartbeats of a Store may hang long after a partition has healed, while it asks for its membership."""
    directory = await start(**FAST)
    stores = await make_replicas(RACK, RACK)
    await joined(directory, *stores)
    volume, before, leader, stale = await pair(directory, stores)

    async def places() -> list[str]:
        _, lookup = await directory.call(f"/dir/lookup?volumeId={volume}")
        return [location["url"] for location in lookup["locations"]]

    async def alone() -> bool:
        return bool((await volumes(directory))[volume]["inSync"] == [leader.store_id])

    await stale.go()
    await until(alone, "one copy is in sync")
    await leader.go()
    stale.refuse_calls = True  # so that it stays stale
    await stale.come_back()

    async def leader_is_dead() -> bool:
        _, document = await directory.call("/cluster/nodes")
        return {node["storeId"]: node["state"] for node in document["nodes"]}[leader.store_id] == "dead"

    await until(leader_is_dead, "the one in sync counts as dead")
    # The other one may be silent towards the Directory alone, and take deletes all the same.
    assert await places() == [leader.url]
    monkeypatch.setattr(cluster, "STALE_SECONDS", 0.6)

    async def stale_first() -> bool:
        return (await places())[:1] == [stale.url]

    await until(stale_first, "the stale copy is all there is")
    leader.frozen.set()
    question = {"storeId": leader.store_id, "epoch": before["epoch"], "suspects": [], "reason": "who is in sync?"}
    status, answer = await leader.post(directory.base, f"/internal/volumes/{volume}/suspect", question)
    assert status == 200 and [member["storeId"] for member in answer["inSync"]] == [leader.store_id]
    assert await places() == [leader.url]


async def test_a_volume_of_which_only_one_copy_was_made_gets_the_other_one(
    start: Any, make_replicas: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its primary never got it, and the Store that has it says so, and falls silent."""
    monkeypatch.setattr(memberships, "YOUNG_SECONDS", 2.0)
    directory = await start(**FAST, repair_delay_seconds=0.2, default_replication="001")
    stores = await make_replicas(RACK, RACK)
    has, lacks = stores
    await joined(directory, *stores)
    await assigned(directory)
    ids = [lacks.store_id, has.store_id]
    members = [{"storeId": store.store_id, "url": store.url, "adminUrl": store.url} for store in (lacks, has)]
    document = has.volume(77, replication="001", epoch=1, primary=lacks.store_id, inSync=ids, stale=False)
    has.volumes[77] = document
    has.memberships[77] = {
        "format": 1,
        "volume": 77,
        "uuid": document["uuid"],
        "epoch": 1,
        "primary": lacks.store_id,
        "copies": 2,
        "inSync": members,
    }

    async def taken_in() -> bool:
        return 77 in await volumes(directory)

    await until(taken_in, "the volume is known")
    await has.go()

    async def given_up() -> bool:
        known = await volumes(directory)
        return all(known[volume]["inSync"] == [lacks.store_id] for volume in known if volume != 77)

    await until(given_up, "the volumes of the Store that fell silent have new memberships")
    await has.come_back()

    async def whole() -> bool:
        record = (await volumes(directory))[77]
        return set(record["inSync"]) == set(record["members"]) == set(ids) and 77 in lacks.volumes

    await until(whole, "both copies", 8)


async def test_a_store_that_knows_a_higher_epoch_gets_a_higher_one_still(
    start: Any, make_replicas: Callable[..., Any]
) -> None:
    directory = await start(**FAST)
    stores = await make_replicas(RACK, RACK, RACK)
    await joined(directory, *stores)
    volume, _, primary, lost = await pair(directory, stores)
    primary.memberships[volume] = {**primary.memberships[volume], "epoch": 40}
    await lost.go()

    async def told() -> bool:
        known = primary.memberships[volume]
        return bool(known["epoch"] > 40 and len(known["inSync"]) == 1)

    await until(told, "a membership above epoch 40")
    assert (await volumes(directory))[volume]["epoch"] == primary.memberships[volume]["epoch"]


async def test_the_same_store_at_another_address_is_told_to_the_others(
    start: Any, make_replicas: Callable[..., Any]
) -> None:
    directory = await start(**FAST)
    stores = await make_replicas(RACK, RACK)
    await joined(directory, *stores)
    volume = int((await assigned(directory))["fid"].partition(",")[0])
    await stores[0].stop()
    await stores[0].start()
    await stores[0].come_back()

    async def told() -> bool:
        urls = {member["url"] for member in stores[1].memberships[volume]["inSync"]}
        return urls == {store.url for store in stores}

    await until(told, "the new address")


async def test_only_the_primary_confirms(start: Any, make_replicas: Callable[..., Any]) -> None:
    directory = await start(**FAST)
    stores = await make_replicas(RACK, RACK)
    await joined(directory, *stores)
    volume = int((await assigned(directory))["fid"].partition(",")[0])
    record = (await volumes(directory))[volume]
    for store in stores:
        status, answer = await store.confirm(directory.base, volume, 0, 4096, [])
        assert status == (200 if store.store_id == record["primary"] else 409), answer


async def test_a_directory_without_a_disk_learns_the_memberships_from_the_stores(
    start: Any, make_replicas: Callable[..., Any], tmp_path: Any
) -> None:
    directory = await start(**FAST)
    stores = await make_replicas(RACK, RACK, RACK)
    await joined(directory, *stores)
    await assigned(directory)
    before = await volumes(directory)
    other = await start(**FAST, data=tmp_path / "other")
    for store in stores:
        await store.go()
        store.frozen.set()
    for store in stores:
        await store.join(other.base)

    async def same() -> bool:
        now = await volumes(other)
        keys = ("uuid", "epoch", "primary", "replication")
        return all(
            volume in now
            and all(now[volume][key] == record[key] for key in keys)
            and set(now[volume]["inSync"]) == set(record["inSync"])
            for volume, record in before.items()
        )

    await until(same, "the same memberships")
    assert (await assigned(other))["fid"]


async def test_a_copy_that_cannot_be_made_leaves_a_volume_that_takes_no_photos_until_it_is_there(
    start: Any, make_replicas: Callable[..., Any]
) -> None:
    directory = await start(**FAST, default_replication="001")
    stores = await make_replicas(RACK, RACK)
    stores[1].refuse = (507, "no room at all")
    stores[1].follow_gate.clear()
    await joined(directory, *stores)
    status, answer = await directory.call("/dir/assign")
    assert status == 503 and "no room at all" in answer["error"]
    records = await volumes(directory)
    assert records and all(record["inSync"] == [stores[0].store_id] for record in records.values())
    stores[1].follow_gate.set()

    async def mended() -> bool:
        return all(len(record["inSync"]) == 2 for record in (await volumes(directory)).values())

    await until(mended, "the missing copies are made")
    assert (await assigned(directory, ""))["fid"]


async def test_a_store_that_falls_silent_while_it_makes_a_volume_holds_up_nobody(
    start: Any, make_replicas: Callable[..., Any]
) -> None:
    directory = await start(**FAST, default_replication="001")
    stores = await make_replicas(RACK, RACK, RACK)
    stores[2].delay = asyncio.Event()
    await joined(directory, *stores)
    await stores[2].asked.wait()
    await stores[2].go()
    assert (await assigned(directory, ""))["url"] != stores[2].url
    stores[2].delay.set()


async def test_thousands_of_volumes_of_a_lost_store_change_in_one_go(
    start: Any, make_replicas: Callable[..., Any]
) -> None:
    """Assigns go on meanwhile."""
    directory = await start(**FAST, default_replication="001", repair_delay_seconds=500)
    stores = await make_replicas(RACK, RACK, RACK)
    first, second, _ = stores
    ids = [first.store_id, second.store_id]
    for volume in range(1, 1501):
        document = first.volume(
            volume, state="readonly", replication="001", epoch=3, primary=ids[volume % 2], inSync=ids, stale=False
        )
        for store in (first, second):
            store.volumes[volume] = {**document, "folder": store.folders[0]["id"]}
            store.memberships[volume] = {"epoch": 3, "inSync": [], "primary": ""}
    for store in stores:
        store.beats_with_volumes = False
    await joined(directory, *stores)
    await assigned(directory, "")
    await first.go()

    async def told() -> bool:
        assert (await directory.call("/dir/assign"))[0] == 200
        return all(second.memberships[volume]["primary"] == second.store_id for volume in range(1, 1501))

    await until(told, "the other Store leads all", 20)
    _, document = await directory.call("/cluster/status")
    assert document["Counts"]["volumesDegraded"] >= 1500
    assert len(document["Problems"]) < 10
