"""`haystack cache stats|purge|warm` against a Directory and Caches that answer as their APIs say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from fake_cluster import FakeCluster

from cache.board import Board
from cache.metrics import counters as counters_of_a_cache
from haystack.fid import Fid
from haystack.rendezvous import Node, order
from tools import cli
from tools.caches import (
    RATE_COLUMNS,
    RATES,
    SSD_COUNTERS,
    CacheView,
    CacheWatch,
    difference,
    fetch_milliseconds,
    parse_caches,
    rate_row,
    ratios,
    ssd_line,
    ssd_share,
)

Capture = pytest.CaptureFixture[str]
FIDS = [str(Fid(3, key, 0xC0FFEE)) for key in range(1, 8)]


class CacheCluster(FakeCluster):
    """Its Caches' admin APIs are all at its own address."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies: list[tuple[str, Any]] = []
        self.refuse = False
        self.hottest = FIDS

    def routes(self, app: web.Application) -> None:
        app.router.add_get("/admin/cache", self._cache)
        app.router.add_post("/admin/cache/purge", self._purge)
        app.router.add_post("/admin/cache/warm", self._warm)
        app.router.add_get("/dir/caches", self._caches)
        app.router.add_get("/internal/cache/hottest", self._hottest)

    def cache_document(self, number: int, **changes: Any) -> dict[str, Any]:
        return {
            "cacheId": f"cache-{number}",
            "url": f"127.0.0.1:{8100 + number}",
            "publicUrl": f"127.0.0.1:{8100 + number}",
            "adminUrl": self.url.removeprefix("http://"),
            "state": "alive",
            "lastSeenSecondsAgo": 0.1,
            "memoryBytes": 2**30,
            "workers": 2,
            "version": "0.1.0",
            "startedMs": 1,
            "readsPerSecond": 12.0,
            "counters": {
                "requests": 1000,
                "hits": 750,
                "misses": 200,
                "passes": 50,
                "notFound": 30,
                "usedBytes": 2**29,
                "hitBytes": 9000,
                "missBytes": 500,
                "passBytes": 500,
                "entries": 4321,
                "evictions": 12,
                "fetches": 100,
                "fetchMicroseconds": 250_000,
                "coalesced": 77,
            },
            **changes,
        }

    async def _cache(self, request: web.Request) -> web.Response:
        return await self._signed(request, {"vouched": False, "policy": "s3fifo"})

    async def _purge(self, request: web.Request) -> web.Response:
        self.bodies.append(("purge", await request.json()))
        return await self._signed(
            request, {"error": "no"} if self.refuse else {"purged": 5}, 503 if self.refuse else 200
        )

    async def _warm(self, request: web.Request) -> web.Response:
        fids = (await request.json())["fids"]
        self.bodies.append(("warm", fids))
        return await self._signed(request, {"fetched": len(fids), "present": 0, "failed": 0})

    async def _caches(self, request: web.Request) -> web.Response:
        living = [one for one in self.status["Caches"] if one["state"] == "alive"]
        named = [{"id": one["cacheId"], "url": one["url"], "publicUrl": one["url"], "weight": 1.0} for one in living]
        return web.json_response({"caches": named, "shared": {}})

    async def _hottest(self, request: web.Request) -> web.Response:
        return await self._signed(request, {"fids": self.hottest})


@pytest.fixture(scope="module")
def server() -> Iterator[CacheCluster]:
    server = CacheCluster()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def caches(cluster: CacheCluster) -> CacheCluster:
    """Two Caches, and one that is silent."""
    cluster.status["Caches"] = [
        cluster.cache_document(1),
        cluster.cache_document(2, counters={}),
        cluster.cache_document(3, state="dead"),
    ]
    cluster.bodies.clear()
    cluster.refuse = False
    return cluster


def run(capsys: Capture, *arguments: str, code: int = 0) -> tuple[str, str]:
    found = cli.run(["cache", *arguments])
    out, err = capsys.readouterr()
    assert found == code, (out, err)
    return out, err


# -- stats


def test_stats_show_what_serves(caches: CacheCluster, capsys: Capture) -> None:
    out, _ = run(capsys, "stats", code=1)
    line = next(line for line in out.splitlines() if "127.0.0.1:8101" in line)
    for word in ("alive", "512 MiB", "1.00 GiB", "4,321", "75.0%", "90.0%", "2.5 ms", "77"):
        assert word in line
    assert "dead" in out
    assert "127.0.0.1:8101: follows no Directory at the moment" in out


def test_stats_as_json(caches: CacheCluster, capsys: Capture) -> None:
    caches.status["Caches"].pop()
    found = json.loads(run(capsys, "stats", "--json")[0])["caches"]
    assert [one["cacheId"] for one in found] == ["cache-1", "cache-2"]
    assert found[0]["details"]["policy"] == "s3fifo"


def test_without_a_secret_there_is_what_the_directory_knows(
    caches: CacheCluster, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HAYSTACK_SECRET_FILE")
    assert "75.0%" in run(capsys, "stats", code=1)[0]


@pytest.mark.parametrize("status", [{}, {"Caches": []}])
def test_no_caches_at_all(cluster: CacheCluster, capsys: Capture, status: dict[str, Any]) -> None:
    cluster.status.pop("Caches", None)
    cluster.status.update(status)
    assert "There is no Cache. Start one" in run(capsys, "stats", code=1)[0]


# -- purge


def test_purge_plans_first(caches: CacheCluster, capsys: Capture) -> None:
    out, err = run(capsys, "purge", *FIDS[:2])
    assert "Drop 2 photos from 2 Caches" in out and "Nothing was changed" in err
    assert "127.0.0.1:8103 is silent" in err
    assert not caches.bodies


@pytest.mark.parametrize(
    ("arguments", "body"),
    [
        (FIDS[:2], {"fids": FIDS[:2]}),
        ([f"http://h:1/{FIDS[0]}"], {"fids": FIDS[:1]}),
        (["--volume", "3", "--volume", "4"], {"volumes": [3, 4]}),
        (["--all"], {"all": True}),
    ],
)
def test_purge_tells_every_living_cache(
    caches: CacheCluster, capsys: Capture, arguments: list[str], body: dict[str, Any]
) -> None:
    out, _ = run(capsys, "purge", *arguments, "--apply")
    assert caches.bodies == [("purge", body)] * 2
    assert out.count("5 dropped") == 2


def test_a_purge_that_fails_is_said(caches: CacheCluster, capsys: Capture) -> None:
    caches.refuse = True
    run(capsys, "purge", "--all", "--apply", code=1)


@pytest.mark.parametrize("arguments", [[], ["--all", "--volume", "3"], [FIDS[0], "--all"], ["--volume", "0"]])
def test_purge_wants_one_thing(caches: CacheCluster, capsys: Capture, arguments: list[str]) -> None:
    run(capsys, "purge", *arguments, code=2)


def test_purge_wants_fids(caches: CacheCluster, capsys: Capture) -> None:
    assert "give the fid" in run(capsys, "purge", "1a", code=1)[1]


# -- warm


def test_the_hottest_are_fetched_where_they_belong(caches: CacheCluster, capsys: Capture) -> None:
    out, _ = run(capsys, "warm")
    warmed = [fid for _, fids in caches.bodies for fid in fids]
    assert sorted(warmed) == sorted(FIDS)
    nodes = [Node("cache-1", 1.0), Node("cache-2", 1.0)]
    for name, fids in zip(("cache-1", "cache-2"), (fids for _, fids in caches.bodies), strict=True):
        assert all(order(Fid.parse(fid).key, nodes)[0].id == name for fid in fids)
    assert out.count("fetched") == 2


def test_named_photos_are_fetched(caches: CacheCluster, capsys: Capture) -> None:
    run(capsys, "warm", FIDS[3])
    assert caches.bodies == [("warm", [FIDS[3]])]


def test_no_photo_is_hot_yet(caches: CacheCluster, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "hottest", [])
    out, err = run(capsys, "warm")
    assert "nothing to warm" in err and "0 fetched" in out


def test_a_share_has_no_unit(capsys: Capture) -> None:
    shown = " ".join(run(capsys, "--help")[0].split())
    assert "[default: 0.015625]" in shown and "[default: 75s]" in shown


def test_there_is_nothing_to_warm(caches: CacheCluster, capsys: Capture) -> None:
    caches.status["Caches"] = []
    assert "there is no Cache" in run(capsys, "warm", code=1)[1]


# -- counters


def test_what_is_served_stale_counts_as_from_memory_by_bytes_too() -> None:
    found = ratios({"hits": 1, "stale": 2, "misses": 1, "hitBytes": 10, "staleBytes": 20, "missBytes": 10})
    assert (found.requests, found.bytes) == (0.75, 0.75)


def test_ratios() -> None:
    assert ratios({}) == (ratios({"notFound": 5}))
    found = ratios({"hits": 6, "stale": 2, "misses": 1, "passes": 1, "notFound": 90, "hitBytes": 1, "missBytes": 3})
    assert (found.requests, found.bytes) == (0.8, 0.25)
    assert fetch_milliseconds({"fetches": 4, "fetchMicroseconds": 10_000}) == 2.5
    assert fetch_milliseconds({}) is None


def test_what_was_counted_between_two_readings() -> None:
    before, after = {"hits": 5, "misses": 1}, {"hits": 9, "misses": 1, "fetches": 2}
    assert difference(before, after) == {"hits": 4, "misses": 0, "fetches": 2}
    assert difference(after, {"hits": 3, "misses": 1}) == {"hits": 3, "misses": 1}, "it has begun anew"


def test_a_strange_list_of_caches_is_an_error() -> None:
    from haystack.client.errors import UnexpectedAnswer

    with pytest.raises(UnexpectedAnswer):
        parse_caches({"Caches": [{"url": "x"}]})


# -- rates


def view(ago_seconds: float = 0.0, **counters: float) -> CacheView:
    document = {
        "cacheId": "c",
        "url": "h:1",
        "adminUrl": "h:2",
        "state": "alive",
        "memoryBytes": 1,
        "workers": 1,
        "version": "",
        "readsPerSecond": 0,
        "lastSeenSecondsAgo": ago_seconds,
        "counters": counters,
    }
    return parse_caches({"Caches": [document]})[0]


def test_the_counters_are_those_that_a_cache_tells() -> None:
    told = counters_of_a_cache(Board.create(1)).keys()
    named = {"requests", "hits", "stale", "misses", "passes", "hitBytes", "missBytes", "passBytes", "usedBytes"}
    named |= {"entries", "evictions", "fetches", "fetchMicroseconds", "coalesced", *RATES, *SSD_COUNTERS}
    assert named <= told


def test_what_the_second_level_does_is_said() -> None:
    counters = {
        "hits": 40,
        "ssdHits": 10,
        "ssdEntries": 1234,
        "ssdBytes": 2**20,
        "ssdWrittenBytes": 2**30,
        "ssdFailures": 2,
    }
    assert ssd_share(counters) == 0.25 and ssd_share({"hits": 40}) is None and ssd_share({}) is None
    line = ssd_line(counters, {"path": "/ssd/level", "on": True, "sizeBytes": 2**36})
    for part in ("/ssd/level", "1,234 photos", "1.00 MiB of 64.0 GiB", "10 hits", "1.00 GiB written", "2 failures"):
        assert part in line
    assert "off: it broke" in ssd_line({}, {"path": "/ssd/level", "on": False, "why": "it broke"})


def test_rates_are_of_the_time_between_heartbeats() -> None:
    watch = CacheWatch()
    assert watch.take([view(0.5, hits=10, requests=10)], 100.0)[0].per_second("hits") == 0
    [rates] = watch.take([view(0.1, hits=40, misses=10, requests=60, fetches=5, fetchMicroseconds=20_000)], 102.0)
    assert rates.seconds == pytest.approx(2.4)
    document = rates.document()
    assert document["perSecond"]["requests"] == pytest.approx(50 / 2.4, abs=0.01)
    assert document["hitRatio"] == 0.75 and document["fetchMilliseconds"] == 4.0
    assert len(rate_row(rates)) == len(RATE_COLUMNS)


def test_top_and_status_show_caches(caches: CacheCluster, capsys: Capture) -> None:
    assert cli.run(["top", "--interval", "0.2"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "127.0.0.1:8101" in line)
    assert "512 MiB" in line
    cli.run(["top", "--interval", "0.2", "--json"])
    assert [one["cacheId"] for one in json.loads(capsys.readouterr().out)["caches"]] == [
        "cache-1",
        "cache-2",
        "cache-3",
    ]
    cli.run(["status"])
    out = capsys.readouterr().out
    assert "75.0%" in next(line for line in out.splitlines() if "127.0.0.1:8101" in line)
