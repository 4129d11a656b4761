"""What a worker does with a request that it cannot answer alone: it asks the keeper, once for each photo.

All requests for a photo that are waiting share one question. When the photo is there they are answered one after the
other; of one that is still being fetched (``GROWS``) each client is sent what is there (:mod:`cache.growing`). What is
not to be kept is passed through (:mod:`cache.passing`).

Bounds: ``max_waiting`` requests; further ones are refused. A keeper that does not turn any more (frozen) makes all
requests that wait fail at once, with 503: their clients have other ways to the photo.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cache import clock
from cache.answers import HIT, MISS, STALE, answer
from cache.board import Board, Cell, Counter, Histogram, Tally
from cache.growing import Growing
from cache.memory import MemoryReader, Record
from cache.names import PHOTO_PREFIX, PhotoTarget
from cache.passing import Passing
from cache.signatures import Signatures
from cache.talk import Message, Said, Talk
from haystack.errors import NeedleNotFound, VolumeUnavailable
from haystack.fid import Fid
from haystack.http.connection import HttpConnection
from haystack.http.handler import DEFERRED, Outcome
from haystack.http.request import Request
from haystack.http.response import RETRY_SOON

KEEPER_PATIENCE_SECONDS = 1.0
"""Without a turn of the keeper's event loop: then nobody waits for it any longer."""

MAX_ATTEMPTS = 3
"""Questions about one photo that is gone again whenever the answer arrives; then the requests are refused."""


class Name(NamedTuple):
    """A needle's name."""

    volume: int
    key: int
    cookie: int
    alternate: int


@dataclass(slots=True)
class _Waiter:
    """A request that waits."""

    connection: HttpConnection
    request: Request
    started: int


@dataclass(slots=True)
class _Question:
    """What the keeper was asked, and who waits for the answer."""

    number: int
    what: Name | PhotoTarget
    through_cdn: bool
    passes: bool
    attempts: int = 1
    waiters: list[_Waiter] = field(default_factory=list)


class Misses:
    """The questions of one worker.

    Parameters
    ----------
    passing: passes requests through to Stores.
    signatures: says which requests may be shown a photo that is for signed URLs alone.
    max_waiting: requests that may wait.
    """

    def __init__(
        self,
        board: Board,
        reader: MemoryReader,
        tally: Tally,
        passing: Passing,
        signatures: Signatures,
        *,
        max_waiting: int,
    ) -> None:
        self._board = board
        self._reader = reader
        self._tally = tally
        self._passing = passing
        self._signatures = signatures
        self._max_waiting = max_waiting
        self._talk: Talk | None = None
        self._number = 0
        self._open: dict[int, _Question] = {}
        self._by_name: dict[tuple[Name | PhotoTarget, bool, bool], _Question] = {}
        self._growing: dict[int, Growing] = {}
        self._waiting = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def use(self, talk: Talk) -> None:
        """Ask by this connection from now on."""
        self._talk = talk

    @property
    def waiting(self) -> int:
        """Requests that wait now."""
        return self._waiting

    @property
    def keeper_answers(self) -> bool:
        """Whether the keeper's event loop turns."""
        silent_ns = clock.now_ns() - self._board.cells[Cell.KEEPER_NS]
        return self._talk is not None and self._talk.connected and silent_ns < KEEPER_PATIENCE_SECONDS * 1e9

    def ask(self, connection: HttpConnection, request: Request, name: Name, *, passes: bool = False) -> Outcome:
        """Have a request wait for a photo.

        Parameters
        ----------
        passes: only where its Stores are is asked for; the photo itself is passed through.

        Raises VolumeUnavailable when too many wait already, or the keeper does not answer.
        """
        return self._wait(connection, request, name, passes)

    def ask_photo(self, connection: HttpConnection, request: Request, target: PhotoTarget) -> Outcome:
        """As :meth:`ask`, for a photo whose needle's name the Directory has to say."""
        return self._wait(connection, request, target, False)

    def check_keeper(self) -> None:
        """Give up on a keeper that does not answer. To be called a few times a second."""
        if self._open and not self.keeper_answers:
            for question in list(self._open.values()):
                self._close(question)
                self._refuse(question, 503, "the keeper of this Cache does not answer; ask a Store")

    def on_messages(self, messages: list[Message]) -> None:
        """What the keeper says."""
        for kind, number, *rest in messages:
            if kind == Said.GREW:
                self._grew(number)
                continue
            question = self._open.get(number)
            if question is None:
                continue  # given up meanwhile
            self._close(question)
            self._answered(question, kind, rest)

    def close(self) -> None:
        """Nobody waits any longer."""
        for task in self._tasks:
            task.cancel()

    def _wait(self, connection: HttpConnection, request: Request, what: Name | PhotoTarget, passes: bool) -> Outcome:
        if self._waiting >= self._max_waiting:
            self._tally.add(Counter.REFUSED)
            raise VolumeUnavailable(f"{self._waiting} requests wait for Stores already; ask a Store, or try again")
        if not self.keeper_answers:
            self._tally.add(Counter.REFUSED)
            raise VolumeUnavailable("the keeper of this Cache does not answer; ask a Store")
        through_cdn = request.headers.get("via") is not None
        question = self._by_name.get((what, through_cdn, passes))
        if question is None:
            question = self._ask(what, through_cdn, passes)
        question.waiters.append(_Waiter(connection, request, clock.now_ns()))
        self._waiting += 1
        return DEFERRED

    def _ask(self, what: Name | PhotoTarget, through_cdn: bool, passes: bool) -> _Question:
        self._number += 1
        question = _Question(self._number, what, through_cdn, passes)
        self._open[question.number] = question
        self._by_name[what, through_cdn, passes] = question
        self._send(question)
        return question

    def _send(self, question: _Question) -> None:
        assert self._talk is not None
        what = question.what
        if isinstance(what, PhotoTarget):
            self._talk.say(int(Said.ASK_PHOTO), question.number, what.photo, what.alternate, question.through_cdn)
        else:
            self._talk.say(int(Said.ASK), question.number, *what, question.through_cdn, question.passes)

    def _close(self, question: _Question) -> None:
        del self._open[question.number]
        self._by_name.pop((question.what, question.through_cdn, question.passes), None)

    def _again(self, question: _Question, waiters: list[_Waiter]) -> None:
        """What was said does not hold any more: ask once more for those who were not answered yet."""
        if not waiters:
            return
        question.waiters = waiters
        if question.attempts >= MAX_ATTEMPTS:
            self._refuse(question, 503, "the photo is gone again whenever it has come; ask a Store, or try again")
            return
        again = self._by_name.get((question.what, question.through_cdn, question.passes))
        if again is None:
            again = self._ask(question.what, question.through_cdn, question.passes)
            again.attempts = question.attempts + 1
        again.waiters += waiters

    # Answers.

    def _answered(self, question: _Question, kind: int, rest: Sequence[Any]) -> None:
        if kind == Said.HAVE:
            entry, generation, fetched = rest
            self._have(question, entry, generation, MISS if fetched else HIT)
        elif kind == Said.STALE:
            entry, generation = rest
            self._have(question, entry, generation, STALE)
        elif kind == Said.GROWS:
            self._grows(question, *rest)
        elif kind == Said.PASS:
            self._pass(question, rest[0])
        elif kind == Said.NAMED:
            self._named(question, Name(*rest))
        else:
            self._refuse(question, *rest)

    def _have(self, question: _Question, entry: int, generation: int, how: bytes) -> None:
        record = self._reader.open(entry, generation)
        waiters = question.waiters
        for place, waiter in enumerate(waiters):
            # An answer may let its connection go on with the next request, which looks up another photo.
            if record is None or not self._reader.valid(record):
                self._again(question, waiters[place:])
                return
            self._finish(waiter, self._answer, question, waiter, record, how)

    def _answer(self, question: _Question, waiter: _Waiter, record: Record, how: bytes) -> None:
        private_until = self._shown_until(question, waiter, record)
        if how is not MISS:  # the policy knows that it came; that it was asked for again is something else
            self._reader.hit(record)
        sent_bytes = answer(waiter.connection, waiter.request, record, how, private_until)
        self._count(how, sent_bytes, waiter.started)

    def _shown_until(self, question: _Question, waiter: _Waiter, record: Record) -> int:
        assert isinstance(question.what, Name)  # a photo comes by the name of its needle
        return self._signatures.shown_until(waiter.request, Fid(*question.what), record.flags)

    def _count(self, how: bytes, sent_bytes: int, started: int) -> None:
        counter, bytes_counter = _COUNTED[how]
        self._tally.add(counter)
        self._tally.add(bytes_counter, sent_bytes)
        self._tally.took(Histogram.HIT if how is HIT else Histogram.MISS, clock.now_ns() - started)

    def _finish(self, waiter: _Waiter, work: Callable[..., None], *args: Any) -> None:
        self._waiting -= 1
        problem: Exception | None = None
        try:
            work(*args)
        except Exception as error:  # it belongs to this request, and the others are to be answered
            problem = error
        waiter.connection.finish_deferred(problem)

    def _refuse(self, question: _Question, status: int, message: str) -> None:
        self._tally.add(Counter.NEGATIVE if status == 404 else Counter.REFUSED, len(question.waiters))
        for waiter in question.waiters:
            self._finish(waiter, _refuse_one, waiter.connection, status, message)

    def _named(self, question: _Question, name: Name) -> None:
        waiters, question.waiters = question.waiters, []
        asked = self._by_name.get((name, question.through_cdn, False)) or self._ask(name, question.through_cdn, False)
        asked.waiters += waiters

    # What takes longer.

    def _grows(self, question: _Question, entry: int, generation: int) -> None:
        growing = self._growing.get(entry)
        if growing is None or growing.generation != generation:
            record = self._reader.open(entry, generation)
            if record is None:
                self._again(question, question.waiters)
                return
            growing = Growing(record)
            record.pin()
            self._growing[entry] = growing
        growing.users += len(question.waiters)
        for waiter in question.waiters:
            self._spawn(waiter, self._send_growing(question, waiter, growing))

    def _grew(self, entry: int) -> None:
        growing = self._growing.get(entry)
        if growing is not None:
            growing.grew()

    async def _send_growing(self, question: _Question, waiter: _Waiter, growing: Growing) -> None:
        try:
            private_until = self._shown_until(question, waiter, growing.record)
            sent_bytes = await growing.send(waiter.connection, waiter.request, private_until)
        finally:
            growing.users -= 1
            if not growing.users:
                if self._growing.get(growing.record.entry) is growing:
                    del self._growing[growing.record.entry]
                growing.record.unpin()
        self._count(MISS, sent_bytes, waiter.started)

    def _pass(self, question: _Question, addresses: Sequence[str]) -> None:
        for waiter in question.waiters:
            self._spawn(waiter, self._pass_one(waiter, _target(question, waiter.request), addresses))

    async def _pass_one(self, waiter: _Waiter, target: str, addresses: Sequence[str]) -> None:
        sent_bytes = await self._passing.run(waiter.connection, waiter.request, target, addresses)
        self._tally.add(Counter.PASSED)
        self._tally.add(Counter.PASSED_BYTES, sent_bytes)
        self._tally.took(Histogram.MISS, clock.now_ns() - waiter.started)

    def _spawn(self, waiter: _Waiter, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(self._run(waiter, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, waiter: _Waiter, work: Any) -> None:
        problem: Exception | None = None
        try:
            await work
        except Exception as error:  # belongs to this request
            problem = error
        finally:
            self._waiting -= 1
        waiter.connection.finish_deferred(problem)


def _target(question: _Question, request: Request) -> str:
    """What a Store is asked for in place of a client: what he asked for, but Stores know no photo ids."""
    if not request.path.startswith(PHOTO_PREFIX) or not isinstance(question.what, Name):
        return request.target.decode("ascii")
    return f"/{Fid(*question.what)}" + (f"?{request.query}" if request.query else "")


def _refuse_one(connection: HttpConnection, status: int, message: str) -> None:
    if status == 404:
        raise NeedleNotFound(message)
    connection.respond_error(status, message, RETRY_SOON if status == 503 else b"")


_COUNTED = {
    HIT: (Counter.HITS, Counter.HIT_BYTES),
    MISS: (Counter.MISSES, Counter.MISS_BYTES),
    STALE: (Counter.STALE, Counter.STALE_BYTES),
}
