"""Batches of other Stores on their way into the volumes of one data folder.

As with uploads (:mod:`haystack.volume.commit`), what waits at the same moment is made durable together.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

from haystack.errors import DiskError, HaystackError, IndexDamaged, VolumeUnavailable
from haystack.store.control_cells import VolumeState
from haystack.store.replication import rules
from haystack.store.replication.rules import Verdict
from haystack.volume.layout import Buffer
from haystack.volume.replica import Landed

if TYPE_CHECKING:
    from haystack.store.catalog import ServedVolume

_log = logging.getLogger(__name__)

LANDING_THREADS = 2
"""While one waits for the disk, the other appends."""

MAX_WAVE_BATCHES = 64

_SERVING = (VolumeState.WRITABLE, VolumeState.READONLY)


class BatchRefused(HaystackError):
    """A replica does not take a batch.

    Parameters
    ----------
    verdict: why.
    epoch, tail: of this copy.
    """

    http_status = 409

    def __init__(self, volume: int, verdict: Verdict, epoch: int, tail: int) -> None:
        super().__init__(f"volume {volume}: {verdict.value}; here epoch {epoch}, tail {tail}")
        self.verdict = verdict
        self.epoch = epoch
        self.tail = tail


class Arrived(NamedTuple):
    """A batch: epoch, where it lies in the volume, its bytes; generation of the volume that it was read from.

    The generation is None when the sender did not say: a Store of an older release, which compacts no copies.
    """

    served: ServedVolume
    epoch: int
    start: int
    data: Buffer
    generation: int | None = None


LandedOrNot = Landed | HaystackError
Done = Callable[[LandedOrNot], None]
SyncAll = Callable[[Sequence[tuple["ServedVolume", int]]], Sequence[Exception | None]]


class Landings:
    """Threads for the batches of one data folder.

    Parameters
    ----------
    sync_all: makes volumes durable, each up to its tail; returns what went wrong with each.
    """

    def __init__(self, sync_all: SyncAll) -> None:
        self._sync_all = sync_all
        self._waiting: SimpleQueue[tuple[Arrived, Done] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def submit(self, arrived: Arrived, done: Done) -> None:
        """Queue a batch; ``done`` is called on a thread when it is durable, or refused. The volume must be pinned."""
        self._waiting.put((arrived, done))
        if len(self._threads) < LANDING_THREADS:
            thread = threading.Thread(target=self._work, name=f"land-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """Finish what is queued, then stop the threads."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (first := self._waiting.get()) is not None:
            wave = [first]
            while len(wave) < MAX_WAVE_BATCHES and not self._waiting.empty():
                following = self._waiting.get()
                if following is None:
                    self._waiting.put(None)
                    break
                wave.append(following)
            self._carry_out(wave)

    def _carry_out(self, wave: list[tuple[Arrived, Done]]) -> None:
        # Two batches of one volume that overtook each other are put right here when they come together.
        wave.sort(key=lambda one: one[0].start)
        outcomes = [(arrived, done, _guarded(arrived)) for arrived, done in wave]
        tails: dict[ServedVolume, int] = {}
        for arrived, _, outcome in outcomes:
            if isinstance(outcome, Landed):
                tails[arrived.served] = max(outcome.tail, tails.get(arrived.served, 0))
        problems = dict(zip(tails, self._sync_all(list(tails.items())), strict=True)) if tails else {}
        for arrived, done, outcome in outcomes:
            problem = problems.get(arrived.served) if isinstance(outcome, Landed) else None
            done(outcome if problem is None else _as_ours(arrived, problem))


def _guarded(arrived: Arrived) -> LandedOrNot:
    try:
        return land(arrived)
    except Exception as error:  # a bug must answer who waits, and be seen
        return _as_ours(arrived, error)


def _as_ours(arrived: Arrived, error: Exception) -> HaystackError:
    if isinstance(error, HaystackError):
        return error
    _log.error("a batch for %s failed", arrived.served, exc_info=error)
    return VolumeUnavailable(f"{arrived.served}: unexpected {type(error).__name__}: {error}")


def land(arrived: Arrived) -> Landed:
    """Append a batch, not yet durable.

    Raises BatchRefused, BatchDiverged, BatchDamaged, VolumeUnavailable, OutOfSpace, DiskError.
    """
    served, epoch, start = arrived.served, arrived.epoch, arrived.start
    end = start + len(arrived.data)

    def judge(tail: int) -> int:
        # Read under the append lock: who changes them takes that lock before it says that they are in force.
        standing = served.membership.standing
        if served.state not in _SERVING:
            raise VolumeUnavailable(f"volume {served.number} is {served.state.name.lower()} here")
        other = rules.judge_generation(served.generation, arrived.generation)
        if other is not Verdict.APPEND:
            raise BatchRefused(served.number, other, standing.epoch, tail)
        verdict, shared_to = rules.judge_batch(standing, tail, epoch, start, end)
        if verdict is not Verdict.APPEND:
            raise BatchRefused(served.number, verdict, standing.epoch, tail)
        return shared_to

    try:
        landed = served.volume.append_batch(start, arrived.data, judge)
    except (DiskError, IndexDamaged) as error:
        served.set_aside(error)
        raise
    if landed.changed:
        served.void_answers(landed.tail)
    return landed
