"""What Stores say to the Directory: registrations, heartbeats, confirmations; also after a restart or a loss."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from directory_fakes import SECRET, FakeStore, until

from directory.assigning.ids import LOSS_MARGIN
from haystack.fid import Fid
from haystack.security import AUTH_HEADER, sign

COOKIE = "00000000000000ab"


def needle(key: str, alternate: int = 0, *, kind: int = 0, cookie: str = COOKIE) -> list[Any]:
    return [key, alternate, cookie, 100, "1f" * 8, 1700000000000, kind]


async def problems(directory: Any) -> list[str]:
    _, document = await directory.call("/cluster/status")
    found: list[str] = document["Problems"]
    return found


# -- registration


async def test_a_registration_tells_the_cluster_and_the_period(directory: Any, store: FakeStore) -> None:
    status, answer = await store.register(directory.base)
    assert status == 200
    assert answer["heartbeatSeconds"] == directory.settings.heartbeat_seconds
    assert answer == (await store.register(directory.base))[1]
    _, document = await directory.call("/dir/status")
    assert document["ClusterId"] == answer["clusterId"]


async def test_a_store_of_another_cluster_is_refused(directory: Any, make_store: Callable[..., Any]) -> None:
    first, second = await make_store(), await make_store()
    await directory.with_store(first)
    second.cluster_id = str(uuid4())
    status, answer = await second.register(directory.base)
    assert status == 409 and second.cluster_id in answer["error"]
    _, document = await directory.call("/dir/status")
    assert document["Counts"]["stores"] == 1


async def test_a_directory_that_lost_its_disk_takes_over_what_the_stores_have(
    start: Any, make_store: Callable[..., Any]
) -> None:
    store = await make_store()
    store.cluster_id = str(uuid4())
    store.volumes[41] = store.volume(41, maxKey="abc", epoch=3)
    directory = await start()
    status, answer = await store.register(directory.base)
    assert (status, answer["clusterId"]) == (200, store.cluster_id)
    _, document = await directory.call("/dir/status")
    assert document["Volumes"][0]["volume"] == 41 and document["Volumes"][0]["epoch"] == 3
    _, answer = await directory.call("/dir/assign")
    # Other Stores may hold keys above those of this one, and have not reported yet.
    assert Fid.parse(answer["fid"]).key > 0xABC + LOSS_MARGIN
    while "volumes" not in (answer := (await directory.call("/vol/grow?count=1", "POST"))[1]):
        assert "waits for the Stores" in answer["error"]
    assert min(answer["volumes"]) > 41
    status, answer = await store.confirm(directory.base, 41, 9000, 9500, [needle("2")])
    assert (status, answer) == (200, {"confirmedTo": 0})
    status, answer = await store.confirm(directory.base, 41, 0, 9500, [needle("1"), needle("2")])
    assert (status, answer) == (200, {"confirmedTo": 9500})


async def test_a_directory_that_lost_its_disk_gives_no_number_twice_when_an_empty_store_comes_first(
    start: Any, make_store: Callable[..., Any]
) -> None:
    empty, full = await make_store(), await make_store()
    empty.cluster_id = full.cluster_id = str(uuid4())
    full.volumes[1] = full.volume(1)
    directory = await start()
    assert (await empty.register(directory.base))[0] == 200
    asked = asyncio.create_task(directory.call("/dir/assign"))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(asked), 0.5)  # time enough to grow, if it were allowed
    assert not empty.volumes
    assert (await full.register(directory.base))[0] == 200
    status, answer = await asked
    assert status == 200 and Fid.parse(answer["fid"]).volume == 1
    _, document = await directory.call("/cluster/status")
    assert not [line for line in document["Problems"] if "volume 1 " in line]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"storeId": "x"}, "'storeId' must be a UUID"),
        ({"url": "no port"}, "'url'"),
        ({"url": 'a:1"><script>'}, "'url'"),
        ({"publicUrl": "javascript:alert(1)//"}, "'publicUrl'"),
        ({"volumes": {}}, "'volumes' must be a list"),
        ({"volumes": [{"volume": 0}]}, "'volume'"),
        ({"volumes": [3]}, "expected a JSON object"),
        ({"folders": [{"id": "f", "path": "/d", "totalBytes": -1}]}, "'totalBytes'"),
        ({"workers": True}, "'workers'"),
        ({"rack": "x" * 5000}, "'rack'"),
    ],
)
async def test_a_malformed_registration_is_refused_by_field(
    directory: Any, store: FakeStore, change: dict[str, Any], words: str
) -> None:
    status, answer = await store.post(directory.base, "/internal/stores/register", {**store.document(), **change})
    assert status == 400 and words in answer["error"]


@pytest.mark.parametrize("change", [{"state": "odd"}, {"maxKey": "0x1"}, {"uuid": "u"}, {"sizeBytes": 1.5}])
async def test_a_malformed_volume_is_refused(directory: Any, store: FakeStore, change: dict[str, Any]) -> None:
    store.volumes[1] = store.volume(1, **change)
    status, answer = await store.register(directory.base)
    assert status == 400 and repr(next(iter(change))) in answer["error"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
@pytest.mark.parametrize("call", ["stores/register", "stores/heartbeat", "confirm"])
async def test_rubbish_is_refused(directory: Any, store: FakeStore, call: str, body: bytes) -> None:
    status, answer = await store.post(directory.base, f"/internal/{call}", body)
    assert status == 400 and answer["error"]


# -- signatures


async def test_with_a_secret_only_signed_calls_count(start: Any, make_store: Callable[..., Any]) -> None:
    directory = await start(secret=SECRET)
    store = await make_store(SECRET)
    body = json.dumps(store.document()).encode()
    path = "/internal/stores/register"
    good = sign(SECRET, "POST", path, body, now=0)
    for headers in ({}, {AUTH_HEADER: "v1:1:2:3"}, {AUTH_HEADER: good}):
        status, answer = await directory.call(path, "POST", data=body, headers=headers)
        assert status == 401 and answer["error"]
    await directory.with_store(store)  # signed both ways: the fake Store verifies, too
    assert (await directory.call("/dir/assign"))[0] == 200
    headers = {AUTH_HEADER: sign(SECRET, "POST", path, body, now=time.time())}
    assert (await directory.call(path, "POST", data=body, headers=headers))[0] == 200
    assert (await directory.call(path, "POST", data=body, headers=headers))[0] == 401  # replayed


# -- heartbeats


async def test_a_heartbeat_of_a_stranger_asks_for_a_registration(directory: Any, store: FakeStore) -> None:
    assert await store.heartbeat(directory.base) == (200, {"known": False})
    await store.register(directory.base)
    assert await store.heartbeat(directory.base) == (200, {"known": True})


async def test_a_late_heartbeat_changes_nothing(directory: Any, store: FakeStore) -> None:
    await directory.with_store(store)
    full = {**store.volumes[1], "state": "readonly"}
    await store.heartbeat(directory.base, full)
    store.sequence -= 1
    await store.heartbeat(directory.base, store.volumes[1])
    _, document = await directory.call("/dir/status")
    assert document["Volumes"][0]["state"] == "readonly"


async def test_a_failed_folder_takes_no_photos(directory: Any, store: FakeStore) -> None:
    await directory.with_store(store)
    folder = {**store.folders[0], "state": "failed", "error": "input/output error"}
    await store.heartbeat(directory.base, folders=[folder])
    status, answer = await directory.call("/dir/assign")
    assert status == 503 and "the folder is failed" in answer["error"]
    assert any("input/output error" in problem for problem in await problems(directory))


async def test_a_reported_key_moves_the_ids(directory: Any, store: FakeStore) -> None:
    await directory.with_store(store)
    await store.heartbeat(directory.base, {**store.volumes[1], "maxKey": "fff"})
    _, answer = await directory.call("/dir/assign")
    assert Fid.parse(answer["fid"]).key == 0x1000


async def test_volumes_that_are_being_recovered_are_waited_for(directory: Any, store: FakeStore) -> None:
    for volume in range(1, 8):
        store.volumes[volume] = store.volume(volume, state="recovering")
    await store.register(directory.base)
    assign = asyncio.create_task(directory.call("/dir/assign"))
    await asyncio.sleep(0.15)  # several rounds of the keeper, which must not make seven more volumes
    await store.heartbeat(directory.base, {**store.volumes[4], "state": "writable"})
    status, answer = await assign
    assert status == 200 and answer["fid"].startswith("4,")
    assert store.made == []


# -- copies that do not belong


async def test_another_volume_of_the_same_id_is_reported_and_not_used(
    directory: Any, make_store: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    first, second = await make_store(), await make_store()
    await directory.with_store(first)
    second.volumes[3] = second.volume(3)
    await second.register(directory.base)
    for _ in range(3):
        await second.heartbeat(directory.base, {**second.volumes[3], "reads": 5})
    (problem,) = await problems(directory)
    assert "volume 3" in problem and second.volumes[3]["uuid"] in problem and second.store_id in problem
    assert sum(problem in record.getMessage() for record in caplog.records) == 1
    _, answer = await directory.call("/dir/lookup?volumeId=3")
    assert [location["url"] for location in answer["locations"]] == [first.url]
    status, answer = await second.confirm(directory.base, 3, 0, 5000, [needle("1")])
    assert status == 409 and second.store_id in answer["error"]
    await second.heartbeat(directory.base, removed=[3])
    assert await problems(directory) == []


async def test_an_extra_copy_takes_over_when_the_first_is_lost(directory: Any, make_store: Callable[..., Any]) -> None:
    first, second = await make_store(), await make_store()
    await directory.with_store(first)
    second.volumes[3] = second.volume(3, uuid=first.volumes[3]["uuid"])
    await second.register(directory.base)
    (problem,) = await problems(directory)
    assert "extra copy" in problem
    await first.heartbeat(directory.base, removed=[3])

    async def moved() -> bool:
        _, answer = await directory.call("/dir/lookup?volumeId=3")
        return bool([location["url"] for location in answer.get("locations", [])] == [second.url])

    await until(moved, "the extra copy is used")
    _, document = await directory.call("/dir/status")
    record = document["Volumes"][2]
    assert (record["primary"], record["inSync"], record["epoch"]) == (second.store_id, [second.store_id], 2)
    assert await problems(directory) == []


# -- confirmations


async def test_confirmations_go_in_order_and_may_be_repeated(directory: Any, store: FakeStore) -> None:
    await directory.with_store(store)

    async def confirm(begin: int, end: int, *needles: list[Any], generation: int = 0) -> int:
        status, answer = await store.confirm(directory.base, 3, begin, end, list(needles), {"generation": generation})
        assert status == 200
        confirmed: int = answer["confirmedTo"]
        return confirmed

    async def known(photo: str) -> bool:
        return bool((await directory.call(f"/photos/{photo}"))[0] == 200)

    assert await confirm(100, 200, needle("1")) == 0  # a gap
    assert not await known("1")
    assert await confirm(0, 100, needle("1")) == 100
    assert await confirm(100, 200, needle("1", kind=1), needle("2")) == 200
    assert await confirm(0, 100, needle("1")) == 200  # an old one comes again, and must not bring the photo back
    assert not await known("1") and await known("2")
    assert await confirm(300, 400, needle("3")) == 200
    assert not await known("3")
    assert await confirm(100, 300, needle("1", kind=1), needle("2"), needle("3")) == 300  # overlapping
    assert await confirm(300, 350) == 350  # nothing but progress
    assert await known("3") and not await known("1")
    assert await confirm(10, 20, needle("4"), generation=1) == 0  # a compacted volume begins anew
    assert await confirm(0, 20, needle("2"), needle("4"), generation=1) == 20
    assert await known("4")


async def test_confirmed_keys_move_the_ids(directory: Any, store: FakeStore) -> None:
    await directory.with_store(store)
    await store.confirm(directory.base, 3, 0, 100, [needle("ff"), needle("ffffffffffffffff")])
    _, answer = await directory.call("/dir/assign")
    assert Fid.parse(answer["fid"]).key == 0x100


async def test_an_upload_cannot_take_the_place_of_another_photo(directory: Any, store: FakeStore) -> None:
    await directory.with_store(store)
    await store.confirm(directory.base, 3, 0, 100, [needle("1")])
    await store.confirm(directory.base, 4, 0, 100, [needle("1", cookie="00000000000000cd")])
    _, answer = await directory.call("/photos/1")
    assert (answer["volume"], answer["cookie"]) == (3, COOKIE)


@pytest.mark.parametrize(
    ("changes", "expected", "words"),
    [
        ({"volume": 99}, 404, "volume 99 is not known"),
        ({"storeId": str(uuid4())}, 409, "its copy is not in use"),
        ({"to": -5}, 400, "'to'"),
        ({"from": 9, "to": 8}, 400, "'to'"),
        ({"needles": [["zz", 0, COOKIE, 1, "1", 1, 0]]}, 400, "needle must be"),
        ({"needles": [["1", 0, COOKIE, 1, "1", 1, 2]]}, 400, "needle must be"),
        ({"needles": [["1", 2**32, COOKIE, 1, "1", 1, 0]]}, 400, "needle must be"),
        ({"needles": [["1", 0, COOKIE]]}, 400, "needle must be"),
        ({"needles": [None]}, 400, "needle must be"),
    ],
)
async def test_what_cannot_be_confirmed(
    directory: Any, store: FakeStore, changes: dict[str, Any], expected: int, words: str
) -> None:
    await directory.with_store(store)
    status, answer = await store.confirm(directory.base, 3, 0, 100, [needle("1")], changes)
    assert status == expected and words in answer["error"]
    assert (await directory.call("/photos/1"))[0] == 404


async def test_a_volume_that_lost_its_end_is_confirmed_anew(directory: Any, store: FakeStore) -> None:
    await directory.with_store(store)
    await store.confirm(directory.base, 3, 0, 50_000, [needle("1")])
    await store.register(directory.base)  # the same Store process: its sizes may be older than its confirmations
    assert (await store.confirm(directory.base, 3, 50_000, 50_100, []))[1] == {"confirmedTo": 50_100}
    store.started_ms += 1
    await store.register(directory.base)  # restarted, and the volume ends at 4096
    assert (await store.confirm(directory.base, 3, 50_100, 50_200, []))[1] == {"confirmedTo": 0}


# -- restarts


async def test_a_lost_disk_is_filled_again_by_the_stores(directory: Any, start: Any, store: FakeStore) -> None:
    await directory.with_store(store)
    _, before = await directory.call("/dir/assign")
    status, answer = await store.register(directory.base)
    assert status == 200
    store.cluster_id = answer["clusterId"]
    store.volumes[3]["maxKey"] = f"{Fid.parse(before['fid']).key:x}"
    fresh = await start(data=directory.settings.data.with_name("fresh"))
    assert (await store.register(fresh.base))[1]["clusterId"] == store.cluster_id
    _, after = await fresh.call("/dir/assign")
    assert Fid.parse(after["fid"]).key > Fid.parse(before["fid"]).key
    assert len(store.made) == 7
    status, answer = await fresh.call("/dir/lookup?volumeId=7")
    assert status == 200


async def test_an_offset_that_no_volume_has_is_refused(directory: Any, store: FakeStore) -> None:
    await directory.with_store(store)
    status, answer = await store.confirm(directory.base, 1, 0, 1_795_283_020_799, [])
    assert status == 400 and "wrong tail" in answer["error"]
    assert (await store.confirm(directory.base, 1, 0, 40 * 2**20, []))[0] == 200
