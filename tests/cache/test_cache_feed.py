"""A Cache's talk with Directories: the feed, over Directories that die, freeze and start anew, and the heartbeats."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from cache import clock, feed
from cache.feed import Change, Feed, Vouching
from cache.feed_state import FRESH_SECONDS
from cache.heat import HeatPolicy
from cache.policies import make_policy
from cache.registration import Registration
from haystack.errors import AuthenticationError
from haystack.security import AUTH_HEADER, Verifier
from haystack.store.hot_photos import Hits

SECRET = b"s" * 32


class FakeDirectory:
    """Answers as its fields say. ``frozen``: it never answers while this is cleared."""

    def __init__(self, incarnation: str = "one") -> None:
        self.incarnation = incarnation
        self.changes: list[list[Any]] = []
        self.doubtful: list[int] | None = []
        self.status = 200
        self.answers = asyncio.Event()
        self.answers.set()
        self.asked: list[tuple[str, int]] = []
        self.beats: list[dict[str, Any]] = []
        self.left: list[str] = []
        self._verifier = Verifier(SECRET)
        app = web.Application()
        app.router.add_get("/internal/cache/changes", self._changes)
        app.router.add_post("/internal/caches/heartbeat", self._beat)
        app.router.add_post("/internal/caches/leave", self._leave)
        self.server = TestServer(app)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    async def _checked(self, request: web.Request) -> Any:
        body = await request.read()
        await self.answers.wait()
        try:
            self._verifier.verify(request.headers.get(AUTH_HEADER), request.method, request.raw_path, body)
        except AuthenticationError as error:
            raise web.HTTPUnauthorized(text=str(error)) from error
        return json.loads(body) if body else None

    async def _changes(self, request: web.Request) -> web.Response:
        await self._checked(request)
        incarnation, after = request.query["incarnation"], int(request.query["after"])
        self.asked.append((incarnation, after))
        if incarnation == self.incarnation and after == len(self.changes):
            await asyncio.sleep(0.01)  # instead of the wait that was asked for
        complete = incarnation == self.incarnation
        found = self.changes[after:] if complete else []
        document = {
            "incarnation": self.incarnation,
            "sequence": len(self.changes),
            "changes": found,
            "complete": complete,
            "more": False,
            "doubtful": self.doubtful,
        }
        return web.json_response(document, status=self.status)

    async def _beat(self, request: web.Request) -> web.Response:
        self.beats.append(await self._checked(request))
        return web.json_response({"known": True, "heartbeatSeconds": 0.05}, status=self.status)

    async def _leave(self, request: web.Request) -> web.Response:
        self.left.append((await self._checked(request))["cacheId"])
        return web.json_response({})


@asynccontextmanager
async def directories(*fakes: FakeDirectory) -> AsyncIterator[list[str]]:
    for fake in fakes:
        await fake.server.start_server()
    try:
        yield [fake.url for fake in fakes]
    finally:
        for fake in fakes:
            fake.answers.set()
            await fake.server.close()


class Follower:
    """A feed that is followed, and what it brought; each change with whether it could be vouched for before it was
    carried out."""

    def __init__(self, urls: Sequence[str], secret: bytes | None = SECRET) -> None:
        self.vouching = Vouching()
        self.changes: list[Change] = []
        self.versions: list[tuple[str, int]] = []
        self.feed = Feed(urls, secret, self.vouching, self._take)

    def _take(self, changes: Sequence[Change]) -> None:
        self.changes += changes
        self.versions.append((self.vouching.incarnation, self.vouching.sequence))

    @property
    def fresh(self) -> bool:
        return clock.now() < self.vouching.fresh_until

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.feed.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait((task,))


async def until(condition: Callable[[], object], what: str) -> None:
    async with asyncio.timeout(15):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)
    assert condition(), what


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "PAUSE_SECONDS", 0.01)


async def test_changes_are_carried_out_before_they_count() -> None:
    directory = FakeDirectory()
    directory.changes.append([1, "aa", 0, "deleted"])
    async with directories(directory) as urls:
        follower = Follower(urls)
        async with follower.running():
            await until(lambda: follower.fresh, "the feed is fresh")
            assert not follower.changes, "what was before it began is nobody's business"
            directory.changes += [[1, "bb", 2, "deleted"], [3, None, None, "unsure"]]
            await until(lambda: len(follower.changes) == 2, "both changes")
            assert follower.changes == [Change(1, 0xBB, 2, "deleted"), Change(3, None, None, "unsure")]
            assert follower.versions == [("one", 1)], "they were carried out while the state was that of before"
            await until(lambda: follower.vouching.sequence == 3, "the state follows")
        assert follower.feed.status()["problem"] == ""
        assert follower.feed.status()["url"] == directory.url


async def test_a_directory_that_starts_anew_is_followed_anew() -> None:
    directory = FakeDirectory()
    async with directories(directory) as urls:
        follower = Follower(urls)
        async with follower.running():
            await until(lambda: follower.fresh, "the feed is fresh")
            horizon = follower.vouching.horizon
            directory.incarnation = "two"
            await until(lambda: follower.vouching.incarnation == "two", "the new feed")
            assert follower.vouching.horizon > horizon


async def test_a_frozen_directory_vouches_for_nothing_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "ANSWER_SECONDS", 0.1)
    directory = FakeDirectory()
    async with directories(directory) as urls:
        follower = Follower(urls)
        async with follower.running():
            await until(lambda: follower.fresh, "the feed is fresh")
            horizon = follower.vouching.horizon
            directory.answers.clear()
            await until(lambda: not follower.fresh, "it is not fresh any more")
            await until(lambda: "no answer" in follower.feed.status()["problem"], "it is said")
            directory.changes.append([1, "cc", 0, "deleted"])
            directory.answers.set()
            await until(lambda: follower.fresh, "the feed is fresh again")
            assert follower.changes == [Change(1, 0xCC, 0, "deleted")]
            assert follower.vouching.horizon == horizon


async def test_another_directory_takes_over() -> None:
    first, second = FakeDirectory("one"), FakeDirectory("two")
    async with directories(first, second) as urls:
        follower = Follower(urls)
        async with follower.running():
            await until(lambda: follower.vouching.incarnation == "one", "the first is followed")
            await first.server.close()
            await until(lambda: follower.vouching.incarnation == "two" and follower.fresh, "the second is followed")


@pytest.mark.parametrize("problem", ["status", "secret", "document"])
async def test_answers_that_are_none_vouch_for_nothing(problem: str) -> None:
    directory = FakeDirectory()
    if problem == "status":
        directory.status = 503
    if problem == "document":
        directory.doubtful = ["x"]  # type: ignore[list-item]  # on purpose
    async with directories(directory) as urls:
        follower = Follower(urls, b"x" * 32 if problem == "secret" else SECRET)
        async with follower.running():
            await until(lambda: "no Directory has" not in follower.feed.status()["problem"], "it is said")
            assert not follower.fresh
            assert follower.feed.status()["fresh"] is False


# -- heartbeats


async def test_heartbeats_go_to_all_directories_and_end_with_a_leave() -> None:
    first, second = FakeDirectory(), FakeDirectory()
    count = 0

    def describe() -> dict[str, Any]:
        nonlocal count
        count += 1
        return {"cacheId": "c", "number": count}

    async with directories(first, second) as urls:
        registration = Registration(urls, SECRET, describe)
        assert [one["registered"] for one in registration.status()] == [False, False]
        task = asyncio.create_task(registration.run())
        await until(lambda: len(first.beats) > 2 and len(second.beats) > 2, "beats at the pace that was asked for")
        assert [one["registered"] for one in registration.status()] == [True, True]
        assert len({beat["number"] for beat in first.beats}) == len(first.beats), "each is new"
        first.status = 500
        await until(lambda: registration.status()[0]["error"], "the failure is known")
        before = len(second.beats)
        await until(lambda: len(second.beats) > before + 1, "the other one goes on")
        task.cancel()
        await asyncio.wait((task,))
        await registration.leave()
        assert (first.left, second.left) == ([], ["c"]), "who does not know us need not be told"


async def test_hits_are_told_once_and_to_the_first_directory_alone() -> None:
    first, second = FakeDirectory(), FakeDirectory()
    hits = Hits(10)
    hits.take([(0xA, 3), (0xB, 1)])
    async with directories(first, second) as urls:
        first.status = 500
        registration = Registration(urls, SECRET, lambda: {"cacheId": "c"}, hits)
        task = asyncio.create_task(registration.run())
        await until(lambda: registration.status()[0]["error"] and second.beats, "the first one refuses")
        assert hits.peek(10) == [(0xA, 3), (0xB, 1)], "what was refused is not told"
        first.status, refused = 200, len(first.beats)
        await until(lambda: not hits.peek(10), "they are told")
        hits.take([(0xA, 2)])
        await until(lambda: not hits.peek(10), "what came meanwhile is told, too")
        task.cancel()
        await asyncio.wait((task,))
    told = [row for beat in first.beats[refused:] for row in beat["hits"]]
    assert told == [["a", 3], ["b", 1], ["a", 2]]
    assert all(beat["hits"] == [] for beat in second.beats)


def test_a_policy_counts_hits_by_photo() -> None:
    policy = HeatPolicy(make_policy("lru"), lambda: 0.0)
    policy.key_of = lambda entry: entry // 10 or None
    policy.alternate_of = lambda entry: entry % 10
    policy.hits([14, 14, 24, 4])
    assert policy.untold.peek(10) == [(1, 2), (2, 1)]
    policy.untold.told([(1, 2), (2, 1)])
    policy.hits([10, 11, 12, 13, 14])  # of these 4 alone is the large picture
    assert policy.untold.peek(10) == [(1, 1)]
    policy.untold.told([(1, 1)])
    policy.hits([14] * 5000)
    [(_, about)] = policy.untold.peek(10)
    assert 4900 <= about <= 5100


async def test_a_leave_that_nobody_takes_harms_nobody() -> None:
    directory = FakeDirectory()
    async with directories(directory) as urls:
        registration = Registration(urls, SECRET, lambda: {"cacheId": "c"})
        task = asyncio.create_task(registration.run())
        await until(lambda: registration.status()[0]["registered"], "it is known")
        task.cancel()
        await asyncio.wait((task,))
    await registration.leave()


def test_an_answer_counts_until_the_next_one_is_there() -> None:
    # The next one may take until its own wait is over, and both have a way to go.
    assert 2 * feed.WAIT_SECONDS <= 0.6 * FRESH_SECONDS
