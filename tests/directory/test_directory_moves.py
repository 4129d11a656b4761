"""Moves over HTTP with stand-in Stores: orders, limits, cancelling, what they exclude, and Directories that die."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from directory_fakes import SECRET, until
from replica_cluster import FAST, RACK, SINGLE, Cluster

import directory.moves.mover
import directory.server
from directory.decisions.move_orders import MoveKind, MoveOrder, swap
from directory.membership.memberships import Memberships
from directory.moves.mover import Mover
from directory.moves.record import MoveRecord
from directory.repair.healer import Healer
from directory.service import Service
from directory.settings import STORAGE_NAME
from directory.storage.interface import Table, scan_all
from directory.storage.lmdb_storage import LmdbStorage
from haystack.errors import HaystackError

MOVES = {"move_linger_seconds": 0.0}
ONE = SINGLE | MOVES
TWO = FAST | MOVES | {"repair_delay_seconds": 500.0}


class Movers(Cluster):
    """A cluster, and moves in it."""

    async def order(self, volume: int, kind: str, **order: Any) -> tuple[int, Any]:
        result: tuple[int, Any] = await self.directory.call(f"/cluster/volumes/{volume}/{kind}", "POST", json=order)
        return result

    async def move(self, number: int) -> dict[str, Any]:
        _, document = await self.directory.call("/cluster/moves")
        return next(one for one in document["moves"] if one["id"] == number)

    async def ended(self, number: int, state: str = "done") -> dict[str, Any]:
        async def over() -> Any:
            move = await self.move(number)
            return move if move["finishedMs"] else None

        move: dict[str, Any] = await until(over, f"move {number} is over", 10)
        assert move["state"] == state, move
        return move

    async def at(self, number: int, state: str) -> dict[str, Any]:
        async def there() -> Any:
            move = await self.move(number)
            return move if move["state"] == state else None

        move: dict[str, Any] = await until(there, f"move {number} is {state}", 10)
        return move

    def spare(self, record: dict[str, Any]) -> str:
        return next(store for store in self.stores if store not in record["members"])

    def gate(self, *, closed: bool) -> None:
        for store in self.stores.values():
            store.follow_gate.clear() if closed else store.follow_gate.set()


@pytest.fixture
async def one(start: Any, make_replicas: Callable[..., Any]) -> Movers:
    return Movers(await start(**ONE), await make_replicas(RACK, RACK, RACK), "000")


@pytest.fixture
async def two(start: Any, make_replicas: Callable[..., Any]) -> Movers:
    return Movers(await start(**TWO), await make_replicas(RACK, RACK, RACK), "001")


async def test_a_volume_of_one_copy_moves_to_a_named_store(one: Movers) -> None:
    volume = await one.fill()
    record = await one.record(volume)
    source, target = record["primary"], one.spare(record)
    one.stores[source].volumes[volume]["sizeBytes"] = 7000
    await until(lambda: reported(one, volume, 7000), "the size is known")
    status, plan = await one.order(volume, "move", target=one.stores[target].url, dryRun=True)
    assert status == 200 and plan["applied"] is False and plan["move"] is None
    assert (plan["source"], plan["target"], plan["bytes"]) == (source, target, 7000) and len(plan["steps"]) == 3
    assert not (await one.directory.call("/cluster/moves"))[1]["moves"]
    status, answer = await one.order(volume, "move", target=target)
    assert status == 200 and answer["applied"] is True and answer["move"]["by"] == "operator"
    move = await one.ended(answer["move"]["id"])
    assert (move["copiedBytes"], move["totalBytes"], move["error"]) == (7000, 7000, "") and move["startedMs"]
    after = await one.record(volume)
    assert (after["inSync"], after["members"], after["primary"]) == ([target], [target], target)
    assert volume not in one.stores[source].volumes
    assert one.stores[target].volumes[volume]["sizeBytes"] == 7000


async def reported(cluster: Movers, volume: int, size_bytes: int) -> bool:
    return bool((await cluster.record(volume))["sizeBytes"] == size_bytes)


async def test_one_of_two_copies_moves_and_the_promise_is_kept_all_the_time(two: Movers) -> None:
    volume = await two.fill()
    record = await two.record(volume)
    source, target = record["primary"], two.spare(record)
    status, refused = await two.order(volume, "move", target=target)
    assert status == 400 and "say which one" in refused["error"]
    _, answer = await two.order(volume, "move", source=source)
    assert answer["target"] == target, "placement finds the only one that is left"
    await two.ended(answer["move"]["id"])
    after = await two.full(volume, without=source)
    assert set(after["inSync"]) == {two.other(record), target} and after["primary"] != source
    for store in two.stores.values():
        known = store.memberships.get(volume)
        assert known is None or len(known["inSync"]) >= 2


async def test_a_copy_more_is_kept_and_dropped_by_order(two: Movers) -> None:
    volume = await two.fill()
    record = await two.record(volume)
    _, answer = await two.order(volume, "copy")
    extra = answer["target"]
    await two.ended(answer["move"]["id"])
    after = await two.record(volume)
    assert (after["extraCopies"], len(after["inSync"])) == (1, 3)
    await two.directory.call("/cluster/repair", "POST", json={})  # looks again at once
    await asyncio.sleep(0.3)  # some looks of repair long: nothing may happen
    assert len((await two.record(volume))["inSync"]) == 3
    status, answer = await two.order(volume, "drop", source=extra)
    assert status == 200, answer
    await two.ended(answer["move"]["id"])
    after = await two.record(volume)
    assert (after["extraCopies"], set(after["members"])) == (0, set(record["members"]))
    status, refused = await two.order(volume, "drop", source=record["primary"])
    assert status == 409 and "would keep 1 of its 2" in refused["error"]


async def test_two_volumes_change_places_one_after_the_other(one: Movers) -> None:
    volume = await one.fill()
    first = await one.record(volume)

    async def elsewhere() -> Any:
        _, document = await one.directory.call("/dir/status")
        return next((v for v in document["Volumes"] if v["primary"] != first["primary"]), None)

    other = await until(elsewhere, "another Store has a volume")
    one.gate(closed=True)
    _, a = await one.order(volume, "move", target=other["primary"])
    _, b = await one.order(other["volume"], "move", target=first["primary"])
    await one.at(a["move"]["id"], "copying")
    one.gate(closed=False)
    await one.ended(a["move"]["id"])
    await one.ended(b["move"]["id"])
    assert (await one.record(volume))["inSync"] == [other["primary"]]
    assert (await one.record(other["volume"]))["inSync"] == [first["primary"]]


async def test_what_cannot_be_done_is_refused_with_the_reason(two: Movers) -> None:
    volume = await two.fill()
    record = await two.record(volume)
    source, target = record["primary"], two.spare(record)
    for order, expected, words in (
        ({"source": source, "target": two.other(record)}, 409, "on that Store already"),
        ({"source": target}, 409, "no copy in sync"),
        ({"source": "nobody"}, 404, "no Store 'nobody'"),
    ):
        status, answer = await two.order(volume, "move", **order)
        assert status == expected and words in answer["error"], answer
    assert (await two.order(999, "move"))[0] == 404
    assert (await two.order(volume, "drop"))[0] == 400
    await two.mark(target, mark="readonly")
    status, answer = await two.order(volume, "copy", target=target)
    assert status == 409 and "marked readonly" in answer["error"]
    status, answer = await two.order(volume, "move", source=source)
    assert status == 409 and "no other Store has room" in answer["error"]
    await two.mark(target, mark="none")
    two.gate(closed=True)
    _, answer = await two.order(volume, "move", source=source)
    status, refused = await two.order(volume, "copy")
    assert status == 409 and f"is in move {answer['move']['id']} already" in refused["error"]
    status, _ = await two.directory.call("/cluster/moves/77/cancel", "POST", json={})
    assert status == 404


async def test_a_move_can_be_cancelled_until_it_has_switched(two: Movers) -> None:
    volume = await two.fill()
    record = await two.record(volume)
    source, target = record["primary"], two.spare(record)
    two.gate(closed=True)
    _, answer = await two.order(volume, "move", source=source, target=target)
    number = answer["move"]["id"]
    move = await two.at(number, "copying")
    assert move["copiedBytes"] <= 1 and move["targetUrl"] == two.stores[target].url
    status, plan = await two.directory.call(f"/cluster/moves/{number}/cancel", "POST", json={"dryRun": True})
    assert status == 200 and "is removed" in plan["steps"][1] and (await two.move(number))["state"] == "copying"
    status, _ = await two.directory.call(f"/cluster/moves/{number}/cancel", "POST", json={})
    assert status == 200
    await two.ended(number, "cancelled")
    two.gate(closed=False)
    assert set((await two.record(volume))["members"]) == set(record["members"])
    assert ("delete", volume) in [(call, of) for call, of, _ in two.stores[target].log]
    status, answer = await two.directory.call(f"/cluster/moves/{number}/cancel", "POST", json={})
    assert status == 409 and "over already: cancelled" in answer["error"]
    _, answer = await two.order(volume, "move", source=source, target=target)
    await two.ended(answer["move"]["id"])
    async with two.directory.session.get(two.directory.base + "/metrics") as response:
        text = await response.text()
    assert 'haystack_directory_moves_total{outcome="done"} 1.0' in text
    assert 'haystack_directory_moves_total{outcome="cancelled"} 1.0' in text
    assert "haystack_directory_moves_under_way 0.0" in text


async def test_a_cancel_is_carried_on_by_the_next_directory(
    start: Any, make_replicas: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await start(**TWO, data=tmp_path / "first")
    cluster = Movers(first, await make_replicas(RACK, RACK, RACK), "001")
    volume = await cluster.fill()
    record = await cluster.record(volume)
    source, target = record["primary"], cluster.spare(record)
    cluster.gate(closed=True)
    _, answer = await cluster.order(volume, "move", source=source, target=target)
    number = answer["move"]["id"]
    await cluster.at(number, "copying")
    cluster.stores[target].frozen.clear()  # it answers nobody, so nothing can be removed there
    await first.call(f"/cluster/moves/{number}/cancel", "POST", json={})
    assert (await cluster.move(number))["state"] == "cancelling"
    async with first.session.get(first.base + "/internal/backup") as backup:
        body = await backup.read()
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / STORAGE_NAME).write_bytes(body)
    cluster.directory = await start(**TWO, data=tmp_path / "second")
    cluster.gate(closed=False)
    for store in cluster.stores.values():
        await store.go()
        store.frozen.set()
        await store.join(cluster.directory.base)
    await cluster.ended(number, "cancelled")
    assert set((await cluster.full(volume))["inSync"]) == set(record["inSync"])
    assert volume not in cluster.stores[target].volumes


async def test_a_target_that_counts_already_is_given_up_by_a_cancel(
    two: Movers, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = asyncio.Event()

    async def refuse(*_: object, **__: object) -> bool:
        held.set()
        return False

    volume = await two.fill()
    record = await two.record(volume)
    source, target = two.other(record), two.spare(record)
    with monkeypatch.context() as patch:
        patch.setattr(Memberships, "give_up", refuse)  # the source cannot be given up
        _, answer = await two.order(volume, "move", source=source, target=target)
        number = answer["move"]["id"]
        await held.wait()
        assert set((await two.record(volume))["inSync"]) == {*record["inSync"], target}
        assert (await two.move(number))["state"] == "switching"
        status, answer = await two.directory.call(f"/cluster/moves/{number}/cancel", "POST", json={})
        assert status == 200, answer
    await two.ended(number, "cancelled")
    after = await two.full(volume, without=target)
    assert set(after["inSync"]) == set(record["inSync"]) and volume not in two.stores[target].volumes


async def test_a_store_is_given_no_more_than_its_share_at_once(start: Any, make_replicas: Callable[..., Any]) -> None:
    settings = ONE | {"move_copies": 2, "move_copies_per_store": 1, "writable_volumes": 6}
    cluster = Movers(await start(**settings), await make_replicas(RACK, RACK, RACK, RACK), "000")
    await cluster.fill()

    async def grown() -> Any:
        _, document = await cluster.directory.call("/dir/status")
        return document["Volumes"] if len(document["Volumes"]) >= 6 else None

    volumes = await until(grown, "volumes are made")
    cluster.gate(closed=True)
    numbers = []
    for known in volumes[:5]:
        _, answer = await cluster.order(known["volume"], "move")
        numbers.append(answer["move"]["id"])

    async def copying() -> Any:
        _, document = await cluster.directory.call("/cluster/moves")
        return [one for one in document["moves"] if one["state"] == "copying"]

    await until(copying, "a move has begun")
    for _ in range(10):
        now = await copying()
        busy = [store for one in now for store in (one["source"], one["target"])]
        assert len(now) <= 2 and len(set(busy)) == len(busy)
        await asyncio.sleep(0.05)  # some looks long
    cluster.gate(closed=False)
    for number in numbers:
        await cluster.ended(number)


async def test_moves_go_on_under_the_next_directory(
    start: Any, make_replicas: Callable[..., Any], tmp_path: Path
) -> None:
    directory = await start(**TWO, data=tmp_path / "first")
    cluster = Movers(directory, await make_replicas(RACK, RACK, RACK), "001")
    volume = await cluster.fill()
    record = await cluster.record(volume)
    source, target = record["primary"], cluster.spare(record)
    cluster.gate(closed=True)
    _, answer = await cluster.order(volume, "move", source=source, target=target)
    number = answer["move"]["id"]
    await cluster.at(number, "copying")
    async with directory.session.get(directory.base + "/internal/backup") as backup:
        body = await backup.read()
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / STORAGE_NAME).write_bytes(body)
    cluster.directory = await start(**TWO, data=tmp_path / "second")
    for store in cluster.stores.values():
        await store.go()
        store.frozen.set()
        await store.join(cluster.directory.base)
    assert (await cluster.move(number))["reason"] == "ordered by the operator"
    cluster.gate(closed=False)
    await cluster.ended(number)
    await cluster.full(volume, without=source)


async def test_a_move_that_never_goes_forward_is_given_up(
    start: Any, make_replicas: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory.moves.mover, "PATIENCE_SECONDS", 0.5)
    cluster = Movers(await start(**TWO), await make_replicas(RACK, RACK, RACK), "001")
    volume = await cluster.fill()
    record = await cluster.record(volume)
    source, target = record["primary"], cluster.spare(record)
    cluster.gate(closed=True)
    _, answer = await cluster.order(volume, "move", source=source, target=target)
    await cluster.at(answer["move"]["id"], "copying")
    await cluster.stores[target].go()
    move = await cluster.ended(answer["move"]["id"], "failed")
    assert "silent" in move["error"] or "reached" in move["error"], move
    assert set((await cluster.record(volume))["inSync"]) == set(record["inSync"])
    cluster.stores[target].frozen.set()


async def test_a_volume_is_marked_and_assigned_no_more(one: Movers) -> None:
    volume = await one.fill()
    status, plan = await one.order(volume, "mark", mark="readonly", dryRun=True)
    assert status == 200 and plan["applied"] is False and (await one.record(volume))["mark"] == "none"
    status, answer = await one.order(volume, "mark", mark="readonly")
    assert status == 200 and answer["applied"] is True
    assert (await one.record(volume))["mark"] == "readonly"

    async def another() -> bool:  # one is made in its place
        _, answer = await one.directory.call("/cluster/status")
        return bool(answer["Counts"]["volumesWritable"] >= 2)

    await until(another, "there are enough others")
    for _ in range(20):
        _, assigned = await one.directory.call("/dir/assign")
        assert not assigned["fid"].startswith(f"{volume},")
    _, again = await one.order(volume, "mark", mark="readonly")
    assert "already" in again["steps"][0]
    await one.order(volume, "mark", mark="writable")
    assert (await one.record(volume))["mark"] == "none"
    assert (await one.order(volume, "mark", mark="odd"))[0] == 400
    assert (await one.order(9999, "mark", mark="readonly"))[0] == 404


async def test_what_ended_is_told_for_a_while_and_is_bounded(
    start: Any, make_replicas: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(directory.moves.mover, "MAX_ENDED", 3)
    data = tmp_path / "data"
    cluster = Movers(await start(**ONE, data=data), await make_replicas(RACK, RACK), "000")
    volume = await cluster.fill()

    async def taken() -> Any:
        # A heartbeat that was on its way may make a member of the former source for a moment.
        _, answer = await cluster.order(volume, "move")
        return answer.get("move")

    for _ in range(5):
        await cluster.ended((await until(taken, "the order is taken"))["id"])
    async with cluster.directory.session.get(cluster.directory.base + "/internal/backup") as backup:
        (tmp_path / "copy").write_bytes(await backup.read())
    storage = LmdbStorage(tmp_path / "copy", readonly=True)
    kept = [MoveRecord.unpack(int.from_bytes(key, "big"), one.value) for key, one in scan_all(storage, Table.MOVES)]
    storage.close()
    assert [one.number for one in kept] == [2, 3, 4, 5] and all(one.state.over for one in kept)
    _, document = await cluster.directory.call("/cluster/moves")
    assert [one["id"] for one in document["moves"]] == [5, 4, 3]


async def test_two_orders_of_one_volume_at_the_same_moment_are_one_move(one: Movers) -> None:
    volume = await one.fill()
    one.gate(closed=True)
    answers = await asyncio.gather(*(one.order(volume, "move") for _ in range(4)))
    assert sorted(status for status, _ in answers) == [200, 409, 409, 409], answers
    _, document = await one.directory.call("/cluster/moves")
    assert len(document["moves"]) == 1


async def test_a_swap_and_what_it_is_held_by(
    start: Any, make_replicas: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the planner orders it: the second begins when the first is done, and both wait for a compaction."""
    movers: list[Mover] = []
    compacting: set[int] = set()

    def make(service: Service, memberships: Memberships, healer: Healer, _: Any) -> Mover:
        movers.append(Mover(service, memberships, healer, compacting.__contains__))
        return movers[0]

    monkeypatch.setattr(directory.server, "Mover", make)
    cluster = Movers(await start(**ONE | {"writable_volumes": 4}), await make_replicas(RACK, RACK), "000")
    volume = await cluster.fill()
    (mover,) = movers
    first = await cluster.record(volume)

    async def elsewhere() -> Any:
        _, document = await cluster.directory.call("/dir/status")
        return next((v for v in document["Volumes"] if v["primary"] != first["primary"]), None)

    other = await until(elsewhere, "another Store has a volume")
    pair = swap(volume, first["primary"], other["volume"], other["primary"], "to test it")
    compacting.add(volume)
    assert "being compacted" in mover.refusal(pair[0]) and not mover.refusal(pair[1])
    compacting.clear()
    assert "is in two of these" in await refused(mover, [pair[0], pair[0]])
    assert "comes before it" in await refused(mover, [replace(pair[0], after=0)])
    cluster.gate(closed=True)
    orders = await mover.queue(pair, "rebalance")
    await cluster.at(orders[0].number, "copying")
    held = await cluster.move(orders[1].number)
    assert (held["state"], held["error"], held["by"]) == (
        "waiting",
        f"move {orders[0].number} comes first",
        "rebalance",
    )
    # What has begun keeps a compaction off; what is being compacted keeps a move from beginning.
    _, plan = await cluster.directory.call("/cluster/compactions", "POST", json={"volumes": [volume], "dryRun": True})
    assert "a copy of it is being moved" in plan["volumes"][0]["obstacle"]
    compacting.add(other["volume"])
    cluster.gate(closed=False)
    await cluster.ended(orders[0].number)

    async def waits() -> bool:
        return bool((await cluster.move(orders[1].number))["error"] == "it is being compacted")

    await until(waits, "the second waits for the compaction")
    compacting.clear()
    await cluster.ended(orders[1].number)
    assert (await cluster.record(volume))["inSync"] == [other["primary"]]
    assert (await cluster.record(other["volume"]))["inSync"] == [first["primary"]]


async def test_what_comes_after_a_move_that_was_cancelled_fails(
    start: Any, make_replicas: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    movers: list[Mover] = []

    def make(*parts: Any) -> Mover:
        movers.append(Mover(*parts))
        return movers[0]

    monkeypatch.setattr(directory.server, "Mover", make)
    cluster = Movers(await start(**ONE | {"writable_volumes": 4}), await make_replicas(RACK, RACK), "000")
    await cluster.fill()

    async def two_volumes() -> Any:
        _, document = await cluster.directory.call("/dir/status")
        return document["Volumes"] if len(document["Volumes"]) > 1 else None

    one, other, *_ = await until(two_volumes, "there are volumes")
    cluster.gate(closed=True)
    orders = [MoveOrder(MoveKind.MOVE, one["volume"]), MoveOrder(MoveKind.MOVE, other["volume"], after=0)]
    first, second = await movers[0].queue(orders, "rebalance")
    await cluster.at(first.number, "copying")
    await movers[0].cancel(first.number)
    await cluster.ended(first.number, "cancelled")
    move = await cluster.ended(second.number, "failed")
    assert f"move {first.number}, before it, was cancelled" in move["error"]


async def refused(mover: Mover, orders: list[MoveOrder]) -> str:
    with pytest.raises(HaystackError) as caught:
        await mover.queue(orders, "rebalance")
    assert not mover.active
    return str(caught.value)


async def test_orders_are_signed(start: Any) -> None:
    signed = await start(secret=SECRET)
    for path in ("/cluster/volumes/1/move", "/cluster/volumes/1/mark", "/cluster/moves/1/cancel"):
        status, answer = await signed.call(path, "POST")
        assert status == 401 and "signed" in answer["error"]
    assert (await signed.call("/cluster/moves"))[0] == 200
