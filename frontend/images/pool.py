"""A bounded pool of processes for the work on pictures.

A decoder may hang, need too much memory, or crash on a hostile file: then its process is ended and started anew, and
only the upload that it worked on is refused. Nothing of this runs on the event loop.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.process
import logging
import multiprocessing
import resource
import signal
from pathlib import Path
from types import TracebackType

from pebble import ProcessExpired, ProcessPool

from frontend.images.errors import ImagesBusy, ImageWorkFailed
from frontend.images.preparing import Prepared, prepare
from frontend.images.settings import MIB, ImageSettings
from haystack.errors import HaystackError

_log = logging.getLogger(__name__)

_ATTEMPTS = 3
MAX_TASKS_PER_PROCESS = 500
"""A process is replaced after so many pictures, so that what a decoder leaks is given back."""


class ImagePool:
    """Prepares uploads, a few at a time.

    Parameters
    ----------
    settings: for :func:`~frontend.images.preparing.prepare`.
    processes: how many work at the same time.
    waiting: how many uploads may wait beyond those.
    task_seconds: after this a picture is given up, and its process ended.
    memory_bytes: address space of one process.
    """

    def __init__(
        self,
        settings: ImageSettings,
        *,
        processes: int = 2,
        waiting: int = 32,
        task_seconds: float = 8.0,
        memory_bytes: int = 2048 * MIB,
    ) -> None:
        self._settings = settings
        self._task_seconds = task_seconds
        self._most = processes + waiting
        self._busy = 0
        self._processes = processes
        self._memory_bytes = memory_bytes
        self._pool = self._new_pool()
        self._renewing = asyncio.Lock()

    def _new_pool(self) -> ProcessPool:
        return ProcessPool(
            max_workers=self._processes,
            max_tasks=MAX_TASKS_PER_PROCESS,
            initializer=_begin,
            initargs=(self._memory_bytes,),
            # A fork of a process with threads and an event loop may hang for ever on a lock that somebody else held.
            context=multiprocessing.get_context("forkserver"),
        )

    async def __aenter__(self) -> ImagePool:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def busy(self) -> int:
        """Uploads that are worked on or wait."""
        return self._busy

    async def prepare(self, source: bytes | Path) -> Prepared:
        """:func:`~frontend.images.preparing.prepare`, in another process.

        Parameters
        ----------
        source: the upload, or a file with it: what waits then takes no memory.

        Raises
        ------
        ImageRefused, ImageTooLarge: as there.
        ImagesBusy: too many wait already.
        ImageWorkFailed: it took too long or too much memory, or its process died.
        """
        if self._busy >= self._most:
            raise ImagesBusy("too many pictures are being worked on; try again in a moment")
        self._busy += 1
        try:
            return await self._run(source)
        finally:
            self._busy -= 1

    async def _run(self, source: bytes | Path) -> Prepared:
        for _ in range(_ATTEMPTS):
            try:
                return await self._once(source)
            except concurrent.futures.process.BrokenProcessPool:
                # A process was killed from outside while nobody used it; pebble then gives up the whole pool.
                _log.warning("the processes for pictures have ended, and are started anew")
        raise ImagesBusy("the processes for pictures end again and again; try again in a moment")

    async def _once(self, source: bytes | Path) -> Prepared:
        async with self._renewing:
            if not self._pool.active:
                await self.close()
                self._pool = self._new_pool()
        future = self._pool.schedule(_prepare, args=(source, self._settings), timeout=self._task_seconds)
        try:
            found = await asyncio.wrap_future(future)
        except concurrent.futures.TimeoutError:
            raise ImageWorkFailed(f"the picture took longer than {self._task_seconds:g} s to decode") from None
        except ProcessExpired as error:
            raise ImageWorkFailed(f"the picture crashed its decoder (exit code {error.exitcode})") from None
        except MemoryError:
            raise ImageWorkFailed("the picture takes too much memory to decode") from None
        except (HaystackError, concurrent.futures.process.BrokenProcessPool):
            raise
        except Exception as error:  # whatever a hostile file has found in a decoder, or in our own code
            _log.exception("working on a picture failed")
            raise ImageWorkFailed("the picture could not be worked on; it may be damaged") from error
        assert isinstance(found, Prepared)
        return found

    async def close(self) -> None:
        """End all processes; what is being worked on is given up."""
        self._pool.stop()  # type: ignore[no-untyped-call]  # pebble leaves it untyped
        await asyncio.to_thread(self._pool.join)


def _prepare(source: bytes | Path, settings: ImageSettings) -> Prepared:
    """In a process of the pool."""
    return prepare(source.read_bytes() if isinstance(source, Path) else source, settings)


def _begin(memory_bytes: int) -> None:
    """In each new process: its bounds, and a Ctrl-C that is meant for its parent."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
