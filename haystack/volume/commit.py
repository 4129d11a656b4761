"""Group commit: uploads that come while a volume is busy share its next write, its next commit and its next fdatasync.

One :class:`Committer` serves all volumes of a process with a few threads. A volume is worked on by at most one of them
at a time; while that one waits for the disk, operations queue up, and all of them go into the next round.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from haystack.errors import HaystackError, OutOfSpace, VolumeUnavailable
from haystack.volume.append import Appended, Operation, Outcome, Put

_log = logging.getLogger(__name__)

ROUND_OPERATIONS = 1024
"""Operations in one write; bounds how long the append lock is held."""

ROUND_BYTES = 64 * 2**20
"""Bytes of photos in one write, unless a single one is larger."""

Done = Callable[[Outcome], None]
"""Receives the outcome of one operation, on a thread of the committer."""

Committed = Callable[[Appended], None]
"""Called once a round, before the outcomes are handed out, when all of it is as durable as was asked for."""


class Appendable(Protocol):
    """What operations are carried out on: a :class:`~haystack.volume.volume.Volume`, or what stands for one."""

    def append(self, operations: Sequence[Operation]) -> Appended:
        """Carry out operations, see ``Volume.append``."""

    def sync(self, tail: int) -> None:
        """Make everything below ``tail`` durable, see ``Volume.sync``."""


@dataclass(slots=True)
class _Queue:
    """What waits for one volume."""

    volume: Appendable
    committed: Committed
    waiting: deque[tuple[Operation, Done]] = field(default_factory=deque)


class Committer:
    """Carries out operations on any number of volumes.

    Parameters
    ----------
    durable: wait for fdatasync before an operation is done.
    threads: volumes that are written to at once.
    deliver: hands a round's outcomes over, as pairs of ``Done`` and outcome; by default it calls them right there. An
        event loop gives ``call_soon_threadsafe`` here, so that a round costs one wake-up.
    """

    def __init__(
        self,
        *,
        durable: bool = True,
        threads: int = 8,
        deliver: Callable[[list[tuple[Done, Outcome]]], None] | None = None,
    ) -> None:
        self._durable = durable
        self._deliver = deliver or deliver_now
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "commit")
        self._lock = threading.Lock()
        self._queues: dict[int, _Queue] = {}
        self._closed = False

    def submit(
        self, volume: Appendable, operation: Operation, done: Done, committed: Committed = lambda _: None
    ) -> None:
        """Queue an operation; never blocks. ``committed`` of the first submission for a volume stays in force.

        Raises VolumeUnavailable after :meth:`close`.
        """
        with self._lock:
            if self._closed:
                raise VolumeUnavailable(f"{volume}: writes are being stopped")
            queue = self._queues.get(id(volume))
            if queue is not None:
                queue.waiting.append((operation, done))
                return
            queue = self._queues[id(volume)] = _Queue(volume, committed)
            queue.waiting.append((operation, done))
            self._pool.submit(self._work, queue)

    def close(self) -> None:
        """Finish what is queued, then stop the threads."""
        with self._lock:
            self._closed = True
        self._pool.shutdown(wait=True)

    def _work(self, queue: _Queue) -> None:
        while round_ := self._take(queue):
            outcomes = self._run(queue, [operation for operation, _ in round_])
            try:
                self._deliver([(done, outcome) for (_, done), outcome in zip(round_, outcomes, strict=True)])
            except Exception:  # one receiver that fails must not stop the volume's queue for all others
                _log.exception("outcomes of %s could not be delivered", queue.volume)
            if self._give_way(queue):
                return

    def _take(self, queue: _Queue) -> list[tuple[Operation, Done]]:
        taken: list[tuple[Operation, Done]] = []
        size_bytes = 0
        with self._lock:
            while queue.waiting and len(taken) < ROUND_OPERATIONS and size_bytes < ROUND_BYTES:
                taken.append(queue.waiting.popleft())
                size_bytes += _data_bytes(taken[-1][0])
            if not taken:
                del self._queues[id(queue.volume)]
        return taken

    def _give_way(self, queue: _Queue) -> bool:
        """Queue up behind the other volumes when there are more of them than threads, so that none waits for ever."""
        with self._lock:
            if self._closed or len(self._queues) <= self._threads:
                return False
            self._pool.submit(self._work, queue)
            return True

    def _run(self, queue: _Queue, operations: list[Operation]) -> list[Outcome]:
        outcomes: Sequence[Outcome | None] = [None] * len(operations)
        try:
            appended = self._append(queue.volume, operations)
            outcomes = appended.outcomes
            if self._durable:
                queue.volume.sync(appended.tail)
            queue.committed(appended)
            return appended.outcomes
        except HaystackError as error:
            failure = error
        except Exception as error:  # a bug here must answer the clients that wait, and be seen
            _log.exception("append to %s failed", queue.volume)
            failure = _unexpected(queue.volume, error)
        return [outcome if isinstance(outcome, HaystackError) else failure for outcome in outcomes]

    def _append(self, volume: Appendable, operations: list[Operation]) -> Appended:
        try:
            return volume.append(operations)
        except OutOfSpace:
            if len(operations) == 1:
                raise
        # One large upload must not take the small ones down with it.
        outcomes: list[Outcome] = []
        tail, changed = 0, False
        for operation in operations:
            try:
                appended = volume.append([operation])
            except OutOfSpace as error:
                outcomes.append(error)
                continue
            outcomes += appended.outcomes
            tail, changed = appended.tail, changed or appended.changed
        if not tail:
            raise _last_error(outcomes)
        return Appended(outcomes, tail, changed)


def _last_error(outcomes: list[Outcome]) -> HaystackError:
    error = outcomes[-1]
    assert isinstance(error, HaystackError)
    return error


def deliver_now(outcomes: list[tuple[Done, Outcome]]) -> None:
    """Call each ``Done`` with its outcome."""
    for done, outcome in outcomes:
        done(outcome)


def _data_bytes(operation: Operation) -> int:
    return sum(needle.data_bytes for needle in operation.needles) if isinstance(operation, Put) else 0


def _unexpected(volume: Appendable, error: Exception) -> HaystackError:
    failure = VolumeUnavailable(f"{volume}: unexpected {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
