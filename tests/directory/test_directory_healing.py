"""Copies come back, are made anew, and move: the healer and the operator's calls, with stand-in Stores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import xxhash
from directory_fakes import SECRET, until
from replica_cluster import FAST, RACK, SINGLE, Cluster

from directory.settings import STORAGE_NAME
from directory.storage.interface import Table, scan_all
from directory.storage.lmdb_storage import LmdbStorage


async def test_a_store_that_returns_is_brought_up_and_counts_again(
    start: Any, make_replicas: Callable[..., Any]
) -> None:
    cluster = Cluster(
        await start(
            **FAST,
        ),
        await make_replicas(RACK, RACK),
        "001",
    )
    volume = await cluster.fill()
    record = await cluster.record(volume)
    lost = cluster.stores[cluster.other(record)]
    await lost.go()

    async def degraded() -> bool:
        return bool((await cluster.record(volume))["degradedSinceMs"])

    await until(degraded, "the volume lacks a copy")
    cluster.stores[record["primary"]].volumes[volume]["sizeBytes"] = 9000
    await lost.come_back()
    after = await cluster.full(volume)
    assert lost.volumes[volume]["sizeBytes"] == 9000 and after["primary"] == record["primary"]
    calls = [call for call, of, _ in lost.log if of == volume]
    assert "follow" in calls and calls.index("follow") > calls.index("membership")
    status, _ = await cluster.directory.call("/dir/assign?replication=001")
    assert status == 200 and not (await cluster.repair())["degraded"]


async def test_a_copy_is_made_elsewhere_and_the_old_one_is_deleted_when_it_returns(
    start: Any, make_replicas: Callable[..., Any]
) -> None:
    cluster = Cluster(await start(**FAST), await make_replicas(RACK, RACK, RACK), "001")
    volume = await cluster.fill()
    record = await cluster.record(volume)
    lost = cluster.stores[cluster.other(record)]
    await lost.go()
    after = await cluster.full(volume, without=lost.store_id)
    assert after["primary"] == record["primary"]
    await lost.come_back()

    async def deleted() -> bool:
        return volume not in lost.volumes

    await until(deleted, "the copy that is not needed any more is deleted")
    await cluster.full(volume)
    calls = [(call, epoch) for call, of, epoch in lost.log if of == volume]
    assert calls[-1][0] == "delete" and ("membership", calls[-1][1]) in calls
    actions = [one["action"] for one in (await cluster.repair())["recent"] if one["volume"] == volume]
    assert {"copy", "delete"} <= set(actions)


async def test_it_says_what_it_waits_for_and_hurries_when_told_to(
    start: Any, make_replicas: Callable[..., Any]
) -> None:
    cluster = Cluster(await start(**FAST | {"repair_delay_seconds": 500}), await make_replicas(RACK, RACK, RACK), "001")
    volume = await cluster.fill()
    lost = cluster.stores[cluster.other(await cluster.record(volume))]
    await lost.go()

    async def waits() -> Any:
        lacking = [one for one in (await cluster.repair())["degraded"] if one["volume"] == volume]
        return lacking[0] if lacking and lacking[0]["copyInSeconds"] else None

    lacking = await until(waits, "the volume is listed")
    assert f"waits for Store {lost.url} to come back" in lacking["reason"] and lacking["copyInSeconds"] > 400
    _, status = await cluster.directory.call("/cluster/status")
    assert any("fewer copies in sync than promised" in line for line in status["Problems"])
    _, plan = await cluster.directory.call("/cluster/repair", "POST", json={"dryRun": True})
    assert plan["applied"] is False and {step["action"] for step in plan["steps"]} == {"copy"}
    assert not (await cluster.repair())["recent"]
    _, answer = await cluster.directory.call("/cluster/repair", "POST", json={"volumes": [volume]})
    assert answer["applied"] is True
    await cluster.full(volume, without=lost.store_id)


async def test_maintenance_makes_no_copies(start: Any, make_replicas: Callable[..., Any]) -> None:
    cluster = Cluster(await start(**FAST | {"repair_delay_seconds": 0}), await make_replicas(RACK, RACK, RACK), "001")
    volume = await cluster.fill()
    away = cluster.stores[cluster.other(await cluster.record(volume))]
    status, answer = await cluster.mark(away.url, mark="maintenance")
    assert status == 200 and answer["applied"] is True
    await away.go()

    async def waits() -> bool:
        return any("maintenance" in one["reason"] for one in (await cluster.repair())["degraded"])

    await until(waits, "the volume waits for the end of the maintenance")
    await away.come_back()
    record = await cluster.full(volume)
    assert away.store_id in record["inSync"]
    assert (await cluster.node(away.store_id))["mark"] == "maintenance"


async def test_a_machine_is_drained(start: Any, make_replicas: Callable[..., Any]) -> None:
    cluster = Cluster(await start(**FAST), await make_replicas(RACK, RACK, RACK), "001")
    volume = await cluster.fill()
    drained = (await cluster.record(volume))["primary"]
    status, plan = await cluster.mark(drained, mark="draining", dryRun=True)
    assert status == 200 and plan["applied"] is False and "made on other Stores" in plan["steps"][1]
    assert (await cluster.node(drained))["mark"] == "none"
    await cluster.mark(drained, mark="draining")

    async def empty() -> bool:
        return bool((await cluster.node(drained))["drain"]["done"])

    await until(empty, "nothing is left")
    assert not cluster.stores[drained].volumes
    record = await cluster.full(volume, without=drained)
    assert record["primary"] != drained
    for _ in range(5):
        _, answer = await cluster.directory.call("/dir/assign?replication=001")
        assert answer["url"] != cluster.stores[drained].url
    # Never below the promise: the copy counted before the old one was given up.
    for store in cluster.stores.values():
        known = store.memberships.get(volume)
        assert known is None or len(known["inSync"]) >= 2


async def test_a_volume_of_one_copy_is_drained(start: Any, make_replicas: Callable[..., Any]) -> None:
    cluster = Cluster(await start(**SINGLE), await make_replicas(RACK, RACK), "000")
    volume = await cluster.fill()
    drained = (await cluster.record(volume))["primary"]
    cluster.stores[drained].volumes[volume]["sizeBytes"] = 7000
    await cluster.mark(drained, mark="draining")
    record = await cluster.full(volume, without=drained)
    assert cluster.stores[record["primary"]].volumes[volume]["sizeBytes"] == 7000

    async def deleted() -> bool:
        return not cluster.stores[drained].volumes

    await until(deleted, "nothing is left")


async def test_a_drain_without_room_says_so(start: Any, make_replicas: Callable[..., Any]) -> None:
    cluster = Cluster(await start(**SINGLE), await make_replicas(RACK), "000")
    await cluster.fill()
    (store_id,) = cluster.stores
    await cluster.mark(store_id, mark="draining")

    async def blocked() -> Any:
        return (await cluster.node(store_id))["drain"]["blocked"]

    assert "no room" in (await until(blocked, "it is blocked"))[0]["reason"]


async def test_a_disk_is_drained(start: Any, make_replicas: Callable[..., Any]) -> None:
    stores = await make_replicas(RACK, RACK)
    first = stores[0]
    first.folders.append({**first.folders[0], "id": "second", "path": "/second"})
    cluster = Cluster(await start(**SINGLE | {"writable_volumes": 4}), stores, "000")
    await cluster.fill()

    async def spread() -> bool:
        return {volume["folder"] for volume in first.volumes.values()} == {"second", first.folders[0]["id"]}

    await until(spread, "both disks have volumes")
    status, answer = await cluster.mark(first.store_id, mark="readonly", folder="second")
    assert status == 400
    status, answer = await cluster.mark(first.store_id, mark="draining", folder="/second")
    assert status == 200, answer

    async def empty() -> bool:
        node = await cluster.node(first.store_id)
        return bool(node["drain"]["done"])

    await until(empty, "the disk is empty")
    assert {volume["folder"] for volume in first.volumes.values()} == {first.folders[0]["id"]}
    status, _ = await cluster.mark(first.store_id, mark="none", folder="second")
    assert status == 200 and (await cluster.node(first.store_id))["drain"] is None


async def test_a_dead_store_is_removed_for_good(start: Any, make_replicas: Callable[..., Any]) -> None:
    cluster = Cluster(await start(**FAST | {"repair_delay_seconds": 500}), await make_replicas(RACK, RACK, RACK), "001")
    volume = await cluster.fill()
    dead = cluster.stores[cluster.other(await cluster.record(volume))]
    status, answer = await cluster.mark(dead.store_id, mark="removed")
    assert status == 409 and "is alive" in answer["error"]
    await dead.go()

    async def removed() -> bool:
        status, _ = await cluster.mark(dead.store_id, mark="removed")
        return status == 200

    await until(removed, "it counts as dead")
    await cluster.full(volume, without=dead.store_id)  # at once: nobody can come back


async def test_what_is_given_up_is_told_before(start: Any, make_replicas: Callable[..., Any]) -> None:
    cluster = Cluster(await start(**FAST | {"repair_delay_seconds": 500}), await make_replicas(RACK, RACK), "001")
    volume = await cluster.fill()
    record = await cluster.record(volume)
    stale = cluster.stores[cluster.other(record)]
    last = cluster.stores[record["primary"]]
    await stale.go()

    async def alone() -> bool:
        return bool((await cluster.record(volume))["inSync"] == [last.store_id])

    await until(alone, "the primary is alone")
    await last.go()

    async def refused() -> Any:
        status, answer = await cluster.mark(last.store_id, mark="removed")
        return answer if status == 409 and "alive" not in answer["error"] else None

    answer = await until(refused, "the removal is refused")
    assert "all their photos are given up" in answer["error"]
    stale.frozen.set()
    await stale.come_back()
    status, plan = await cluster.mark(last.store_id, mark="removed", dryRun=True)
    assert status == 200 and plan["stale"] == {str(volume): stale.store_id for volume in stale.volumes}
    status, answer = await cluster.mark(last.store_id, mark="removed")
    assert status == 409 and "a stale copy takes its place" in answer["error"]
    assert (await cluster.record(volume))["inSync"] == [last.store_id]
    status, answer = await cluster.mark(last.store_id, mark="removed", acceptLoss=True)
    assert status == 200
    assert (await cluster.record(volume))["inSync"] == [stale.store_id]


async def test_marks_and_half_done_repairs_survive_the_directory(
    start: Any, make_replicas: Callable[..., Any], tmp_path: Path
) -> None:
    data = tmp_path / "first"
    directory = await start(**FAST, data=data)
    cluster = Cluster(directory, await make_replicas(RACK, RACK, RACK), "001")
    volume = await cluster.fill()
    drained = (await cluster.record(volume))["primary"]
    for store in cluster.stores.values():
        store.follow_gate.clear()
    await cluster.mark(drained, mark="draining")

    async def running() -> Any:
        return [one for one in (await cluster.repair())["running"] if one["copiedBytes"] == 1]

    (one, *_) = await until(running, "a copy is made")
    assert one["action"] == "copy" and one["totalBytes"] > 1
    # Another Directory with the same content, as after a crash in the midst of it.
    async with directory.session.get(directory.base + "/internal/backup") as answer:
        body = await answer.read()
        assert answer.headers["X-Haystack-Checksum"] == xxhash.xxh3_64(body).hexdigest()
        assert answer.content_length == len(body)
    other = tmp_path / "other"
    other.mkdir()
    (other / STORAGE_NAME).write_bytes(body)
    cluster.directory = await start(**FAST, data=other)
    for store in cluster.stores.values():
        await store.go()
        store.frozen.set()
        await store.join(cluster.directory.base)
        store.follow_gate.set()
    assert (await cluster.node(drained))["mark"] == "draining"
    await cluster.full(volume, without=drained)


async def test_the_operators_calls_are_signed(start: Any) -> None:
    directory = await start(secret=SECRET)
    for path, method in (
        ("/cluster/nodes/x/mark", "POST"),
        ("/cluster/repair", "POST"),
        ("/internal/backup", "GET"),
    ):
        status, answer = await directory.call(path, method)
        assert status == 401 and "signed" in answer["error"]
    for path in ("/cluster/nodes", "/cluster/repair"):
        assert (await directory.call(path))[0] == 200


async def test_nonsense_is_refused_in_words(directory: Any, make_replicas: Callable[..., Any]) -> None:
    (store,) = await make_replicas(RACK)
    await store.join(directory.base)
    for path, body, expected, words in (
        ("/cluster/nodes/nobody/mark", {"mark": "none"}, 404, "no Store 'nobody'"),
        (f"/cluster/nodes/{store.store_id}/mark", {"mark": "odd"}, 400, "none of none, readonly"),
        (f"/cluster/nodes/{store.store_id}/mark", {"mark": "none", "folder": "x"}, 400, "no data folder"),
        ("/cluster/repair", {"volumes": [99]}, 400, "volume 99 is not known"),
    ):
        status, answer = await directory.call(path, "POST", json=body)
        assert status == expected and words in answer["error"], answer


async def test_a_backup_is_a_storage_again(directory: Any, make_replicas: Callable[..., Any], tmp_path: Path) -> None:
    (store,) = await make_replicas(RACK)
    await directory.with_store(store)
    async with directory.session.get(directory.base + "/internal/backup") as answer:
        (tmp_path / "copy").write_bytes(await answer.read())
    storage = LmdbStorage(tmp_path / "copy")
    assert len(scan_all(storage, Table.VOLUMES)) == 7
    storage.close()


async def test_nothing_is_done_before_the_stores_that_volumes_name_are_heard(
    start: Any, make_replicas: Callable[..., Any]
) -> None:
    """A Directory that lost its disk knows of Stores from volumes alone at first."""
    directory = await start(**FAST)
    first, second = await make_replicas(RACK, RACK)
    membership = {"epoch": 4, "primary": second.store_id, "inSync": [second.store_id, first.store_id]}
    for store in (first, second):
        store.volumes[7] = store.volume(7, uuid="7" * 32, replication="001", **membership)
    await first.join(directory.base)
    _, repair = await directory.call("/cluster/repair")
    assert (repair["settled"], repair["waitingFor"]) == (False, [second.store_id])
    _, status = await directory.call("/dir/status")
    assert [(one["volume"], one["primary"]) for one in status["Volumes"]] == [(7, second.store_id)]
    await second.join(directory.base)

    async def settled() -> bool:
        _, answer = await directory.call("/dir/assign?dataCenter=dc1")
        return "fid" in answer

    await until(settled, "photos are taken")
    _, status = await directory.call("/dir/status")
    record = next(one for one in status["Volumes"] if one["volume"] == 7)
    assert (record["epoch"], set(record["inSync"])) == (4, {first.store_id, second.store_id})
    # New ones are far above: a Store that is not back yet may hold ids that nobody knows of.
    assert all(one["volume"] == 7 or one["volume"] > 10_000 for one in status["Volumes"])


async def test_a_rebuilt_directory_says_how_far_it_is(directory: Any, make_replicas: Callable[..., Any]) -> None:
    (store,) = await make_replicas(RACK)
    store.volumes[5] = store.volume(5, sizeBytes=9000)
    await store.register(directory.base)

    async def confirmed() -> dict[str, Any]:
        _, document = await directory.call("/cluster/status")
        result: dict[str, Any] = document["Confirmed"]
        return result

    before = await confirmed()
    assert before["stores"] == 1 and before["volumesConfirmed"] < before["volumes"]
    await store.confirm(directory.base, 5, 0, 5000, [])
    assert (await confirmed())["volumesConfirmed"] == before["volumesConfirmed"]
    await store.confirm(directory.base, 5, 5000, 9000, [])
    assert (await confirmed())["volumesConfirmed"] == before["volumesConfirmed"] + 1
