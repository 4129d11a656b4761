"""Threads for the I/O of one data folder.

Each folder has its own, so that a disk that hangs makes only its own clients wait.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from haystack.store.read_threads import ReadThreads
from haystack.volume.append import Outcome
from haystack.volume.commit import Committer, Done

READ_THREADS = 8
"""Reads that wait for a disk at the same time; the queue depth that saturated every disk that was measured."""

COMMIT_THREADS = 8
"""Volumes of a folder that are written to at the same time."""

SPILL_THREADS = 2


class Lane:
    """Threads and committer for one data folder, in one worker.

    Parameters
    ----------
    folder: the data folder.
    durable: wait for fdatasync before an operation is done.
    deliver: see :class:`~haystack.volume.commit.Committer`.
    """

    def __init__(self, folder: Path, *, durable: bool, deliver: Callable[[list[tuple[Done, Outcome]]], None]) -> None:
        self.folder = folder
        self.readers = ReadThreads(READ_THREADS, "read")
        self.spillers = ThreadPoolExecutor(SPILL_THREADS, "spill")
        self.committer = Committer(durable=durable, threads=COMMIT_THREADS, deliver=deliver)

    def close(self) -> None:
        """Finish what was begun and stop the threads."""
        self.committer.close()
        self.spillers.shutdown()
        self.readers.close()
