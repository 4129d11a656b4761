"""Where the keeper answers the workers' questions: what is here and vouched for, what has to be asked, what is fetched.

- A photo that is here and vouched for: the worker is told where.
- One that is here, but may have been deleted (see :mod:`cache.feed_state`): a Store is asked by HEAD, once for all who
  wait, and its answer counts for half a second. No answer: the photo is served stale, if that is allowed.
- A photo that is not in memory is looked for on the second level, and fetched, once for all who wait. That it is not
  there is remembered for a second.

Bounds: ``max_fetches`` at the same time, and ``max_waiting`` questions in all; then workers hear 503.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cache import clock
from cache.board import FETCH_HISTOGRAM_START, HISTOGRAM_BUCKETS, KEEPER_START, Board, KeeperCell
from cache.feed_state import Change, Vouching
from cache.fetch import End, Fetch, Result
from cache.levels import Levels
from cache.memory import Kept
from cache.places import Place, Places
from cache.presence import Presence
from cache.talk import Message, Said, Talk
from cache.upstream import Upstreams
from haystack.bounded import BoundedCache
from haystack.errors import HaystackError, NeedleNotFound, VolumeNotFound
from haystack.fid import Fid
from haystack.lifetime import end_tasks
from haystack.signed_urls import UrlSigner

NEGATIVE_SECONDS = 1.0
MAX_NEGATIVE = 65_536
HEAD_COUNTS_SECONDS = 0.5
"""For how long the answer of a Store, that a photo is there, is enough by itself."""

NAMED_SECONDS = 10.0
MAX_NAMED = 65_536
GREW_BYTES = 256 * 1024
"""Workers hear of a photo that is being fetched whenever so much more is there."""

_log = logging.getLogger(__name__)


class Asker(NamedTuple):
    """Who wants an answer: a worker's question."""

    talk: Talk
    number: int


Done = Callable[[Result], None]


@dataclass(slots=True)
class _Under:
    """A fetch that is under way or waits for its turn, and who waits for it."""

    fetch: Fetch
    askers: list[Asker]
    watchers: list[Done]
    began_ns: int
    streaming: set[Talk]


class Desk:
    """Answers questions.

    Parameters
    ----------
    vouching: what may be vouched for.
    signer: signs what Stores are asked for, some of which they give to signed URLs alone.
    admission: ``all`` or ``paper``, as in the settings.
    serve_stale: give out what nobody can vouch for when no Store answers.
    wall_clock: seconds since 1970, for photos that have an end.
    """

    def __init__(
        self,
        board: Board,
        levels: Levels,
        places: Places,
        upstreams: Upstreams,
        vouching: Vouching,
        signer: UrlSigner,
        *,
        admission: str,
        serve_stale: bool,
        max_fetches: int,
        max_waiting: int,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._cells = board.cells
        self._levels = levels
        self._memory = levels.memory
        self._places = places
        self._upstreams = upstreams
        self._presence = Presence(places, upstreams, signer, wall_clock)
        self._vouching = vouching
        self._signer = signer
        self._admission = admission
        self._serve_stale = serve_stale
        self._max_fetches = max_fetches
        self._max_waiting = max_waiting
        self._wall_clock = wall_clock
        self._under: dict[Fid, _Under] = {}
        self._by_fetch: dict[Fetch, _Under] = {}
        self._queue: deque[_Under] = deque()
        self._running = 0
        self._checks: dict[Fid, list[Asker]] = {}
        self._negative = BoundedCache[Fid, tuple[float, str]](MAX_NEGATIVE)
        self._named = BoundedCache[tuple[int, int], tuple[float, Sequence[int]]](MAX_NAMED)
        self._tasks: set[asyncio.Task[None]] = set()

    def on_messages(self, talk: Talk, messages: Iterable[Message]) -> None:
        """What a worker asks."""
        for kind, number, *rest in messages:
            asker = Asker(talk, number)
            if kind == Said.ASK:
                volume, key, cookie, alternate, through_cdn, passes = rest
                self._ask(asker, Fid(volume, key, cookie, alternate), through_cdn, passes)
            elif kind == Said.ASK_PHOTO:
                self._name(asker, rest[0], rest[1])

    def forget_worker(self, talk: Talk) -> None:
        """A worker has ended: nobody waits for what it has asked."""
        for under in self._under.values():
            under.askers = [asker for asker in under.askers if asker.talk is not talk]
            under.streaming.discard(talk)

    def on_changes(self, changes: Sequence[Change]) -> None:
        """What the feed takes back."""
        self._count(KeeperCell.DELETES_TAKEN, len(changes))
        for change in changes:
            if change.key is not None:
                self._levels.drop(change.volume, change.key, change.alternate)
            else:
                self._places.forget(change.volume)
            for fid, under in list(self._under.items()):
                if fid.volume == change.volume and change.key in (None, fid.key):
                    self._disturb(fid, under, change)

    def warm(self, fids: Iterable[Fid]) -> list[asyncio.Future[Result | None]]:
        """Fetch photos that are not here; each future gets None for one that was here."""
        futures = []
        for fid in fids:
            future: asyncio.Future[Result | None] = asyncio.get_running_loop().create_future()
            futures.append(future)
            kept = self._find(fid)
            if kept is not None and self._is_good(kept):
                future.set_result(None)
            else:
                self._begin(fid, admits_all=True).watchers.append(_settler(future))
        return futures

    @property
    def fetching(self) -> int:
        """Fetches under way or waiting."""
        return len(self._by_fetch)

    async def close(self) -> None:
        """Break everything off."""
        await end_tasks(self._tasks)

    # Questions.

    def _ask(self, asker: Asker, fid: Fid, through_cdn: bool, passes: bool) -> None:
        if passes:
            self._spawn(self._tell_where(asker, fid))
            return
        kept = self._find(fid)
        if kept is not None:
            if self._is_good(kept):
                asker.talk.say(int(Said.HAVE), asker.number, kept.entry, kept.generation, False)
            else:
                self._check(asker, fid, kept)
            return
        negative = self._negative.get(fid)
        if negative is not None and clock.now() < negative[0]:
            asker.talk.say(int(Said.REFUSED), asker.number, 404, negative[1])
            return
        if through_cdn and self._admission == "paper" and fid not in self._under:
            self._spawn(self._tell_where(asker, fid))
            return
        self._fetch_for(asker, fid)

    def _find(self, fid: Fid) -> Kept | None:
        kept = self._memory.find(fid.volume, fid.key, fid.alternate)
        if kept is None or kept.cookie != fid.cookie:
            return None
        if kept.expires and self._wall_clock() >= kept.expires:
            self._levels.drop(fid.volume, fid.key, fid.alternate)
            return None
        return kept

    def _is_good(self, kept: Kept) -> bool:
        now = clock.now()
        verified = kept.verified_ns / 1e9
        return now - verified < HEAD_COUNTS_SECONDS or self._vouching.vouches(kept.volume, verified, now)

    def _fetch_for(self, asker: Asker, fid: Fid) -> None:
        under = self._under.get(fid)
        if under is None:
            if len(self._by_fetch) >= self._max_waiting:
                asker.talk.say(int(Said.REFUSED), asker.number, 503, "too many photos wait for Stores; ask a Store")
                return
            under = self._begin(fid)
        else:
            self._count(KeeperCell.COALESCED)
        filling = under.fetch.filling
        if under.fetch.streams and filling is not None and not filling.dropped:
            under.streaming.add(asker.talk)
            asker.talk.say(int(Said.GROWS), asker.number, filling.entry, filling.generation)
        else:
            under.askers.append(asker)

    # Fetches.

    def _begin(self, fid: Fid, *, admits_all: bool = False) -> _Under:
        under = self._under.get(fid)
        if under is not None:
            return under
        admits = _admits_all if admits_all else self._admits
        fetch = Fetch(fid, self._places, self._upstreams, self._levels, self._signer, admits, self)
        under = self._under[fid] = self._by_fetch[fetch] = _Under(fetch, [], [], clock.now_ns(), set())
        if self._running < self._max_fetches:
            self._start(under)
        else:
            self._queue.append(under)
        return under

    def _start(self, under: _Under) -> None:
        self._running += 1
        self._spawn(self._run(under))

    async def _run(self, under: _Under) -> None:
        fetch = under.fetch
        try:
            result = await fetch.run()
        finally:
            self._running -= 1
            self._by_fetch.pop(fetch, None)
            if self._under.get(fetch.fid) is under:
                del self._under[fetch.fid]
            if self._queue and self._running < self._max_fetches:
                self._start(self._queue.popleft())
        self._note(under, result)
        self._tell(under, result)

    def _tell(self, under: _Under, result: Result) -> None:
        if result.here:
            for asker in under.askers:  # now that it is in memory it is judged like all that is
                self._ask(asker, under.fetch.fid, False, False)
            under.askers = []
        if result.end is End.KEPT:
            said: Sequence[Any] = (Said.HAVE, result.entry, result.generation, True)
        elif result.end is End.PASS:
            said = (Said.PASS, result.addresses)
        elif result.end is End.GONE:
            self._negative.add(under.fetch.fid, (clock.now() + NEGATIVE_SECONDS, result.message))
            said = (Said.REFUSED, 404, result.message)
        else:
            said = (Said.REFUSED, 503, result.message)
        for talk, number in under.askers:
            talk.say(int(said[0]), number, *said[1:])
        for done in under.watchers:
            done(result)

    def _note(self, under: _Under, result: Result) -> None:
        if result.here:
            return  # no Store was asked
        microseconds = (clock.now_ns() - under.began_ns) // 1000
        self._count(KeeperCell.FETCHES)
        self._count(KeeperCell.FETCHED_BYTES, under.fetch.received_bytes)
        self._count(KeeperCell.FETCH_MICROSECONDS, microseconds)
        bucket = min(microseconds.bit_length(), HISTOGRAM_BUCKETS - 1)
        self._cells[FETCH_HISTOGRAM_START + bucket] += 1
        if result.end is End.FAILED:
            self._count(KeeperCell.FETCH_FAILURES)
        elif result.end is End.PASS:
            self._count(KeeperCell.NOT_KEPT)

    def growing(self, fetch: Fetch) -> None:
        """See :class:`~cache.fetch.FetchNotes`."""
        under, filling = self._by_fetch[fetch], fetch.filling
        assert filling is not None
        askers, under.askers = under.askers, []
        for talk, number in askers:
            under.streaming.add(talk)
            talk.say(int(Said.GROWS), number, filling.entry, filling.generation)

    def grew(self, fetch: Fetch) -> None:
        """See :class:`~cache.fetch.FetchNotes`."""
        filling = fetch.filling
        if filling is not None:
            if filling.filled_bytes - fetch.told_bytes < GREW_BYTES and filling.filled_bytes < filling.data_bytes:
                return
            fetch.told_bytes = filling.filled_bytes
        for talk in self._by_fetch[fetch].streaming:
            talk.say(int(Said.GREW), fetch.entry)

    def failed_over(self) -> None:
        """See :class:`~cache.fetch.FetchNotes`."""
        self._count(KeeperCell.FAILOVERS)

    def _admits(self, place: Place) -> bool:
        return self._admission == "all" or place.writable

    def _disturb(self, fid: Fid, under: _Under, change: Change) -> None:
        """Something happens to a photo, or to its volume, while it is being fetched."""
        if change.key is None:
            under.fetch.doubt()
        elif change.alternate in (None, fid.alternate):
            # Whoever asks from now on must not get what was there before.
            under.fetch.taint()
            del self._under[fid]

    # What may have been deleted.

    def _check(self, asker: Asker, fid: Fid, kept: Kept) -> None:
        waiting = self._checks.get(fid)
        if waiting is not None:
            waiting.append(asker)
            return
        if len(self._checks) >= self._max_waiting:
            asker.talk.say(int(Said.REFUSED), asker.number, 503, "too many photos wait for Stores; ask a Store")
            return
        self._checks[fid] = [asker]
        self._spawn(self._ask_store(fid, kept))

    async def _ask_store(self, fid: Fid, kept: Kept) -> None:
        began_ns = clock.now_ns()
        try:
            self._count(KeeperCell.REVALIDATIONS)
            there = await self._presence.has(fid, kept.checksum)
        except (NeedleNotFound, VolumeNotFound):
            there = False
        except HaystackError as error:
            self._could_not_ask(self._checks.pop(fid), fid, kept, str(error))
            return
        askers = self._checks.pop(fid)
        if there and self._memory.set_verified(kept.entry, kept.generation, began_ns):
            for talk, number in askers:
                talk.say(int(Said.HAVE), number, kept.entry, kept.generation, False)
            return
        if not there:
            self._levels.drop(fid.volume, fid.key, fid.alternate)
        for asker in askers:  # gone or replaced: a fetch finds out which
            self._ask(asker, fid, False, False)

    def _could_not_ask(self, askers: list[Asker], fid: Fid, kept: Kept, why: str) -> None:
        still = self._find(fid)
        for talk, number in askers:
            if self._serve_stale and still is not None and still.generation == kept.generation:
                talk.say(int(Said.STALE), number, kept.entry, kept.generation)
            else:
                talk.say(int(Said.REFUSED), number, 503, f"nobody can say whether the photo is still there: {why}")

    # Names and places.

    async def _tell_where(self, asker: Asker, fid: Fid) -> None:
        try:
            place = await self._places.locate(fid.volume)
        except HaystackError as error:
            asker.talk.say(int(Said.REFUSED), asker.number, error.http_status, str(error))
        else:
            asker.talk.say(int(Said.PASS), asker.number, self._places.for_reading(place))

    def _name(self, asker: Asker, photo: int, alternate: int) -> None:
        named = self._named.get((photo, alternate))
        if named is not None and clock.now() < named[0]:
            asker.talk.say(int(Said.NAMED), asker.number, *named[1])
        elif len(self._tasks) >= self._max_waiting:
            asker.talk.say(int(Said.REFUSED), asker.number, 503, "too many requests wait; ask the Directory")
        else:
            self._spawn(self._ask_name(asker, photo, alternate))

    async def _ask_name(self, asker: Asker, photo: int, alternate: int) -> None:
        try:
            name = await self._places.photo(photo, alternate)
        except HaystackError as error:
            asker.talk.say(int(Said.REFUSED), asker.number, error.http_status, str(error))
            return
        self._named.add((photo, alternate), (clock.now() + NAMED_SECONDS, name))
        asker.talk.say(int(Said.NAMED), asker.number, *name)

    def _count(self, cell: KeeperCell, amount: int = 1) -> None:
        self._cells[KEEPER_START + cell] += amount

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("answering a worker failed", exc_info=error)


def _admits_all(place: Place) -> bool:
    return True


def _settler(future: asyncio.Future[Result | None]) -> Done:
    def settle(result: Result) -> None:
        if not future.done():
            future.set_result(result)

    return settle
