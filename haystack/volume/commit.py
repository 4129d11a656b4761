"""Group commit: uploads that come while the disk is busy share its next write, its next commit and its next fdatasync.

One :class:`Committer` serves all volumes of a data folder with a few threads. A thread takes whatever waits at the
moment, for any volume, as one *wave*: it appends to one volume after the other and then makes all of them durable at
once, since a file system shares a commit of its journal among fdatasyncs that wait together. A volume is in one wave at
a time; what comes for it meanwhile waits, and goes into a later wave as a whole. One thread would make the fullest
waves; there are more so that a large wave, or a volume whose append lock another process holds, does not keep all
others waiting. A volume that was given megabytes is free for another wave as soon as they are written: then large
uploads are copied to the page cache while the disk works at those before them.

After a wave its clients are likely to come with their next upload at once. Those who came while it was carried out
wait for them a moment, so that all go together: without that, two halves of the clients take turns for ever, and each
half pays for a wave of its own. The moment ends when as many have come as were answered, and is never longer than a
sync of this disk takes anyway.

A wave passes three steps: each volume is appended to, then all are made durable (``sync_all`` is given every volume
with what was appended, bytes and offsets included, so that a copy elsewhere can be made at the same time), then the
outcomes are handed out.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Protocol

from haystack.errors import HaystackError, OutOfSpace, VolumeMoved, VolumeUnavailable
from haystack.volume.operations import Appended, Operation, Outcome, Put, Written

_log = logging.getLogger(__name__)

ROUND_OPERATIONS = 1024
"""Operations in one write; bounds how long the append lock is held."""

ROUND_BYTES = 8 * 2**20
"""Bytes of photos in one write, unless a single one is larger."""

OVERLAP_BYTES = 2**20
"""After a write of so many bytes the volume is free for the next wave while this one is synced: what takes the disk
long shall not keep the processor waiting, nor the copying of the next megabytes the disk."""

WAVE_BYTES = 8 * 2**20
"""A wave takes no further volume when it has so many bytes: the disk shall have something to do while others append."""

GATHER_FROM_OPERATIONS = 4
"""Smaller waves are not waited for: so few clients gain less by sharing than they lose by waiting."""

GATHER_SECONDS = 0.0003
"""Longest wait for the clients of the last wave."""

Done = Callable[[Outcome], None]
"""Receives the outcome of one operation, on a thread of the committer."""

Committed = Callable[[Appended], None]
"""Called once a round, before the outcomes are handed out, when all of it is as durable as was asked for."""

Submission = tuple["Appendable", Operation, Done]


class Undecided(VolumeUnavailable):
    """What ``sync_all`` answers when something was written here, but whether it counts is not known yet.

    ``outcome`` is what becomes of the operation if it does.
    """

    outcome: Outcome | None = None

    def about(self, outcome: Outcome | None) -> Undecided:
        """The same for one operation."""
        raise NotImplementedError


class Appendable(Protocol):
    """What operations are carried out on: a :class:`~haystack.volume.volume.Volume`, or what stands for one."""

    def append(self, operations: Sequence[Operation]) -> Appended:
        """Carry out operations, see ``Volume.append``."""

    def sync(self, tail: int) -> None:
        """Make everything below ``tail`` durable, see ``Volume.sync``."""


SyncAll = Callable[[Sequence[tuple[Appendable, Appended]]], Sequence[Exception | None]]
"""Makes what was appended to several volumes durable; returns what went wrong with each."""


def _ignore(appended: Appended) -> None:
    """Nobody wants to know."""


@dataclass(slots=True)
class _Queue:
    """What waits for one volume."""

    volume: Appendable
    committed: Committed
    waiting: deque[tuple[Operation, Done]] = field(default_factory=deque)
    pause: _Pause | None = None
    """Somebody waits for more to come."""


@dataclass(slots=True)
class _Pause:
    """A wait for the clients of a wave.

    Parameters
    ----------
    missing: how many are still to come.
    over: gets something when none is.
    """

    missing: int
    over: SimpleQueue[None] = field(default_factory=SimpleQueue)


@dataclass(slots=True)
class _Round:
    """One volume's part of a wave."""

    queue: _Queue
    operations: list[Operation]
    receivers: list[Done]
    size_bytes: int = 0
    appended: Appended | None = None
    failure: HaystackError | None = None
    moved: bool = False
    """Some of it was not carried out because the volume was compacted meanwhile."""

    def outcomes(self) -> Sequence[Outcome]:
        """What became of each operation. A failure of the round does not hide an operation's own error."""
        found = self.appended.outcomes if self.appended is not None else [None] * len(self.operations)
        if self.failure is None:
            return [outcome for outcome in found if outcome is not None]
        if isinstance(self.failure, Undecided):
            return [outcome if isinstance(outcome, HaystackError) else self.failure.about(outcome) for outcome in found]
        return [outcome if isinstance(outcome, HaystackError) else self.failure for outcome in found]


class Committer:
    """Carries out operations on any number of volumes.

    Parameters
    ----------
    durable: wait for fdatasync before an operation is done.
    threads: waves at the same time.
    deliver: hands a wave's outcomes over, as pairs of ``Done`` and outcome; by default it calls them right there. An
        event loop gives ``call_soon_threadsafe`` here, so that a wave costs one wake-up.
    sync_all: makes several volumes durable; by default one after the other.
    gather_seconds: longest wait for those who were answered just now.
    moved: gets the operations of a volume that was compacted before they were carried out (VolumeMoved), to submit them
        for the volume as it is now; by default that is their outcome.
    """

    def __init__(
        self,
        *,
        durable: bool = True,
        threads: int = 8,
        deliver: Callable[[list[tuple[Done, Outcome]]], None] | None = None,
        sync_all: SyncAll | None = None,
        gather_seconds: float = GATHER_SECONDS,
        moved: Callable[[list[Submission]], None] | None = None,
    ) -> None:
        self._durable = durable
        self._deliver = deliver or deliver_now
        self._sync_all = sync_all or sync_each
        self._gather_seconds = gather_seconds
        self._moved = moved
        self._max_threads = threads
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._lock = threading.Lock()
        self._queues: dict[int, _Queue] = {}
        """Volumes with operations that wait or are being carried out, by their identity."""
        self._listed: deque[_Queue] = deque()
        """Those of them that no wave has taken."""
        self._closed = False

    def submit(self, volume: Appendable, operation: Operation, done: Done, committed: Committed = _ignore) -> None:
        """Queue an operation; never blocks. ``committed`` of the first submission for a volume stays in force.

        Raises VolumeUnavailable after :meth:`close`.
        """
        with self._lock:
            if self._closed:
                raise VolumeUnavailable(f"{volume}: writes are being stopped")
            self._enlist(volume, operation, done, committed)
            self._wake_one()

    def submit_all(self, submissions: Sequence[Submission]) -> None:
        """Queue operations that came together, so that they go into one wave. Raises as :meth:`submit`."""
        with self._lock:
            if self._closed:
                raise VolumeUnavailable("writes are being stopped")
            for volume, operation, done in submissions:
                self._enlist(volume, operation, done, _ignore)
            self._wake_one()

    def close(self) -> None:
        """Finish what is queued, then stop the threads."""
        with self._lock:
            self._closed = True
            for _ in self._threads:
                self._wake.put(None)
            for queue in self._queues.values():
                if queue.pause is not None:
                    queue.pause.over.put(None)
        for thread in self._threads:
            thread.join()

    def _enlist(self, volume: Appendable, operation: Operation, done: Done, committed: Committed) -> None:
        queue = self._queues.get(id(volume))
        if queue is None:
            queue = self._queues[id(volume)] = _Queue(volume, committed)
            self._listed.append(queue)
        queue.waiting.append((operation, done))
        pause = queue.pause
        if pause is not None:
            pause.missing -= 1
            if not pause.missing:
                pause.over.put(None)

    def _wake_one(self) -> None:
        if not self._listed:
            return
        if self._idle:
            self._idle -= 1
            self._wake.put(None)
        elif len(self._threads) < self._max_threads:
            # A daemon: a process that ends without close() has promised nothing to those who still wait.
            thread = threading.Thread(target=self._work, name=f"commit-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        while True:
            wave = self._take_wave()
            if wave:
                self._carry_out(wave)
            elif self._closed:
                return
            else:
                self._wake.get()

    def _take_wave(self) -> list[_Round]:
        """The operations of the volumes that wait; when there are none, this thread counts as idle."""
        wave: list[_Round] = []
        size_bytes = 0
        with self._lock:
            while self._listed and size_bytes < WAVE_BYTES:
                queue = self._listed.popleft()
                round_ = _Round(queue, [], [])
                _fill(round_)
                size_bytes += round_.size_bytes
                wave.append(round_)
            if wave:
                self._wake_one()
            elif not self._closed:
                self._idle += 1
        return wave

    def _expect(self, wave: list[_Round]) -> _Pause | None:
        """Count who comes for these volumes from now on, if it is worth while to wait for those answered now."""
        answered = sum(len(round_.operations) for round_ in wave)
        if answered < GATHER_FROM_OPERATIONS:
            return None
        pause = _Pause(answered)
        with self._lock:
            if self._closed:
                return None
            for round_ in wave:
                round_.queue.pause = pause
        return pause

    def _await(self, pause: _Pause, wave: list[_Round], most_seconds: float) -> None:
        with suppress(Empty):
            pause.over.get(timeout=most_seconds)
        with self._lock:
            for round_ in wave:
                round_.queue.pause = None

    def _relist(self, wave: list[_Round]) -> None:
        """Let what came for these volumes meanwhile wait behind the others, so that none waits for ever."""
        with self._lock:
            for round_ in wave:
                queue = round_.queue
                if queue.waiting:
                    self._listed.append(queue)
                else:
                    del self._queues[id(queue.volume)]
            self._wake_one()

    def _carry_out(self, wave: list[_Round]) -> None:
        for round_ in wave:
            _guard(_append, round_)
        if not self._durable:
            self._hand_out(wave)
            self._relist(wave)
        elif sum(round_.size_bytes for round_ in wave) >= OVERLAP_BYTES:
            self._relist(wave)
            self._sync(wave)
            self._hand_out(wave)
        else:
            self._sync_and_gather(wave)
            self._relist(wave)

    def _sync_and_gather(self, wave: list[_Round]) -> None:
        began = time.monotonic()
        self._sync(wave)
        sync_seconds = time.monotonic() - began
        pause = self._expect(wave)
        self._hand_out(wave)
        if pause is not None:
            self._await(pause, wave, min(self._gather_seconds, sync_seconds))

    def _hand_out(self, wave: list[_Round]) -> None:
        pairs: list[tuple[Done, Outcome]] = []
        for round_ in wave:
            if round_.failure is None:
                _guard(_tell, round_)
            outcomes = round_.outcomes()
            if round_.moved and self._moved is not None:
                pairs += self._submit_again(round_, outcomes, self._moved)
            else:
                pairs += zip(round_.receivers, outcomes, strict=True)
        try:
            self._deliver(pairs)
        except Exception:  # one receiver that fails must not stop the queues of all others
            _log.exception("outcomes of %s could not be delivered", ", ".join(str(one.queue.volume) for one in wave))

    def _submit_again(
        self, round_: _Round, outcomes: Sequence[Outcome], moved: Callable[[list[Submission]], None]
    ) -> list[tuple[Done, Outcome]]:
        """Hand over what was not carried out because the volume is another file by now; returns the rest."""
        again: list[Submission] = []
        rest: list[tuple[Done, Outcome]] = []
        for operation, done, outcome in zip(round_.operations, round_.receivers, outcomes, strict=True):
            if isinstance(outcome, VolumeMoved):
                again.append((round_.queue.volume, operation, done))
            else:
                rest.append((done, outcome))
        moved(again)
        return rest

    def _sync(self, wave: list[_Round]) -> None:
        written = [(one, one.appended) for one in wave if one.appended is not None]
        if not written:
            return
        # Waves that overlap may have volumes in common, and whoever syncs locks each of its volumes: in one order.
        written.sort(key=lambda pair: id(pair[0].queue.volume))
        problems: Sequence[Exception | None]
        try:
            problems = self._sync_all([(one.queue.volume, appended) for one, appended in written])
        except Exception as error:  # a bug there: nobody knows what is durable, and the clients wait
            problems = [error] * len(written)
        for (round_, _), problem in zip(written, problems, strict=True):
            if problem is not None:
                _fail(round_, problem)


def sync_each(volumes: Sequence[tuple[Appendable, Appended]]) -> list[Exception | None]:
    """Make volumes durable one after the other."""
    return [_problem_of(volume, appended.tail) for volume, appended in volumes]


def _problem_of(volume: Appendable, tail: int) -> Exception | None:
    try:
        volume.sync(tail)
    except Exception as error:
        return error
    return None


def _guard(act: Callable[[_Round], None], round_: _Round) -> None:
    try:
        act(round_)
    except Exception as error:
        _fail(round_, error)


def _fail(round_: _Round, error: Exception) -> None:
    if not isinstance(error, HaystackError):  # a bug here must answer the clients that wait, and be seen
        _log.error("append to %s failed", round_.queue.volume, exc_info=error)
        error = _unexpected(round_.queue.volume, error)
    round_.failure = error
    round_.moved |= isinstance(error, VolumeMoved)


def _tell(round_: _Round) -> None:
    if round_.appended is not None:
        round_.queue.committed(round_.appended)


def _fill(round_: _Round) -> None:
    """Move what waits into the round, as far as it fits."""
    waiting, size_bytes = round_.queue.waiting, 0
    while waiting and len(round_.operations) < ROUND_OPERATIONS and size_bytes < ROUND_BYTES:
        operation, done = waiting.popleft()
        round_.operations.append(operation)
        round_.receivers.append(done)
        size_bytes += _data_bytes(operation)
    round_.size_bytes = size_bytes


def _append(round_: _Round) -> None:
    volume, operations = round_.queue.volume, round_.operations
    try:
        round_.appended = volume.append(operations)
        return
    except OutOfSpace:
        if len(operations) == 1:
            raise
    # One large upload must not take the small ones down with it.
    outcomes: list[Outcome] = []
    tail, changed = 0, False
    written: list[Written] = []
    for operation in operations:
        try:
            appended = volume.append([operation])
        except (OutOfSpace, VolumeMoved) as error:
            round_.moved |= isinstance(error, VolumeMoved)
            outcomes.append(error)
            continue
        outcomes += appended.outcomes
        tail, changed = appended.tail, changed or appended.changed
        written += appended.written
    if not tail:
        raise _last_error(outcomes)
    round_.appended = Appended(outcomes, tail, changed, tuple(written))


def _last_error(outcomes: list[Outcome]) -> HaystackError:
    error = outcomes[-1]
    assert isinstance(error, HaystackError)
    return error


def deliver_now(outcomes: list[tuple[Done, Outcome]]) -> None:
    """Call each ``Done`` with its outcome."""
    for done, outcome in outcomes:
        done(outcome)


def _data_bytes(operation: Operation) -> int:
    if not isinstance(operation, Put):
        return 0
    needles = operation.needles
    return needles[0].data_bytes if len(needles) == 1 else sum(needle.data_bytes for needle in needles)


def _unexpected(volume: Appendable, error: Exception) -> HaystackError:
    failure = VolumeUnavailable(f"{volume}: unexpected {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
