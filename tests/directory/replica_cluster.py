"""A Directory and stand-in Stores that keep copies, as the tests of repair and moves look at them."""

from __future__ import annotations

from typing import Any

from directory_fakes import until
from replica_fakes import ReplicaStore

FAST = {
    "heartbeat_seconds": 0.05,
    "dead_after_seconds": 0.6,
    "writable_volumes": 2,
    "repair_delay_seconds": 0.5,
    "default_replication": "001",
}
SINGLE = FAST | {"default_replication": "000"}
RACK = ("dc1", "r1")


class Cluster:
    """A Directory with Stores, and volumes of one replication."""

    def __init__(self, directory: Any, stores: list[ReplicaStore], replication: str) -> None:
        self.directory = directory
        self.stores = {store.store_id: store for store in stores}
        self.replication = replication

    async def fill(self) -> int:
        """Join, have volumes made, and return one of them."""
        for store in self.stores.values():
            await store.join(self.directory.base)
        status, answer = await self.directory.call(f"/dir/assign?replication={self.replication}")
        assert status == 200, answer
        return int(answer["fid"].partition(",")[0])

    async def record(self, volume: int) -> dict[str, Any]:
        _, document = await self.directory.call("/dir/status")
        return next(one for one in document["Volumes"] if one["volume"] == volume)

    async def full(self, volume: int, *, without: str = "", seconds: float = 10) -> dict[str, Any]:
        """Wait for the promised copies, each with what the primary has, told to all; none on ``without``."""

        async def complete() -> Any:
            record = await self.record(volume)
            members = record["inSync"]
            tails = {self.stores[m].volumes[volume]["sizeBytes"] for m in members if volume in self.stores[m].volumes}
            told = all(self.stores[m].memberships.get(volume, {}).get("epoch") == record["epoch"] for m in members)
            done = len(members) == record["copies"] and record["members"] == members and len(tails) == 1 and told
            return record if done and without not in members else None

        result: dict[str, Any] = await until(complete, f"volume {volume} has all its copies", seconds)
        return result

    async def mark(self, store: str, **order: Any) -> tuple[int, Any]:
        result: tuple[int, Any] = await self.directory.call(f"/cluster/nodes/{store}/mark", "POST", json=order)
        return result

    async def node(self, store: str) -> dict[str, Any]:
        _, document = await self.directory.call("/cluster/nodes")
        return next(node for node in document["nodes"] if node["storeId"] == store)

    async def repair(self) -> dict[str, Any]:
        _, document = await self.directory.call("/cluster/repair")
        result: dict[str, Any] = document
        return result

    def other(self, record: dict[str, Any]) -> str:
        return next(str(member) for member in record["inSync"] if member != record["primary"])
