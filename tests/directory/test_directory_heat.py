"""What the Directory makes of the heat that Stores tell, and of the weights that copies are given."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from math import exp
from typing import Any

import pytest
from directory_fakes import SECRET, FakeStore, until
from hypothesis import given
from hypothesis import strategies as st
from memory_storage import MemoryStorage

from directory.decisions.spreading import drawn, places_of
from directory.errors import NotPossibleNow
from directory.heat.messages import HeatReport, VolumeRow
from directory.heat.reported import MAX_COUNTED_PHOTOS, SILENT_SECONDS, ClusterHeat
from directory.messages import StoreDocument, parse_heartbeat, parse_registration
from directory.service import Service
from directory.storage.interface import Table
from directory.storage.tables import EQUAL_WEIGHT, VolumeRecord, volume_key
from haystack.errors import InvalidRequest, VolumeNotFound
from haystack.heat import LOAD_BYTES, ZERO_HEAT, Heat, Rates

A, B, C = (f"{digit * 8}-0000-4000-8000-000000000000" for digit in "123")
RACKS = [("dc1", "r1")] * 3


def row(reads: float, size_bytes: float = 0.0) -> list[float]:
    return [reads, size_bytes, reads / 1000] * 3


def report(*volumes: tuple[int, float], known_seconds: float = 60.0, **more: Any) -> HeatReport:
    rows = tuple(VolumeRow(volume, int(reads * 60), known_seconds, tuple(row(reads))) for volume, reads in volumes)
    return HeatReport(known_seconds=known_seconds, volumes=rows, **more)


# -- sums


def test_heat_adds_up_over_copies_and_machines() -> None:
    heat = ClusterHeat()
    heat.take(A, report((1, 10), (2, 5)), 100.0)
    heat.take(B, report((1, 30), known_seconds=5.0), 101.0)
    assert heat.copies(1) == {A: Heat.of_row(row(10)), B: Heat.of_row(row(30))}
    assert heat.volume(1).load() == 40
    assert heat.machine(A).minute == Rates(15, 0, 0.01 + 0.005)
    assert heat.machine(C) == heat.volume(9) == ZERO_HEAT
    assert heat.known_seconds(A, 100.0) == 60.0
    assert heat.known_seconds(B, 111.0) == 15.0
    assert heat.known_seconds(C, 111.0) == 0.0
    one = heat.copy(B, 1)
    assert one is not None and (one.reads, one.since_seconds, one.load()) == (1800, 96.0, 30.0)
    assert heat.copy(C, 1) is heat.copy(A, 9) is None
    assert sorted((store, volume, copy.load()) for store, volume, copy in heat.rows()) == [
        (A, 1, 10),
        (A, 2, 5),
        (B, 1, 30),
    ]
    heat.take(A, report((1, 0)), 102.0)
    assert heat.volume(1).load() == 30
    heat.drop(A, [1, 2, 3])
    heat.drop(C, [1])
    assert heat.machine(A).load() == pytest.approx(0.0, abs=1e-9)
    heat.forget(B)
    assert list(heat.rows()) == []


@given(
    st.lists(
        st.tuples(st.sampled_from([A, B]), st.integers(1, 5), st.one_of(st.just(0.0), st.floats(0.02, 1e6))),
        max_size=40,
    )
)
def test_a_machine_is_the_sum_of_its_volumes(reports: list[tuple[str, int, float]]) -> None:
    heat = ClusterHeat(load_bytes=1000.0)
    for store, volume, reads in reports:
        heat.take(store, HeatReport(1.0, volumes=(VolumeRow(volume, 1, 1.0, tuple(row(reads, 10 * reads))),)), 1.0)
        if reads > 9e5:
            heat.drop(store, [volume])
    for store in (A, B):
        loads = [copy.load(1000.0) for one, _, copy in heat.rows() if one == store]
        assert heat.machine(store).load(1000.0) == pytest.approx(sum(loads), rel=1e-9, abs=1e-6)
        assert all(copy.load(1000.0) == pytest.approx(copy.heat.load(1000.0)) for _, _, copy in heat.rows())


def test_photos_are_merged_over_stores_and_caches() -> None:
    heat = ClusterHeat()
    heat.take(A, report(photos={7: 10.0, 8: 3.0}), 100.0)
    heat.take_photos("a cache", [(7, 5.0), (9, 4.0)], 100.0)
    assert [(one.photo_id, one.reads_per_second) for one in heat.photos(2, 100.0)] == [(7, 15.0), (9, 4.0)]
    assert heat.photos(1, 100.0)[0].by_source == {A: 10.0, "a cache": 5.0}
    heat.take(A, report(), 110.0)  # unchanged
    assert [one.photo_id for one in heat.photos(9, 100.0 + SILENT_SECONDS + 1)] == [7, 8]
    heat.take(A, report(photos={}), 111.0)
    assert heat.photos(9, 111.0)[0].photo_id == 7
    assert heat.photos(9, 130.0) == []


def test_hits_are_handed_over_once() -> None:
    heat = ClusterHeat()
    heat.take(A, report(hits=((7, 10), (8, 1))), 1.0)
    heat.count_hits([(7, 5), (9, 0)])
    assert heat.take_hits() == {7: 15, 8: 1}
    assert heat.take_hits() == {}
    heat.count_hits([(7, 1000)])
    heat.count_hits((photo, 1) for photo in range(100, 100 + 2 * MAX_COUNTED_PHOTOS))
    hits = heat.take_hits()
    assert len(hits) == MAX_COUNTED_PHOTOS and hits[7] == 1000


# -- messages


def test_a_heartbeat_without_heat_is_one_of_an_older_store() -> None:
    beat = parse_heartbeat({"storeId": A, "sequence": 1})
    assert beat.heat == HeatReport()


@pytest.mark.parametrize(
    ("heat", "words"),
    [
        ([], "expected a JSON object"),
        ({"knownSeconds": -1}, "knownSeconds"),
        ({"knownSeconds": float("nan")}, "knownSeconds"),
        ({"volumes": [[1, 2]]}, "volumes"),
        ({"volumes": [[1, 2, 3.0, *row(1)[:-1], "x"]]}, "volumes"),
        ({"volumes": [[1, 2, 3.0, *row(1)[:-1], True]]}, "volumes"),
        ({"volumes": [[1, 2, 3.0, *row(1)[:-1], float("inf")]]}, "volumes"),
        ({"volumes": [[-1, 2, 3.0, *row(1)]]}, "volumes"),
        ({"volumes": 5}, "volumes"),
        ({"photos": [["xyz", 1.0]]}, "photos"),
        ({"photos": [["a", -1.0]]}, "photos"),
        ({"photos": [["a" * 17, 1.0]]}, "photos"),
        ({"hits": [["a", 1.5]]}, "hits"),
        ({"hits": [["a", 1]] * 10_001}, "hits"),
    ],
)
def test_wrong_heat_is_refused_by_name(heat: Any, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        parse_heartbeat({"storeId": A, "sequence": 1, "heat": heat})


@given(
    st.recursive(
        st.none() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=13),
        max_leaves=20,
    )
)
def test_rubbish_is_read_or_refused(value: Any) -> None:
    for name in ("knownSeconds", "volumes", "photos", "hits"):
        try:
            parse_heartbeat({"storeId": A, "sequence": 1, "heat": {name: value}})
        except InvalidRequest:
            continue


# -- weights, without HTTP


def record(weights: dict[str, float] | None = None, in_sync: tuple[str, ...] = (A, B, C)) -> VolumeRecord:
    return VolumeRecord(
        3, "uuid", "002", 1, in_sync[0], in_sync, "writable", 1, None, members=in_sync, weights=weights or {}
    )


def store_document(store_id: str) -> StoreDocument:
    return StoreDocument(store_id, None, f"{store_id[:1]}:80", f"{store_id[:1]}:80", "x:1", "dc1", "r1", "1", 1, 1)


def test_a_copy_without_a_weight_has_the_mean_of_the_others() -> None:
    assert record().weight_of(A) == EQUAL_WEIGHT
    weighed = record({A: 10.0, B: 30.0})
    assert [weighed.weight_of(store) for store in (A, B, C)] == [10.0, 30.0, 20.0]
    assert record({A: 0.0}, (B,)).weight_of(B) == EQUAL_WEIGHT


def test_weights_are_kept_with_the_record_and_go_with_the_copy() -> None:
    weighed = record({A: 10.0, B: 0.0})
    assert VolumeRecord.unpack(3, weighed.pack()) == weighed
    assert "weights" not in record().pack()
    assert VolumeRecord.unpack(3, record({A: 10.0, B: 5.0}, (B, C)).pack()).weights == {B: 5.0}


def test_when_only_copies_without_weight_are_left_they_share_evenly() -> None:
    first, last = store_document(B), store_document(C)
    places = places_of(record({A: 100.0, B: 0.0, C: 0.0}), [first, last], [store_document(A)])
    assert [(place.store.store_id, place.weight, place.primary) for place in places] == [
        (B, EQUAL_WEIGHT, False),
        (C, EQUAL_WEIGHT, False),
        (A, 0.0, True),
    ]
    assert drawn(places, lambda: 0.99)[-1].store.store_id == A


class Replicated:
    """A Service with one volume on three Stores."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def firsts(self, count: int) -> Counter[str]:
        """Who comes first in so many lookups."""
        return Counter(self.service.places(3)[0].store.store_id for _ in range(count))


@pytest.fixture
async def replicated() -> AsyncIterator[Replicated]:
    service = Service(MemoryStorage(), dead_after_seconds=3.0, dice=random.Random(3).random)
    stores = []
    for store_id in (A, B, C):
        store = FakeStore()
        store.store_id, store.url = store_id, f"127.0.0.1:{store_id[:1]}"
        store.volumes[3] = store.volume(
            3, uuid="99999999-0000-4000-8000-000000000000", replication="002", primary=A, inSync=[A, B, C]
        )
        stores.append(store)
        await service.register(parse_registration(store.document()))
    try:
        yield Replicated(service)
    finally:
        await service.close()


def within(count: int, share: float, n: int, chance: float = 1e-9) -> bool:
    """Whether a count over n draws is as near to its share as it is but for this chance (Hoeffding)."""
    return 2 * exp(-2 * n * (count / n - share) ** 2) > chance


async def test_lookups_follow_the_weights(replicated: Replicated) -> None:
    n = 5000
    assert all(within(replicated.firsts(n)[store], 1 / 3, n) for store in (A, B, C))
    await replicated.service.set_weights(3, {A: 10.0, B: 60.0, C: 30.0})
    firsts = replicated.firsts(n)
    assert all(within(firsts[store], share, n) for store, share in ((A, 0.1), (B, 0.6), (C, 0.3)))
    await replicated.service.set_weights(3, {A: 0.0, B: 100.0, C: 0.0})
    assert replicated.firsts(500) == {B: 500}
    assert [place.weight for place in replicated.service.places(3)] == [100.0, 0.0, 0.0]
    await replicated.service.set_weights(3, {})
    assert len(replicated.firsts(200)) == 3


async def test_weights_are_no_new_epoch(replicated: Replicated) -> None:
    service = replicated.service
    before = service.cluster.records[3]
    kept = await service.set_weights(3, {B: 25})
    assert (kept.epoch, kept.in_sync, kept.weights) == (before.epoch, before.in_sync, {B: 25.0})
    assert service.cluster.records[3].weights == {B: 25.0}
    stored = service.storage.get(Table.VOLUMES, volume_key(3))
    assert stored is not None and VolumeRecord.unpack(3, stored.value) == service.cluster.records[3]


async def test_weights_are_compared_and_set(replicated: Replicated) -> None:
    service = replicated.service
    await service.set_weights(3, {A: 1}, expected={})
    with pytest.raises(NotPossibleNow, match="changed meanwhile"):
        await service.set_weights(3, {A: 2}, expected={})
    assert (await service.set_weights(3, {A: 3}, expected={A: 1.0}, dry_run=True)).weights == {A: 3.0}
    assert service.cluster.records[3].weights == {A: 1.0}


@pytest.mark.parametrize(
    ("volume", "weights", "error"),
    [
        (9, {}, VolumeNotFound),
        (3, {"nobody": 1.0}, InvalidRequest),
        (3, {A: 100.5}, InvalidRequest),
        (3, {A: -1.0}, InvalidRequest),
        (3, {A: float("nan")}, InvalidRequest),
        (3, {A: 0, B: 0, C: 0}, InvalidRequest),
    ],
)
@pytest.mark.parametrize("dry_run", [False, True])
async def test_weights_that_cannot_be(
    replicated: Replicated, volume: int, weights: dict[str, float], error: type[Exception], dry_run: bool
) -> None:
    with pytest.raises(error):
        await replicated.service.set_weights(volume, weights, dry_run=dry_run)
    assert replicated.service.cluster.records[3].weights == {}


async def test_an_epoch_and_a_heartbeat_leave_the_weights_alone(replicated: Replicated) -> None:
    service = replicated.service
    await service.set_weights(3, {A: 5, B: 95})
    store = FakeStore()
    store.store_id, store.url = B, "127.0.0.1:2"
    uuid = "99999999-0000-4000-8000-000000000000"
    store.volumes[3] = store.volume(3, uuid=uuid, replication="002", primary=A, inSync=[A, B, C], epoch=7)
    await service.register(parse_registration(store.document()))
    after = service.cluster.records[3]
    assert (after.epoch, after.weights) == (7, {A: 5.0, B: 95.0})


# -- HTTP


def heat_of(*volumes: tuple[int, float], **more: Any) -> dict[str, Any]:
    return {
        "knownSeconds": 30,
        "volumes": [[volume, int(reads * 30), 30, *row(reads, reads * LOAD_BYTES)] for volume, reads in volumes],
        **more,
    }


async def test_the_hottest_are_told(directory: Any, make_store: Callable[..., Any]) -> None:
    first, second = await make_store(), await make_store()
    await directory.with_store(first)
    second.volumes[50] = second.volume(50)
    await second.register(directory.base)
    await first.heartbeat(directory.base, heat=heat_of((1, 10), (2, 20.5), photos=[["1f", 7.5]]))
    await second.heartbeat(directory.base, heat=heat_of((50, 100), photos=[["1f", 2.5], ["ff", 3]]))
    status, answer = await directory.call("/cluster/heat?limit=2")
    assert status == 200
    assert (answer["windowsSeconds"], answer["loadBytes"]) == ([60, 600, 3600], LOAD_BYTES)
    assert answer["total"]["10m"]["readsPerSecond"] == 130.5
    assert [(one["url"], one["load"], one["state"]) for one in answer["machines"]] == [
        (second.url, 200, "alive"),
        (first.url, 61, "alive"),
    ]
    assert 30 <= answer["machines"][0]["knownSeconds"] < 60
    assert [(one["volume"], one["load"], one["sizeBytes"]) for one in answer["volumes"]] == [
        (50, 200, 4096),
        (2, 41, 4096),
    ]
    [copy] = answer["volumes"][0]["copies"]
    assert (copy["storeId"], copy["url"], copy["weight"], copy["inSync"], copy["load"]) == (
        second.store_id,
        second.url,
        100,
        True,
        200,
    )
    assert copy["heat"]["1h"] == {
        "readsPerSecond": 100,
        "bytesPerSecond": float(f"{100 * LOAD_BYTES:.4g}"),
        "busySecondsPerSecond": 0.1,
    }
    assert [(one["photo"], one["volume"], one["readsPerSecond"]) for one in answer["photos"]] == [
        ("1f", None, 10),
        ("ff", None, 3),
    ]
    assert [one["url"] for one in answer["photos"][0]["sources"]] == [first.url, second.url]
    async with directory.session.get(directory.base + "/metrics") as page:
        text = await page.text()
    assert f'haystack_directory_store_load{{store="{second.url}"}} 200.0' in text
    assert f'haystack_directory_store_reads_per_second{{store="{first.url}",window="10m"}} 30.5' in text


async def test_heat_of_a_store_that_begins_anew_or_falls_silent(start: Any, store: FakeStore) -> None:
    directory = await start(dead_after_seconds=0.4)
    await directory.with_store(store)
    await store.heartbeat(directory.base, heat=heat_of((1, 10), (2, 20)))
    await store.heartbeat(directory.base, removed=[2], heat=heat_of())
    assert [one["volume"] for one in (await directory.call("/cluster/heat"))[1]["volumes"]] == [1]
    store.volumes.pop(2)

    async def cold() -> Any:
        _, answer = await directory.call("/cluster/heat")
        return answer if not answer["volumes"] else None

    answer = await until(cold, "a silent Store has no heat")
    assert (answer["machines"][0]["state"], answer["machines"][0]["load"]) == ("dead", 0)
    await store.heartbeat(directory.base, heat=heat_of())  # it was only cut off: what it has told still counts
    assert [one["volume"] for one in (await directory.call("/cluster/heat"))[1]["volumes"]] == [1]
    store.started_ms += 1
    await store.register(directory.base)
    assert (await directory.call("/cluster/heat"))[1]["volumes"] == []


@pytest.mark.parametrize("query", ["limit=1001", "limit=x", "limit=-1"])
async def test_heat_refuses(directory: Any, query: str) -> None:
    status, _ = await directory.call(f"/cluster/heat?{query}")
    assert status == 400


async def test_reads_of_a_volume_are_told_with_its_heat(directory: Any, store: FakeStore) -> None:
    await directory.with_store(store)
    await store.heartbeat(directory.base, heat=heat_of((3, 100)))
    _, document = await directory.call("/dir/status")
    assert next(one["reads"] for one in document["Volumes"] if one["volume"] == 3) == 3000


async def test_hits_over_http(start: Any, make_store: Callable[..., Any]) -> None:
    directory, store = await start(secret=SECRET), await make_store(SECRET)
    await directory.with_store(store)
    await store.heartbeat(directory.base, heat=heat_of(hits=[["1f", 5], ["2", 1]]))
    assert await store.post(directory.base, "/internal/hits", {}) == (200, {"hits": [["1f", 5], ["2", 1]]})
    assert await store.post(directory.base, "/internal/hits", {}) == (200, {"hits": []})
    assert (await directory.call("/internal/hits", "POST"))[0] == 401


async def test_weights_over_http(start: Any, make_replicas: Callable[..., Any]) -> None:
    directory = await start(dead_after_seconds=30.0, default_replication="001", writable_volumes=1)
    stores = await make_replicas(*RACKS[:2])
    for store in stores:
        await store.join(directory.base)

    async def made() -> Any:
        status, answer = await directory.call("/dir/assign")
        return answer["fid"] if status == 200 else None

    fid = await until(made, "a volume")
    volume = int(fid.partition(",")[0])
    path = f"/cluster/volumes/{volume}/weights"

    async def weigh(**document: Any) -> tuple[int, Any]:
        status, answer = await stores[0].post(directory.base, path, document)
        return status, answer

    idle, busy = stores
    wanted = {idle.url: 0, busy.store_id: 80}
    kept = {idle.store_id: 0.0, busy.store_id: 80.0}
    answer = {"volume": volume, "applied": False, "before": {}, "weights": kept}
    assert await weigh(weights=wanted, dryRun=True) == (200, answer)
    assert await weigh(weights=wanted, expected={busy.url: 1}) == (
        409,
        {"error": f"volume {volume}: its read weights were changed meanwhile; look at them and try again"},
    )
    assert await weigh(weights=wanted, expected={}) == (200, {**answer, "applied": True})
    for _ in range(20):
        _, lookup = await directory.call(f"/dir/lookup?volumeId={volume}")
        assert [(one["url"], one["weight"]) for one in lookup["locations"]] == [(busy.url, 80), (idle.url, 0)]
        assert sum(one["primary"] for one in lookup["locations"]) == 1
        async with directory.session.get(f"{directory.base}/{fid}", allow_redirects=False) as redirect:
            assert redirect.headers["Location"] == f"http://{busy.url}/{fid}"
    for wrong, status in (
        ({"weights": {"nobody": 1}}, 404),
        ({"weights": [1]}, 400),
        ({"weights": {busy.url: "x"}}, 400),
        ({"weights": {busy.url: 101}}, 400),
    ):
        assert (await weigh(**wrong))[0] == status
    assert (await stores[0].post(directory.base, "/cluster/volumes/999/weights", {}))[0] == 404
    assert await weigh(weights=None) == (200, {"volume": volume, "applied": True, "before": kept, "weights": {}})


async def test_weights_must_be_signed(start: Any, make_store: Callable[..., Any]) -> None:
    directory, store = await start(secret=SECRET), await make_store(SECRET)
    await directory.with_store(store)
    body = json.dumps({"weights": {store.url: 5}})
    assert (await directory.call("/cluster/volumes/1/weights", "POST", data=body))[0] == 401
    status, answer = await store.post(directory.base, "/cluster/volumes/1/weights", {"weights": {store.url: 5}})
    assert (status, answer["weights"]) == (200, {store.store_id: 5.0})
