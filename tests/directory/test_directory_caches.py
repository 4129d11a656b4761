"""Caches and their feed at a Directory: heartbeats, who is handed out, what is told when, and what is in doubt."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from directory_fakes import SECRET, FakeStore, until

from directory.caches import changes as changes_module
from directory.caches.changes import DELETED, Change, Changes
from haystack.security import AUTH_HEADER, sign

COOKIE = "00000000000000ab"
FEED = "/internal/cache/changes"


def needle(key: str, alternate: int = 0, *, kind: int = 0, checksum: str = "1f" * 8, cookie: str = COOKIE) -> list[Any]:
    return [key, alternate, cookie, 100, checksum, 1700000000000, kind]


class FakeCache:
    """Sends heartbeats, and asks for changes."""

    def __init__(self, directory: Any, port: int, memory_bytes: int = 2**30) -> None:
        self.directory = directory
        self.cache_id = str(uuid4())
        self.url = f"127.0.0.1:{port}"
        self.memory_bytes = memory_bytes
        self.incarnation = ""
        self.sequence = 0

    async def post(self, path: str, document: Any) -> tuple[int, Any]:
        found: tuple[int, Any] = await self.directory.call(path, "POST", json=document)
        return found

    async def beat(self, **changes: Any) -> dict[str, Any]:
        status, answer = await self.post("/internal/caches/heartbeat", self.document(**changes))
        assert status == 200, answer
        found: dict[str, Any] = answer
        return found

    def document(self, **changes: Any) -> dict[str, Any]:
        return {
            "cacheId": self.cache_id,
            "url": self.url,
            "publicUrl": f"public.{self.url}",
            "adminUrl": "127.0.0.1:2",
            "memoryBytes": self.memory_bytes,
            "workers": 2,
            "version": "1",
            "startedMs": 1,
            "counters": {},
            "hot": [],
            **changes,
        }

    async def ask(self, wait: float = 0) -> dict[str, Any]:
        query = f"?incarnation={self.incarnation}&after={self.sequence}&wait={wait}"
        status, answer = await self.directory.call(FEED + query)
        assert status == 200, answer
        self.incarnation, self.sequence = answer["incarnation"], answer["sequence"]
        found: dict[str, Any] = answer
        return found


class Word:
    """A Store's word, with the token that it was given last."""

    def __init__(self, directory: Any, store: FakeStore) -> None:
        self.directory = directory
        self.store = store
        self.token = ""

    async def give(self, *behind: list[Any], age_ms: float = 0) -> dict[str, Any]:
        document = {"storeId": self.store.store_id, "token": self.token, "ageMs": age_ms, "behind": list(behind)}
        status, answer = await self.store.post(self.directory.base, "/internal/stores/word", document)
        assert status == 200, answer
        self.token = answer["token"]
        found: dict[str, Any] = answer
        return found


@pytest.fixture
async def cache(directory: Any, store: FakeStore) -> FakeCache:
    """A Cache that follows the feed of a Directory with one Store that leads volume 1."""
    store.volumes[1] = store.volume(1)
    await store.register(directory.base)
    cache = FakeCache(directory, 8100)
    await cache.beat()
    await cache.ask()
    return cache


# -- the feed


def photo_change(number: int) -> Change:
    return Change(1, number, 0, DELETED)


async def test_a_feed_holds_so_much_and_says_when_more_is_missing() -> None:
    feed = Changes(held=5)
    feed.publish(photo_change(number) for number in range(8))
    assert feed.since(feed.incarnation, 3).changes == tuple(map(photo_change, range(3, 8)))
    assert feed.since(feed.incarnation, 8) == changes_module.Excerpt(8, (), complete=True, more=False)
    for incarnation, after in ((feed.incarnation, 2), ("another", 7), (feed.incarnation, 9)):
        missed = feed.since(incarnation, after)
        assert (missed.complete, missed.changes, missed.sequence) == (False, (), 8)


async def test_a_long_answer_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes_module, "MAX_ANSWERED", 3)
    feed = Changes()
    feed.publish(photo_change(number) for number in range(7))
    after, found = 0, []
    while True:
        excerpt = feed.since(feed.incarnation, after)
        after = excerpt.sequence
        found += excerpt.changes
        if not excerpt.more:
            break
    assert found == [photo_change(number) for number in range(7)]


async def test_who_waits_is_woken_by_a_change_and_by_the_end() -> None:
    feed = Changes()
    waiting = asyncio.create_task(feed.wait(feed.incarnation, 0, 30))
    await asyncio.sleep(0)
    feed.publish([])
    await asyncio.sleep(0)
    assert not waiting.done()
    feed.publish([photo_change(1)])
    await asyncio.wait_for(waiting, 5)
    await asyncio.wait_for(feed.wait(feed.incarnation, 0, 30), 5)
    waiting = asyncio.create_task(feed.wait(feed.incarnation, 1, 30))
    await asyncio.sleep(0)
    feed.close()
    await asyncio.wait_for(waiting, 5)


async def test_a_new_cache_is_told_where_the_feed_is(cache: FakeCache) -> None:
    cache.incarnation = ""
    answer = await cache.ask()
    assert answer["complete"] is False and answer["changes"] == []
    assert (await cache.ask())["complete"] is True
    assert (await cache.beat())["feed"] == {"incarnation": cache.incarnation, "sequence": cache.sequence}


async def test_what_takes_an_answer_back_is_in_the_feed(cache: FakeCache, directory: Any, store: FakeStore) -> None:
    async def told(begin: int, end: int, *needles: list[Any]) -> list[Any]:
        status, _ = await store.confirm(directory.base, 1, begin, end, list(needles))
        assert status == 200
        answer = await cache.ask()
        assert answer["complete"] is True
        found: list[Any] = answer["changes"]
        return found

    assert await told(0, 5000, needle("a1"), needle("a1", 3), needle("b2")) == []
    assert await told(5000, 5100, needle("a1", kind=1)) == [[1, "a1", 0, "deleted"]]
    assert await told(5100, 5200, needle("a1", 3, checksum="2e" * 8)) == [[1, "a1", 3, "replaced"]]
    assert await told(5200, 5300, needle("b2")) == [], "the same again"
    assert await told(5300, 5400, needle("b2", cookie="cd")) == [[1, "b2", 0, "replaced"]], "of what is not listed"
    assert await told(5400, 5500, needle("ee", kind=1)) == [[1, "ee", 0, "deleted"]], "of what is not known"
    assert await told(5400, 5500, needle("ee", kind=1)) == [], "which is known already"


async def test_a_cache_that_waits_hears_of_a_delete_at_once(cache: FakeCache, directory: Any, store: FakeStore) -> None:
    waiting = asyncio.create_task(cache.ask(wait=10))
    await asyncio.sleep(0.05)
    began = time.monotonic()
    await store.confirm(directory.base, 1, 0, 5000, [needle("a1", kind=1)])
    answer = await waiting
    assert answer["changes"] == [[1, "a1", 0, "deleted"]]
    assert time.monotonic() - began < 5


async def test_a_directory_that_stops_does_not_wait_for_caches(start: Any) -> None:
    directory = await start()
    cache = FakeCache(directory, 8100)
    await cache.ask()
    # The fixture stops the Directory while this waits; the test's time-out would catch it if it did not end.
    task = asyncio.create_task(cache.ask(wait=10))
    await asyncio.sleep(0.05)
    task.cancel()


@pytest.mark.parametrize("query", ["?wait=11", "?wait=x", "?wait=nan", "?after=-1", "?after=x"])
async def test_a_strange_question_is_refused(directory: Any, query: str) -> None:
    status, answer = await directory.call(FEED + query)
    assert status == 400 and answer["error"]


async def test_the_feed_is_signed(start: Any) -> None:
    directory = await start(secret=SECRET)
    paths = (FEED + "?after=0", "/internal/cache/volume?volume=1", "/internal/cache/hottest")
    for path in paths:
        status, answer = await directory.call(path)
        assert status == 401, answer
    header = {AUTH_HEADER: sign(SECRET, "GET", paths[0], b"", now=time.time())}
    assert (await directory.call(paths[0], headers=header))[0] == 200
    for path in ("/internal/caches/heartbeat", "/internal/caches/leave", "/internal/stores/word"):
        assert (await directory.call(path, "POST", json={}))[0] == 401


# -- doubtful volumes


async def doubted(cache: FakeCache) -> bool:
    """Return whether volume 1 is in doubt; so are those that the Directory has just had made."""
    doubtful: list[int] = (await cache.ask())["doubtful"]
    return 1 in doubtful


async def test_a_store_gives_its_word_only_while_there_is_a_cache(directory: Any, store: FakeStore) -> None:
    await store.register(directory.base)
    _, answer = await store.heartbeat(directory.base)
    assert "wordSeconds" not in answer
    await FakeCache(directory, 8100).beat()
    _, answer = await store.heartbeat(directory.base)
    assert 0 < answer["wordSeconds"] < 0.5


async def test_volumes_are_in_doubt_until_their_store_gives_its_word(
    cache: FakeCache, directory: Any, store: FakeStore
) -> None:
    word = Word(directory, store)
    assert await doubted(cache)
    for _ in range(3):
        await word.give()
    assert not await doubted(cache)
    await word.give([1, 600])
    assert await doubted(cache)
    await word.give([1, None])
    assert await doubted(cache)
    await word.give([1, 100])
    assert not await doubted(cache)
    await asyncio.sleep(0.6)
    assert await doubted(cache), "it is silent"


async def test_a_word_counts_from_when_the_store_looked(cache: FakeCache, directory: Any, store: FakeStore) -> None:
    word = Word(directory, store)
    for _ in range(3):
        await word.give()
    token = word.token
    await asyncio.sleep(0.6)
    word.token = token
    await word.give(age_ms=10)
    assert await doubted(cache), "this was long on its way"


@pytest.mark.parametrize("token", ["", "x", "other.12", "{incarnation}.-1", "{incarnation}.x"])
async def test_a_word_without_a_token_of_this_directory_says_nothing(
    cache: FakeCache, directory: Any, store: FakeStore, token: str
) -> None:
    word = Word(directory, store)
    for _ in range(4):
        word.token = token.format(incarnation=cache.incarnation)
        await word.give()
    assert await doubted(cache)


async def test_the_word_of_a_store_that_is_not_registered_is_not_taken(directory: Any, store: FakeStore) -> None:
    answer = await Word(directory, store).give()
    assert answer["known"] is False


@pytest.mark.parametrize(
    "change", [{"behind": [[0, 1]]}, {"behind": [[1]]}, {"behind": [[1, "x"]]}, {"ageMs": "x"}, {"token": "x" * 99}]
)
async def test_a_strange_word_is_refused(directory: Any, store: FakeStore, change: dict[str, Any]) -> None:
    document = {"storeId": store.store_id, "token": "", "ageMs": 0, "behind": [], **change}
    status, answer = await store.post(directory.base, "/internal/stores/word", document)
    assert status == 400 and answer["error"]


# -- who is handed out


async def lookup(directory: Any, photo: int = 0xA1) -> dict[str, Any]:
    status, answer = await directory.call(f"/dir/lookup?fileId=1,{photo:x}{COOKIE}")
    assert status == 200, answer
    found: dict[str, Any] = answer
    return found


async def test_without_caches_answers_are_as_before(directory: Any, store: FakeStore) -> None:
    store.volumes[1] = store.volume(1)
    await store.register(directory.base)
    assert not {"cacheUrl", "caches"} & (await lookup(directory)).keys()


async def test_photos_are_handed_out_with_their_cache(cache: FakeCache, directory: Any, store: FakeStore) -> None:
    answer = await lookup(directory)
    assert answer["cacheUrl"] == cache.url and answer["cachePublicUrl"] == f"public.{cache.url}"
    assert answer["caches"] == [{"url": cache.url, "publicUrl": f"public.{cache.url}"}]
    assert answer["locations"][0]["url"] == store.url
    _, answer = await directory.call("/dir/lookup?volumeId=1")
    assert "cacheUrl" not in answer
    await store.confirm(directory.base, 1, 0, 5000, [needle("a1")])
    _, answer = await directory.call("/photos/a1")
    assert answer["cacheUrl"] == cache.url and answer["locations"]


@pytest.mark.parametrize("path", [f"/1,a1{COOKIE}", f"/1,a1{COOKIE}.jpg", f"/1/a1{COOKIE}/name.jpg?x=1"])
async def test_a_redirect_goes_to_the_cache(cache: FakeCache, directory: Any, path: str) -> None:
    async with directory.session.get(directory.base + path, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (302, f"http://public.{cache.url}{path}")


async def test_what_is_asked_for_by_its_offset_is_at_the_store(
    cache: FakeCache, directory: Any, store: FakeStore
) -> None:
    path = f"/1@1000,a1{COOKIE}"
    async with directory.session.get(directory.base + path, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (302, f"http://{store.url}{path}")


async def test_each_photo_has_one_cache_and_a_silent_one_is_skipped(start: Any, make_store: Callable[..., Any]) -> None:
    directory = await start(dead_after_seconds=0.4)
    store = await make_store()
    store.volumes[1] = store.volume(1)
    await store.register(directory.base)
    first, second = FakeCache(directory, 8101), FakeCache(directory, 8102)
    await first.beat()
    await second.beat()
    before = {photo: await lookup(directory, photo) for photo in range(1, 40)}
    urls = {answer["cacheUrl"] for answer in before.values()}
    assert urls == {first.url, second.url}
    assert all(len(answer["caches"]) == 2 for answer in before.values())

    async def first_is_skipped() -> bool:
        await second.beat()
        await store.heartbeat(directory.base)
        return {(await lookup(directory, photo))["cacheUrl"] for photo in before} == {second.url}

    await until(first_is_skipped, "the silent Cache is not handed out")
    _, document = await directory.call("/cluster/status")
    assert any(first.url in problem for problem in document["Problems"])
    await first.beat()
    assert {photo: (await lookup(directory, photo))["cacheUrl"] for photo in before} == {
        photo: answer["cacheUrl"] for photo, answer in before.items()
    }
    status, _ = await first.post("/internal/caches/leave", {"cacheId": first.cache_id})
    assert status == 200 and await first_is_skipped()


async def test_a_hot_photo_is_shared_and_others_are_not(start: Any, make_store: Callable[..., Any]) -> None:
    directory = await start(cache_spread_reads_per_second=100.0)
    store = await make_store()
    store.volumes[1] = store.volume(1)
    await store.register(directory.base)
    caches = [FakeCache(directory, 8100 + number) for number in range(4)]
    for cache in caches:
        await cache.beat(hot=[["a1", 50.0], ["b2", 20.0]])

    async def firsts(photo: int) -> set[str]:
        return {(await lookup(directory, photo))["cacheUrl"] for _ in range(60)}

    assert len(await firsts(0xA1)) == 2
    assert len(await firsts(0xB2)) == 1
    for cache in caches:
        await cache.beat(hot=[["a1", 1000.0]])
    assert await firsts(0xA1) == {cache.url for cache in caches}


async def test_what_people_are_told_of_caches(cache: FakeCache, directory: Any) -> None:
    await cache.beat(counters={"requests": 4, "hits": 3, "usedBytes": 1000, "entries": 2})
    for path in ("/dir/status", "/cluster/status"):
        _, document = await directory.call(path)
        [told] = document["Caches"]
        assert (told["cacheId"], told["state"], told["counters"]["hits"]) == (cache.cache_id, "alive", 3)
    async with directory.session.get(directory.base + "/") as answer:
        page = await answer.text()
    assert f"public.{cache.url}" in page and "75.0%" in page
    async with directory.session.get(directory.base + "/metrics") as answer:
        text = await answer.text()
    assert 'haystack_directory_caches{state="alive"} 1.0' in text
    assert "haystack_directory_doubtful_volumes " in text


@pytest.mark.parametrize(
    "change",
    [
        {"cacheId": "x"},
        {"url": "nowhere"},
        {"publicUrl": "javascript:x()"},
        {"memoryBytes": 0},
        {"counters": []},
        {"counters": {"hits": "3"}},
        {"counters": {str(number): 0 for number in range(300)}},
        {"hot": [["xyz", 1]]},
        {"hot": [["-1", 1]]},
        {"hot": [["a1"]]},
        {"hot": [["a1", None]]},
    ],
)
async def test_a_strange_heartbeat_is_refused(directory: Any, change: dict[str, Any]) -> None:
    cache = FakeCache(directory, 8100)
    status, answer = await cache.post("/internal/caches/heartbeat", cache.document(**change))
    assert status == 400 and answer["error"]


# -- what a Cache asks


async def test_a_cache_learns_where_a_volume_is(cache: FakeCache, directory: Any, store: FakeStore) -> None:
    status, answer = await directory.call("/internal/cache/volume?volume=1")
    assert status == 200
    assert (answer["volume"], answer["uuid"], answer["writable"]) == (1, store.volumes[1]["uuid"], True)
    assert [location["url"] for location in answer["locations"]] == [store.url]
    await store.heartbeat(directory.base, store.volume(1, uuid=store.volumes[1]["uuid"], state="readonly"))
    _, answer = await directory.call("/internal/cache/volume?volume=1")
    assert answer["writable"] is False
    assert (await directory.call("/internal/cache/volume?volume=99"))[0] == 404


async def test_the_hottest_photos_are_named_for_warming(cache: FakeCache, directory: Any, store: FakeStore) -> None:
    await store.confirm(directory.base, 1, 0, 5000, [needle("a1"), needle("a1", 2), needle("b2")])
    await cache.beat(hot=[["b2", 5.0], ["a1", 7.5], ["ff", 99.0]])
    _, answer = await directory.call("/internal/cache/hottest?count=10")
    assert answer["fids"] == [f"1,a1{COOKIE}", f"1,a1{COOKIE}_2", f"1,b2{COOKIE}"]


async def test_the_heat_of_photos_is_that_of_stores_and_caches(
    cache: FakeCache, directory: Any, store: FakeStore
) -> None:
    await cache.beat(hot=[["a1", 5.0]])
    await store.heartbeat(directory.base, heat={"photos": [["a1", 2.0]]})
    _, answer = await directory.call("/cluster/heat")
    [photo] = answer["photos"]
    assert (photo["photo"], photo["readsPerSecond"]) == ("a1", 7)
    assert [(one["url"], one["readsPerSecond"]) for one in photo["sources"]] == [(cache.url, 5), (store.url, 2)]
    await cache.post("/internal/caches/leave", {"cacheId": cache.cache_id})
    _, answer = await directory.call("/cluster/heat")
    assert answer["photos"][0]["readsPerSecond"] == 2
