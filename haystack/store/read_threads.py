"""Threads for reads that have to wait for a disk.

What :class:`concurrent.futures.ThreadPoolExecutor` does, made for thousands of short waits a second: standing threads
on a queue in C, one wake-up of the event loop for all reads that finished meanwhile, and a buffer for each thread, so
that a photo that is only verified there does not cost fresh memory.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

_Result = TypeVar("_Result")
_Job = tuple["asyncio.Future[Any]", Callable[..., Any], tuple[Any, ...]]

_local = threading.local()

KEPT_BYTES = 2**20
"""The largest buffer that a thread keeps."""


def thread_buffer(size_bytes: int) -> memoryview:
    """This thread's buffer, at least this long; its content is good until the thread asks again."""
    if size_bytes > KEPT_BYTES:
        return memoryview(bytearray(size_bytes))
    buffer: bytearray | None = getattr(_local, "buffer", None)
    if buffer is None or len(buffer) < size_bytes:
        buffer = _local.buffer = bytearray(size_bytes)
    return memoryview(buffer)[:size_bytes]


class ReadThreads:
    """A few threads that call functions for one event loop.

    Parameters
    ----------
    count: how many; they are started with the first call.
    name: of the threads, for whoever looks at them.
    daemon: whether the process may end while they hang in a disk.
    """

    def __init__(self, count: int, name: str, *, daemon: bool = False) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._finished: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._waking = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=daemon) for number in range(count)
        ]

    def run(self, function: Callable[..., _Result], *args: Any) -> asyncio.Future[_Result]:
        """Call ``function`` on one of the threads; the future gets what it returns or raises."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            for thread in self._threads:
                thread.start()
        future: asyncio.Future[_Result] = self._loop.create_future()
        self._jobs.put((future, function, args))
        return future

    def close(self) -> None:
        """Finish what was begun and stop the threads."""
        if self._loop is None:
            return
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, function, args = job
            try:
                self._finished.append((future, function(*args), None))
            except BaseException as error:  # whatever it is belongs to the one who waits
                self._finished.append((future, None, error))
            del job, future, function, args
            self._wake()

    def _wake(self) -> None:
        # A result that is appended while the flag is up is seen by the hand-over that is due: it lowers the flag first.
        if not self._waking:
            self._waking = True
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._hand_over)

    def _hand_over(self) -> None:
        self._waking = False
        while self._finished:
            future, result, error = self._finished.popleft()
            if future.done():
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)
