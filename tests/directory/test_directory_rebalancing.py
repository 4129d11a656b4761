"""Rebalancing over HTTP with stand-in Stores: plans, runs, stops, what happens by itself, decisions and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from directory_fakes import until
from replica_cluster import RACK, SINGLE, Cluster

from haystack.units import MIB

OPTIONS = SINGLE | {"move_linger_seconds": 0.0, "writable_volumes": 6, "dead_after_seconds": 30.0}
KNOWN_SECONDS = 100.0


class HotCluster(Cluster):
    """A cluster whose Stores tell how hot their copies are."""

    def __init__(self, directory: Any, stores: list[Any]) -> None:
        super().__init__(directory, stores, "000")
        self.loads: dict[int, float] = {}

    async def heat(self, loads: dict[int, float]) -> None:
        """Have each Store tell the heat of its volumes: of all copies together as given, evenly shared."""
        self.loads |= loads
        copies = {v: sum(v in store.volumes for store in self.stores.values()) for v in self.loads}
        for store in self.stores.values():
            rows = [
                [volume, 1, KNOWN_SECONDS, *[load / copies[volume], 0.0, 0.0] * 3]
                for volume, load in self.loads.items()
                if volume in store.volumes
            ]
            for one in store.volumes.values():
                one["sizeBytes"] = MIB
            heat = {"knownSeconds": KNOWN_SECONDS, "volumes": rows}
            status, answer = await store.heartbeat(self.directory.base, *store.volumes.values(), heat=heat)
            assert (status, answer["known"]) == (200, True)

    async def rebalance(self, **order: Any) -> dict[str, Any]:
        status, answer = await self.directory.call("/cluster/rebalance", "POST", json=order)
        assert status == 200, answer
        result: dict[str, Any] = answer
        return result

    async def finished(self) -> dict[str, Any]:
        async def over() -> Any:
            _, state = await self.directory.call("/cluster/rebalance")
            return state["run"] if state["run"] and state["run"]["finishedMs"] else None

        result: dict[str, Any] = await until(over, "the run is over", 20)
        return result

    def on(self, store_id: str) -> list[int]:
        return sorted(self.stores[store_id].volumes)

    async def uneven(self) -> str:
        """Make one Store hot; returns its id."""
        await self.fill()
        hot = next(store_id for store_id, store in self.stores.items() if len(store.volumes) >= 2)
        await self.heat({v: 400.0 if v in self.stores[hot].volumes else 20.0 for v in self.volumes()})
        return hot

    def volumes(self) -> list[int]:
        return sorted({volume for store in self.stores.values() for volume in store.volumes})


@pytest.fixture
async def cluster(start: Any, make_replicas: Callable[..., Any]) -> HotCluster:
    return HotCluster(await start(**OPTIONS), await make_replicas(RACK, RACK, RACK))


async def test_a_plan_is_told_and_changes_nothing(cluster: HotCluster) -> None:
    hot = await cluster.uneven()
    before = cluster.on(hot)
    plan = await cluster.rebalance(dryRun=True)
    assert plan["applied"] is False and plan["run"] is None
    assert plan["worstBefore"] > 1.5 and plan["worstAfter"] < plan["worstBefore"]
    assert plan["bytes"] == sum(step["bytes"] for step in plan["steps"]) >= plan["leastBytes"] > 0
    assert all(step["reason"] and step["sourceUrl"] for step in plan["steps"])
    assert {one["storeId"] for one in plan["machines"]} == set(cluster.stores)
    assert cluster.on(hot) == before and "rebalance_auto is off" in plan["automatic"]
    assert (await cluster.directory.call("/cluster/decisions"))[1] == {"decisions": []}


async def test_a_plan_is_carried_out_and_the_next_one_is_empty(cluster: HotCluster) -> None:
    hot = await cluster.uneven()
    before = cluster.on(hot)
    plan = await cluster.rebalance()
    run = await cluster.finished()
    assert plan["applied"] is True and run["steps"]["done"] == sum(plan["counts"].values()), run
    assert (run["by"], run["errors"], run["copiedBytes"], run["stopped"]) == ("operator", [], plan["bytes"], False)
    moved = [step["volume"] for step in plan["steps"] if step["kind"] == "move" and step["source"] == hot]
    assert moved and cluster.on(hot) == sorted(set(before) - set(moved))
    await cluster.heat({})
    second = await cluster.rebalance()
    assert second["steps"] == [] and second["run"] is None and second["reason"]
    _, decisions = await cluster.directory.call("/cluster/decisions?limit=5")
    assert all(one["by"] == "operator" and one["why"] for one in decisions["decisions"])
    async with cluster.directory.session.get(cluster.directory.base + "/metrics") as answer:
        page = await answer.text()
    assert f'rebalance_steps_total{{outcome="done"}} {float(run["steps"]["done"])}' in page
    assert "haystack_directory_rebalance_runs_total 1.0" in page


async def test_a_very_hot_volume_gets_a_temporary_copy_with_its_weights(cluster: HotCluster) -> None:
    await cluster.fill()
    volume = cluster.volumes()[0]
    await cluster.heat({v: 3000.0 if v == volume else 10.0 for v in cluster.volumes()})
    plan = await cluster.rebalance()
    run = await cluster.finished()
    assert run["errors"] == [] and plan["counts"].get("add", 0) >= 1
    record = await cluster.record(volume)
    assert len(record["inSync"]) == len(record["members"]) >= 2 and record["extraCopies"] >= 1
    last = [step for step in plan["steps"] if step["volume"] == volume][-1]
    planned = {cluster.stores[store].url: weight for store, weight in last["weights"].items()}

    async def told() -> bool:
        _, lookup = await cluster.directory.call(f"/dir/lookup?volumeId={volume}")
        weights = {location["url"]: location["weight"] for location in lookup["locations"]}
        return weights == planned or (not planned and len(set(weights.values())) == 1)

    await until(told, "lookups name all copies with their weights, once their Stores have reported them")


async def test_a_run_excludes_another_and_can_be_stopped(cluster: HotCluster) -> None:
    hot = await cluster.uneven()
    for store in cluster.stores.values():
        store.follow_gate.clear()
    plan = await cluster.rebalance()
    status, refused = await cluster.directory.call("/cluster/rebalance", "POST", json={})
    # While its volumes are being moved nothing is to be planned, or a plan is refused.
    assert status == 409 or not refused["steps"], refused
    assert (await cluster.directory.call("/cluster/rebalance"))[1]["running"] is True
    _, stopped = await cluster.directory.call("/cluster/rebalance/stop", "POST", json={})
    assert stopped == {"stopped": True}
    for store in cluster.stores.values():
        store.follow_gate.set()
    run = await cluster.finished()
    assert run["stopped"] and run["steps"]["done"] + run["steps"]["skipped"] == len(plan["steps"])
    assert cluster.on(hot) is not None
    _, again = await cluster.directory.call("/cluster/rebalance/stop", "POST", json={})
    assert again == {"stopped": False}


async def test_it_happens_by_itself_once_two_looks_agree(start: Any, make_replicas: Callable[..., Any]) -> None:
    options = OPTIONS | {"rebalance_auto": True, "rebalance_look_seconds": 0.1, "rebalance_watch_seconds": 0.0}
    cluster = HotCluster(await start(**options), await make_replicas(RACK, RACK, RACK))
    hot = await cluster.uneven()
    before = cluster.on(hot)
    run = await cluster.finished()
    assert run["by"] == "rebalance" and run["steps"]["done"] >= 1
    assert cluster.on(hot) != before
    await cluster.heat({})

    async def rests() -> bool:
        _, state = await cluster.directory.call("/cluster/rebalance")
        return state["auto"] and "nothing is done" in state["automatic"]

    await until(rests, "it says that nothing is to be done")
    assert (await cluster.finished())["startedMs"] == run["startedMs"], "nothing was begun again"


async def test_nothing_happens_by_itself_before_stores_have_watched(
    start: Any, make_replicas: Callable[..., Any]
) -> None:
    options = OPTIONS | {"rebalance_auto": True, "rebalance_look_seconds": 0.05, "rebalance_watch_seconds": 500.0}
    cluster = HotCluster(await start(**options), await make_replicas(RACK, RACK, RACK))
    await cluster.uneven()

    async def waits() -> bool:
        _, state = await cluster.directory.call("/cluster/rebalance")
        assert state["run"] is None
        return "500 are waited for" in state["automatic"]

    await until(waits, "it says what it waits for")
    await asyncio.sleep(0.3)  # several looks long
    assert (await cluster.directory.call("/cluster/rebalance"))[1]["run"] is None
