"""fdatasync of several files at once, by one thread.

A file system shares one commit of its journal among all fdatasyncs that wait at the same moment: seven files that are
synced one after the other take about seven times as long as seven at once. Linux carries them out by itself (see
:mod:`haystack.volume.aio`), so that neither threads of ours nor Python's lock are needed for it. Where that is not
possible (an old kernel, a sandbox that refuses the calls), threads do it.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from haystack.volume.aio import AioContext

MAX_AT_ONCE = 64
"""Files that one submission names; more take turns."""

FALLBACK_THREADS = 8


class KernelSyncs:
    """A context of the kernel for one thread at a time.

    Raises OSError when the kernel gives none.
    """

    def __init__(self) -> None:
        self._aio = AioContext(MAX_AT_ONCE)

    def sync(self, fds: Sequence[int]) -> list[int]:
        """fdatasync all of them, at most ``MAX_AT_ONCE``; blocks. Returns an errno for each, 0 for success."""
        for index, fd in enumerate(fds):
            self._aio.prepare_sync(index, index, fd)
        try:
            submitted = self._aio.submit(0, len(fds))
        except OSError:
            submitted = 0
        results = [0] * len(fds)
        waiting = submitted
        while waiting:
            found = self._aio.collect(waiting, wait=True)
            for index, result in found:
                results[index] = -min(0, result)
            waiting -= len(found)
        for index in range(submitted, len(fds)):  # the kernel has no room for more, or cannot do it for such a file
            results[index] = sync_one(fds[index])
        return results

    def close(self) -> None:
        """Give the context back."""
        self._aio.close()


class Syncs:
    """Syncs several files at once, for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[KernelSyncs] = []
        self._pool: ThreadPoolExecutor | None = None

    def sync(self, fds: Sequence[int]) -> list[int]:
        """fdatasync all of them; blocks. Returns an errno for each, 0 for success.

        A failed one must not be tried again: the kernel may have dropped the pages, and reports an error once.
        """
        if len(fds) == 1:
            return [sync_one(fds[0])]
        results: list[int] = []
        for start in range(0, len(fds), MAX_AT_ONCE):
            results += self._sync(fds[start : start + MAX_AT_ONCE])
        return results

    def _sync(self, fds: Sequence[int]) -> list[int]:
        kernel = self._take()
        if kernel is None:
            assert self._pool is not None
            return list(self._pool.map(sync_one, fds))
        results = kernel.sync(fds)
        with self._lock:
            self._idle.append(kernel)
        return results

    def _take(self) -> KernelSyncs | None:
        with self._lock:
            if self._pool is not None:
                return None
            if self._idle:
                return self._idle.pop()
            try:
                return KernelSyncs()
            except OSError:
                self._pool = ThreadPoolExecutor(FALLBACK_THREADS, "sync")
                return None

    def close(self) -> None:
        """Free what the kernel holds; nobody may be syncing."""
        with self._lock:
            for kernel in self._idle:
                kernel.close()
            self._idle.clear()
            if self._pool is not None:
                self._pool.shutdown()


def sync_one(fd: int) -> int:
    """fdatasync; returns an errno, 0 for success."""
    try:
        os.fdatasync(fd)
    except OSError as error:
        return error.errno or errno.EIO
    return 0
