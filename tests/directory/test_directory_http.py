"""The public surface over real sockets, with a Store that is only an admin API."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from directory_fakes import FakeStore, until

from haystack.fid import Fid
from haystack.units import GIB

COOKIE = "00000000000000ab"


def needle(key: str, alternate: int = 0, *, kind: int = 0, size: int = 100, cookie: str = COOKIE) -> list[Any]:
    return [key, alternate, cookie, size, "1f" * 8, 1700000000000, kind]


# -- assign


async def test_assign_names_a_volume_of_the_store(directory: Any, store: FakeStore) -> None:
    await directory.with_store(store)
    assert len(store.made) == 7
    status, answer = await directory.call("/dir/assign")
    assert status == 200
    fid = Fid.parse(answer["fid"])
    assert fid.volume in store.volumes and fid.key > 0
    assert answer == {"fid": str(fid), "url": store.url, "publicUrl": store.url, "count": 1}


@pytest.mark.parametrize(
    "query", ["count=5", "count=5&replication=000", "count=5&collection=x&ttl=3m&disk=ssd&foo=bar"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_assign_with_count(directory: Any, store: FakeStore, method: str, query: str) -> None:
    await directory.with_store(store)
    status, answer = await directory.call(f"/dir/assign?{query}", method)
    assert status == 200 and answer["count"] == 5
    _, following = await directory.call("/dir/assign")
    assert Fid.parse(following["fid"]).key == Fid.parse(answer["fid"]).key + 1


async def test_assign_names_many_photos_at_once(directory: Any, store: FakeStore) -> None:
    await store.register(directory.base)
    status, answer = await directory.call("/dir/assign?photos=5", "POST")
    fids = [Fid.parse(fid) for fid in answer["fids"]]
    assert (status, answer["fid"], len({fid.key for fid in fids})) == (200, str(fids[0]), 5)
    assert len({fid.cookie for fid in fids}) == 5
    assert {fid.volume for fid in fids} == {fids[0].volume}
    assert "fids" not in (await directory.call("/dir/assign?photos=1"))[1]
    assert (await directory.call("/dir/assign?photos=1001"))[0] == 400


async def test_assign_takes_a_form(directory: Any, store: FakeStore) -> None:
    await directory.with_store(store)
    status, answer = await directory.call("/dir/assign?count=2", "POST", data={"count": "3", "replication": ""})
    assert (status, answer["count"]) == (200, 3)
    status, answer = await directory.call("/dir/assign", "POST", json={"count": "3"})
    assert (status, answer["count"]) == (200, 1)
    status, answer = await directory.call("/dir/assign?count=", "POST", data=b"")
    assert (status, answer["count"]) == (200, 1)
    status, answer = await directory.call("/dir/assign?count=0")
    assert (status, answer["count"]) == (200, 1)


@pytest.mark.parametrize(
    ("query", "expected", "words"),
    [
        ("count=x", 400, "not a whole number"),
        ("count=-1", 400, "not a whole number"),
        ("count=1_0", 400, "not a whole number"),
        ("count=%D9%A3", 400, "not a whole number"),
        ("count=" + "9" * 5000, 400, "not a whole number"),
        ("count=10001", 400, "at most 10000"),
        ("replication=01", 400, "three digits"),
        ("replication=001", 503, "replication 001 needs 1 other Store(s) in rack r1"),
        ("replication=199", 400, "20 copies; at most 10"),
        ("dataCenter=nowhere", 503, "no Store is in data center 'nowhere'"),
    ],
)
async def test_assign_refuses_in_words(directory: Any, store: FakeStore, query: str, expected: int, words: str) -> None:
    await directory.with_store(store)
    status, answer = await directory.call(f"/dir/assign?{query}")
    assert status == expected
    assert words in answer["error"]


async def test_assign_goes_where_it_was_asked_to(directory: Any, make_store: Callable[..., Any]) -> None:
    first, second = await make_store(), await make_store()
    second.data_center, second.rack = "dc2", "r9"
    await directory.with_store(first)
    await directory.with_store(second, writable=8)
    for query in ("dataCenter=dc2", "rack=r9", f"dataNode={second.url}"):
        for _ in range(5):
            _, answer = await directory.call(f"/dir/assign?{query}")
            assert answer["url"] == second.url


async def test_without_any_store_assign_says_so(directory: Any) -> None:
    async with directory.session.get(directory.base + "/dir/assign") as answer:
        assert answer.status == 503
        assert answer.headers["Retry-After"]
        assert "no Store has registered" in (await answer.json())["error"]


async def test_the_reason_of_a_store_that_makes_nothing_is_passed_on(directory: Any, store: FakeStore) -> None:
    store.refuse = (507, "the disk is full up to the brim")
    await store.register(directory.base)
    status, answer = await directory.call("/dir/assign")
    assert status == 503
    assert "full up to the brim" in answer["error"]


async def test_an_assign_waits_for_volumes_that_are_being_made(directory: Any, store: FakeStore) -> None:
    store.delay = asyncio.Event()
    await store.register(directory.base)
    await store.asked.wait()
    assigns = [asyncio.create_task(directory.call("/dir/assign")) for _ in range(5)]
    await asyncio.sleep(0)
    store.delay.set()
    for status, answer in await asyncio.gather(*assigns):
        assert status == 200, answer
    assert len(store.made) == 7  # one growth for all of them


async def test_all_volumes_are_used_evenly(directory: Any, store: FakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("directory.service.TABLE_AGE_SECONDS", -1.0)  # every assign is another volume's turn
    await directory.with_store(store)
    answers = await asyncio.gather(*(directory.call("/dir/assign") for _ in range(350)))
    counts = Counter(Fid.parse(answer["fid"]).volume for _, answer in answers)
    assert len(counts) == 7
    assert max(counts.values()) < 100
    assert len({Fid.parse(answer["fid"]).key for _, answer in answers}) == 350
    assert len({Fid.parse(answer["fid"]).cookie for _, answer in answers}) == 350


async def test_one_volume_of_a_folder_takes_the_photos_of_a_moment(
    directory: Any, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("directory.service.TABLE_AGE_SECONDS", 3600.0)
    await directory.with_store(store)
    answers = await asyncio.gather(*(directory.call("/dir/assign") for _ in range(50)))
    assert len({Fid.parse(answer["fid"]).volume for _, answer in answers}) == 1


async def test_full_volumes_are_avoided_and_replaced(directory: Any, store: FakeStore) -> None:
    await directory.with_store(store)
    full = [{**store.volumes[v], "state": "readonly", "reason": "full"} for v in (1, 2)]
    crowded = {**store.volumes[3], "sizeBytes": 31 * GIB}
    await store.heartbeat(directory.base, *full, crowded)

    async def replaced() -> bool:
        return len(store.made) == 10

    await until(replaced, "three more volumes")
    answers = await asyncio.gather(*(directory.call("/dir/assign") for _ in range(100)))
    assert {Fid.parse(answer["fid"]).volume for _, answer in answers} <= set(range(4, 11))
    status, _ = await directory.call("/dir/lookup?volumeId=1")
    assert status == 200


async def test_a_silent_store_gets_no_photos_but_is_still_found(start: Any, store: FakeStore) -> None:
    directory = await start(dead_after_seconds=1.5)
    await directory.with_store(store)

    async def refused() -> Any:
        status, answer = await directory.call("/dir/assign")
        return answer if status == 503 else None

    assert "the Store is silent" in (await until(refused, "the Store counts as dead"))["error"]
    status, answer = await directory.call("/dir/lookup?volumeId=1")
    assert status == 200 and answer["locations"][0]["url"] == store.url
    await store.heartbeat(directory.base)
    status, _ = await directory.call("/dir/assign")
    assert status == 200


# -- lookup, redirect, photos


@pytest.mark.parametrize(
    "query",
    [
        "volumeId=3",
        "volumeId=3&pretty=y",
        "volumeId=3,01637037d6",
        "fileId=3,01637037d6",
        "volumeId=3&collection=turbo",
        "fileId=3@1000,01637037d6",
        "volumeId=%203",
    ],
)
async def test_lookup_finds_a_volume(directory: Any, store: FakeStore, query: str) -> None:
    store.public_url = "photos.example.org:80"
    await directory.with_store(store)
    for method in ("GET", "POST"):
        status, answer = await directory.call(f"/dir/lookup?{query}", method)
        assert status == 200
        assert answer["volumeId"] == "3"
        place = {"url": store.url, "publicUrl": "photos.example.org:80", "dataCenter": "dc1"}
        assert answer["locations"] == [{**place, "weight": 100, "primary": True}]


@pytest.mark.parametrize(
    ("query", "expected", "words"),
    [
        ("volumeId=99", 404, "volume id 99 not found"),
        ("fileId=99,01637037d6", 404, "volume id 99 not found"),
        ("volumeId=abc", 400, "'abc' is not a volume id"),
        ("volumeId=0", 400, "not a volume id"),
        ("volumeId=99999999999", 400, "not a volume id"),
        ("", 400, "volumeId or fileId is missing"),
    ],
)
async def test_lookup_refuses(directory: Any, query: str, expected: int, words: str) -> None:
    status, answer = await directory.call(f"/dir/lookup?{query}")
    assert status == expected and words in answer["error"]


async def test_a_volume_that_its_store_lost_is_not_found_there(directory: Any, store: FakeStore) -> None:
    await directory.with_store(store)
    await store.heartbeat(directory.base, removed=[3])
    status, answer = await directory.call("/dir/lookup?volumeId=3")
    assert status == 503 and store.store_id in answer["error"]
    _, cluster = await directory.call("/cluster/status")
    assert any("volume 3" in problem for problem in cluster["Problems"])


@pytest.mark.parametrize(
    "path",
    [
        f"/3,1f{COOKIE}",
        f"/3,1f{COOKIE}.jpg",
        f"/3,1f{COOKIE}_2?width=5",
        f"/3@1000,1f{COOKIE}",
        f"/3/1f{COOKIE}",
        f"/3/1f{COOKIE}/my%20photo.jpg?x=y%20z",
    ],
)
@pytest.mark.parametrize("public", ["s.example:8080", "https://s.example/store/"])
async def test_a_fid_leads_to_its_store(directory: Any, store: FakeStore, path: str, public: str) -> None:
    store.public_url = public
    await directory.with_store(store)
    base = public.rstrip("/") if "//" in public else f"http://{public}"
    for method in ("GET", "HEAD"):
        url = directory.base + path
        async with directory.session.request(method, url, allow_redirects=False) as answer:
            assert answer.status == 302
            assert answer.headers["Location"] == base + path


@pytest.mark.parametrize(
    ("path", "expected"), [(f"/99,1f{COOKIE}", 404), ("/3,xyz", 400), ("/3/", 400), ("/3@7,1", 400), ("/3", 404)]
)
async def test_what_is_no_fid_leads_nowhere(directory: Any, path: str, expected: int) -> None:
    status, answer = await directory.call(path)
    assert status == expected and answer["error"]


async def test_a_photo_is_known_when_it_is_confirmed(directory: Any, store: FakeStore) -> None:
    await directory.with_store(store)
    status, answer = await directory.call("/photos/1f")
    assert status == 404 and "1f" in answer["error"]
    needles = [needle("1f"), needle("1f", 1, size=50), needle("20")]
    assert await store.confirm(directory.base, 3, 0, 5000, needles) == (200, {"confirmedTo": 5000})
    status, answer = await directory.call("/photos/1F")
    assert status == 200
    assert (answer["id"], answer["volume"], answer["cookie"]) == ("1f", 3, COOKIE)
    assert answer["renditions"] == [
        {
            "alternate": alternate,
            "fid": fid,
            "size": size,
            "checksum": "1f" * 8,
            "timeMs": 1700000000000,
            "urls": [f"http://{store.url}/{fid}"],
        }
        for alternate, fid, size in ((0, f"3,1f{COOKIE}", 100), (1, f"3,1f{COOKIE}_1", 50))
    ]
    deletes = [needle("1f", kind=1), needle("1f", 1, kind=1)]
    assert (await store.confirm(directory.base, 3, 5000, 6000, deletes))[1] == {"confirmedTo": 6000}
    assert (await directory.call("/photos/1f"))[0] == 404
    assert (await directory.call("/photos/20"))[0] == 200
    assert (await directory.call("/photos/xyz"))[0] == 400
    assert (await directory.call("/photos/" + "1" * 17))[0] == 400


# -- growth and the rest


async def test_grow_makes_as_many_as_asked_for(directory: Any, store: FakeStore) -> None:
    await directory.with_store(store)
    status, answer = await directory.call("/vol/grow?count=3", "POST")
    assert (status, answer) == (200, {"count": 3, "volumes": [8, 9, 10]})
    status, answer = await directory.call("/vol/grow", "POST", data={"count": "2"})
    assert (status, answer["count"]) == (200, 2)
    assert sorted(asked["volume"] for asked in store.made) == list(range(1, 13))
    assert {asked["folder"] for asked in store.made} == {store.folders[0]["id"]}
    status, answer = await directory.call("/vol/grow?count=101", "POST")
    assert status == 400
    status, answer = await directory.call("/vol/grow?replication=010", "POST")
    assert status == 503 and "other rack(s) in data center dc1" in answer["error"]


async def test_concurrent_growths_never_use_an_id_twice(directory: Any, make_store: Callable[..., Any]) -> None:
    stores = [await make_store() for _ in range(3)]
    await asyncio.gather(*(store.register(directory.base) for store in stores))
    grown = await asyncio.gather(*(directory.call("/vol/grow?count=5", "POST") for _ in range(4)))
    assert [answer["count"] for _, answer in grown] == [5] * 4
    ids = [asked["volume"] for store in stores for asked in store.made]
    assert len(set(ids)) == len(ids)


async def test_a_growth_that_half_fails_says_so(directory: Any, make_store: Callable[..., Any]) -> None:
    good, bad = await make_store(), await make_store()
    bad.refuse = (500, "broken")
    await directory.with_store(good)
    await bad.register(directory.base)
    await bad.asked.wait()

    async def noted() -> bool:
        status, answer = await directory.call(f"/vol/grow?count=1&dataNode={bad.url}", "POST")
        return bool(status == 503 and "broken" in answer["error"])

    await until(noted, "the failing Store is named")
    status, answer = await directory.call("/vol/grow?count=2", "POST")
    assert (status, answer["count"]) == (200, 2)  # the folder in trouble is left alone
    ids = [asked["volume"] for store in (good, bad) for asked in store.made]
    assert len(set(ids)) == len(ids)


async def test_a_store_that_answers_rubbish_is_not_believed(directory: Any, store: FakeStore) -> None:
    store.refuse = (200, "not a volume document")
    await store.register(directory.base)
    status, answer = await directory.call("/dir/assign")
    assert status == 503 and "answered strangely" in answer["error"]


async def test_status_tells_everything(directory: Any, store: FakeStore) -> None:
    await directory.with_store(store)
    await store.confirm(directory.base, 3, 0, 5000, [needle("1f")])
    status, document = await directory.call("/dir/status")
    assert status == 200
    assert document["Version"]
    assert document["Counts"] == {
        "stores": 1,
        "storesAlive": 1,
        "volumes": 7,
        "volumesWritable": 7,
        "photos": 1,
        "volumesDegraded": 0,
        "volumesUnavailable": 0,
        "copiesRunning": 0,
        "membershipsWaiting": 0,
    }
    (center,) = document["Topology"]["DataCenters"]
    (rack,) = center["Racks"]
    (node,) = rack["DataNodes"]
    assert (center["Id"], rack["Id"], node["Url"], node["Volumes"]) == ("dc1", "r1", store.url, 7)
    assert node["Max"] == node["Free"] + 7 == document["Topology"]["Max"]
    assert document["Topology"]["layouts"][0]["writables"] == [1, 2, 3, 4, 5, 6, 7]
    assert document["Stores"][0]["state"] == "alive"
    assert document["Volumes"][2]["primary"] == store.store_id
    assert document["Volumes"][2]["inSync"] == [store.store_id]
    assert document["Volumes"][2]["epoch"] == 1
    status, cluster = await directory.call("/cluster/status")
    assert cluster["IsLeader"] is True
    assert f"http://{cluster['Leader']}" == directory.base
    assert cluster["Problems"] == []


async def test_the_page_for_people(directory: Any, store: FakeStore) -> None:
    async with directory.session.get(directory.base + "/") as answer:
        text = await answer.text()
    assert answer.status == 200 and answer.content_type == "text/html"
    assert "None yet" in text and "haystack store" in text
    store.data_center = "<script>alert(1)</script>"
    await directory.with_store(store)
    async with directory.session.get(directory.base + "/") as answer:
        text = await answer.text()
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert store.url in text and "<script" not in text and "&lt;script" in text
    assert "prefers-color-scheme: dark" in text
    assert 'src="' not in text and "@import" not in text  # nothing from elsewhere


async def test_health_and_metrics(directory: Any, store: FakeStore) -> None:
    assert (await directory.call("/healthz"))[0] == 200
    assert (await directory.call("/readyz"))[0] == 200
    await directory.with_store(store)
    await directory.call("/dir/assign")
    async with directory.session.get(directory.base + "/metrics") as answer:
        text = await answer.text()
    assert 'haystack_directory_requests_total{call="/dir/assign",status="200"} 1.0' in text
    assert "haystack_directory_writable_volumes 7.0" in text
    assert 'haystack_directory_stores{state="alive"} 1.0' in text


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/nothing/here", 404),
        ("POST", "/nothing", 404),
        ("DELETE", "/dir/assign", 405),
        ("HEAD", "/dir/assign", 405),
        ("HEAD", "/vol/grow", 405),
        ("GET", "/internal/confirm", 405),
        ("PUT", f"/3,1f{COOKIE}", 405),
        ("GET", "/photos/", 404),
    ],
)
async def test_wrong_paths_and_methods_are_answered_in_json(
    directory: Any, method: str, path: str, expected: int
) -> None:
    async with directory.session.request(method, directory.base + path) as answer:
        assert answer.status == expected
        assert answer.content_type == "application/json"
        if method != "HEAD":
            assert (await answer.json())["error"]
        assert ("Allow" in answer.headers) == (expected == 405)


@pytest.mark.parametrize("path", ["/", "/dir/status", "/cluster/status", "/healthz", "/readyz", "/metrics"])
async def test_head_is_get_without_a_body(directory: Any, path: str) -> None:
    async with directory.session.head(directory.base + path) as answer:
        assert answer.status == 200
        assert int(answer.headers["Content-Length"]) > 0
        assert await answer.read() == b""


async def raw(base: str, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(base.rpartition(":")[2]))
    writer.write(data)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.parametrize(
    "data",
    [
        b"RUBBISH\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"POST /dir/assign HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20000 + b"\r\n\r\n",
    ],
)
async def test_broken_http_is_answered_in_json_and_closed(directory: Any, data: bytes) -> None:
    answer = await raw(directory.base, data)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 400 " in head.splitlines()[0]
    assert b"application/json" in head
    assert json.loads(body)["error"]


async def test_bodies_have_a_limit(directory: Any) -> None:
    status, answer = await directory.call("/dir/assign", "POST", data=b"x" * 65_537)
    assert status == 413 and "65536" in answer["error"]

    async def endless() -> Any:
        for _ in range(100):
            yield b"x" * 1000

    status, answer = await directory.call("/dir/assign", "POST", data=endless())
    assert status == 413


async def test_too_many_connections_are_told_so(directory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("directory.connections.MAX_CONNECTIONS", 0)
    answer = await raw(directory.base, b"")
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert "too many connections" in json.loads(answer.partition(b"\r\n\r\n")[2])["error"]


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\nHost: "])
async def test_who_says_nothing_is_hung_up_on(directory: Any, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("directory.connections.FIRST_REQUEST_SECONDS", 0.05)
    assert await raw(directory.base, data) == b""
    async with directory.session.get(directory.base + "/healthz") as first:
        assert first.status == 200
    await asyncio.sleep(0.1)  # longer than the time for the first request, which has been heard
    async with directory.session.get(directory.base + "/healthz") as second:
        assert second.status == 200


async def test_answers_have_no_needless_spaces_unless_pretty(directory: Any, store: FakeStore) -> None:
    await directory.with_store(store)
    for path in ("/dir/assign", "/dir/assign?count=1", "/dir/lookup?volumeId=3"):
        async with directory.session.get(directory.base + path) as answer:
            text = await answer.text()
        assert json.dumps(json.loads(text), separators=(",", ":")) == text
    async with directory.session.get(directory.base + "/dir/lookup?volumeId=3&pretty=y") as answer:
        assert '\n  "volumeId": "3"' in await answer.text()
