"""Threads for the I/O of one data folder.

Each folder has its own, so that a disk that hangs makes only its own clients wait.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, cast

from haystack.errors import HaystackError
from haystack.store.read_threads import ReadThreads
from haystack.store.replication.copying import Copies
from haystack.store.replication.landing import Landings
from haystack.store.replication.waves import copied
from haystack.volume.commit import Appendable, Committer, Done, Submission, sync_each
from haystack.volume.direct import DirectReads
from haystack.volume.operations import Appended, Operation, Outcome
from haystack.volume.syncs import Syncs

if TYPE_CHECKING:
    from haystack.store.catalog import ServedVolume

_log = logging.getLogger(__name__)

READ_THREADS = 8
"""Reads that wait for a disk at the same time; the queue depth that saturated every disk that was measured."""

COMMIT_THREADS = 2
"""Waves of a folder at the same time: while one waits for the disk, the next is written. More make smaller waves."""

GATHERED_OPERATIONS = 64
"""Operations that are handed over at once, though more may be about to come."""

SPILL_THREADS = 2


class Lane:
    """Threads and committer for one data folder, in one worker.

    Parameters
    ----------
    folder: the data folder.
    durable: wait for fdatasync before an operation is done.
    deliver: see :class:`~haystack.volume.commit.Committer`.
    copies: sends what is appended to other Stores; None when there are none.
    moved: see :class:`~haystack.volume.commit.Committer`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        durable: bool,
        deliver: Callable[[list[tuple[Done, Outcome]]], None],
        copies: Copies | None = None,
        moved: Callable[[list[Submission]], None] | None = None,
    ) -> None:
        self.folder = folder
        self.copies = copies
        self._durable = durable
        self.readers = ReadThreads(READ_THREADS, "read")
        self.spillers = ThreadPoolExecutor(SPILL_THREADS, "spill")
        self._syncs = Syncs()
        self.committer = Committer(
            durable=durable or copies is not None,
            threads=COMMIT_THREADS,
            deliver=deliver,
            sync_all=self._sync_all,
            moved=moved,
        )
        self.landings = Landings(self._sync_landed if durable else _published)
        self._gathered: list[Submission] = []
        self._direct: DirectReads | None = None
        self._has_direct = True

    def direct(self) -> DirectReads | None:
        """Reads without threads, made when first asked for, on the event loop; None where the kernel has none."""
        if self._direct is None and self._has_direct:
            loop = asyncio.get_running_loop()
            try:
                self._direct = DirectReads(loop.call_soon)
            except OSError as error:
                _log.warning("%s: photos that are not in memory are read by threads: %s", self.folder, error)
                self._has_direct = False
            else:
                loop.add_reader(self._direct.event_fd, self._direct.finish)
        return self._direct

    def submit(self, served: ServedVolume, operation: Operation, done: Done) -> None:
        """Queue an operation, on the event loop. What comes in one turn of the loop goes into one wave.

        ``done`` gets every outcome, VolumeUnavailable after :meth:`close` as well.
        """
        if not self._gathered:
            asyncio.get_running_loop().call_soon(self._gather, 0)
        self._gathered.append((served, operation, done))

    def close(self) -> None:
        """Finish what was begun and stop the threads."""
        self._hand_over()
        if self._direct is not None:
            asyncio.get_running_loop().remove_reader(self._direct.event_fd)
            self._direct.close()
        self.committer.close()
        self.landings.close()
        self._syncs.close()
        self.spillers.shutdown()
        self.readers.close()

    def _gather(self, seen: int) -> None:
        """Hand over when a turn of the loop has brought nothing new: fewer and fuller waves, without waiting."""
        count = len(self._gathered)
        if seen < count < GATHERED_OPERATIONS:
            asyncio.get_running_loop().call_soon(self._gather, count)
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        gathered, self._gathered = self._gathered, []
        if not gathered:
            return
        try:
            self.committer.submit_all(gathered)
        except HaystackError as error:
            for _, _, done in gathered:
                done(error)

    def _sync_all(self, volumes: Sequence[tuple[Appendable, Appended]]) -> Sequence[Exception | None]:
        if self.copies is None:
            return self._sync_here(volumes)
        return copied(self.copies, cast("Sequence[tuple[ServedVolume, Appended]]", volumes), self._sync_here)

    def _sync_here(self, volumes: Sequence[tuple[Appendable, Appended]]) -> Sequence[Exception | None]:
        if not self._durable:
            return [None] * len(volumes)
        if len(volumes) == 1:
            return sync_each(volumes)
        return sync_together(self._syncs, [(volume, appended.tail) for volume, appended in volumes])

    def _sync_landed(self, volumes: Sequence[tuple[ServedVolume, int]]) -> Sequence[Exception | None]:
        return sync_together(self._syncs, volumes)


def _published(volumes: Sequence[tuple[ServedVolume, int]]) -> Sequence[Exception | None]:
    """What was appended counts as durable at once."""
    for served, tail in volumes:
        served.publish(tail)
    return [None] * len(volumes)


def sync_together(syncs: Syncs, volumes: Sequence[tuple[Appendable, int]]) -> list[Exception | None]:
    """Make volumes durable at once; returns what went wrong with each."""
    problems: list[Exception | None] = [None] * len(volumes)
    begun: list[tuple[int, ServedVolume, int]] = []
    fds: list[int] = []
    # In the same order by all: each holds a lock of the volume until the end.
    for index, served, tail in sorted(
        ((index, cast("ServedVolume", appendable), tail) for index, (appendable, tail) in enumerate(volumes)),
        key=lambda row: row[1].number,
    ):
        try:
            fd = served.begin_sync(tail)
        except HaystackError as error:
            problems[index] = error
            continue
        if fd >= 0:
            fds.append(fd)
            begun.append((index, served, tail))
    try:
        codes = syncs.sync(fds) if fds else []
    except OSError as error:  # whatever it was, nobody knows what is durable now; and end_sync must be called
        codes = [error.errno or errno.EIO] * len(fds)
    for (index, served, tail), code in zip(begun, codes, strict=True):
        try:
            served.end_sync(tail, code)
        except HaystackError as error:
            problems[index] = error
    return problems
