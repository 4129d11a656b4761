"""One thread that writes: decisions go in, each is run on a draft, and what waits together is committed together.

A decision is a function of a :class:`~directory.storage.interface.Draft`. It may be run several times (when the storage
reports a conflict), so it must do nothing but read, put and delete in the draft. One that raises changes nothing and
does not disturb the others of its batch.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from directory.errors import DirectoryBusy, StorageConflict
from directory.storage.interface import Draft, Storage

MAX_BATCH = 64
"""Decisions in one commit. More would keep the first of them waiting for the work of the last."""

MAX_WAITING = 4_096
MAX_ATTEMPTS = 10
"""Tries of one batch against conflicts with another Directory."""

T = TypeVar("T")


@dataclass(slots=True)
class _Job:
    decide: Callable[[Draft], Any]
    apply: Callable[[Any], None] | None
    future: asyncio.Future[Any]


@dataclass(slots=True)
class _Outcome:
    job: _Job
    result: Any = None
    error: BaseException | None = None


class Committer:
    """Runs decisions in a thread of its own and hands the results to the event loop, in the order of their commits.

    Make it inside the running event loop; end it with :meth:`close`.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._waiting = 0
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="directory-committer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """The number of decisions that are not committed yet."""
        return self._waiting

    async def run(self, decide: Callable[[Draft], T], apply: Callable[[T], None] | None = None) -> T:
        """Return the decision's result after its changes are durable.

        ``apply`` is called with the result in the event loop, in the order of the commits, even when nobody waits for
        this call any more: this is the place to bring memory into line with the storage.

        Raises
        ------
        DirectoryBusy: :data:`MAX_WAITING` decisions wait already, or the Directory is stopping.
        DiskError, OutOfSpace: the storage failed; nothing of the decision was done.
        Exception: whatever the decision itself raised.
        """
        if self._closed:
            raise DirectoryBusy("the Directory is stopping; try again in a moment")
        if self._waiting >= MAX_WAITING:
            raise DirectoryBusy(f"{self._waiting} changes are waiting to be written; try again in a moment")
        self._waiting += 1
        job = _Job(decide, apply, self._loop.create_future())
        self._queue.put(job)
        result: T = await job.future
        return result

    async def close(self) -> None:
        """Finish what was accepted, then end the thread."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        # The last results are delivered by callbacks that were scheduled before this one resumes.
        await asyncio.sleep(0)

    def _work(self) -> None:
        ending = False
        while not ending:
            jobs, ending = self._take()
            if jobs:
                outcomes = self._commit(jobs)
                self._loop.call_soon_threadsafe(self._deliver, outcomes)

    def _take(self) -> tuple[list[_Job], bool]:
        jobs: list[_Job] = []
        try:
            while len(jobs) < MAX_BATCH:
                job = self._queue.get(block=not jobs)
                if job is None:
                    return jobs, True
                jobs.append(job)
        except queue.Empty:
            pass
        return jobs, False

    def _commit(self, jobs: list[_Job]) -> list[_Outcome]:
        attempt = 0
        while True:
            attempt += 1
            try:
                draft = Draft(self._storage)
                outcomes = [self._decide(job, draft) for job in jobs]
                changes = draft.changes()
                if changes:
                    self._storage.commit(changes)
                return outcomes
            except StorageConflict as error:
                if attempt == MAX_ATTEMPTS:
                    return [_Outcome(job, error=error) for job in jobs]
            except Exception as error:  # whatever it is, those who wait must learn of it
                return [_Outcome(job, error=error) for job in jobs]

    def _decide(self, job: _Job, below: Draft) -> _Outcome:
        draft = Draft(self._storage, below)
        try:
            result = job.decide(draft)
        except Exception as error:  # handed to the one who waits for this decision
            return _Outcome(job, error=error)
        draft.merge()
        return _Outcome(job, result)

    def _deliver(self, outcomes: list[_Outcome]) -> None:
        for outcome in outcomes:
            job = outcome.job
            self._waiting -= 1
            error = outcome.error
            if error is None and job.apply is not None:
                try:
                    job.apply(outcome.result)
                except Exception as failure:  # as above: the waiter gets it, the others go on
                    error = failure
            if job.future.cancelled():
                continue
            if error is None:
                job.future.set_result(outcome.result)
            else:
                job.future.set_exception(error)
