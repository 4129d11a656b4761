"""Has the supervisor look into the control block when a worker has something new there, and sleep otherwise.

A supervisor that looks twenty times a second takes the core from a worker as often, which its clients notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

from haystack.store.control import ControlBlock

MOST_SECONDS = 1.0
"""A worker may be killed in the middle of ringing; then what it had to say is seen so late."""

WORD_LOOK_SECONDS = 0.1
"""The same while Caches rely on this Store's word: what moved since the last look counts as not told since then."""

Look = Callable[[], None]


class Watch:
    """Looks whenever a worker has rung (:meth:`ControlBlock.ring`).

    Parameters
    ----------
    pause_seconds: the least time between two looks.
    most_seconds: says how often to look at least.
    """

    def __init__(
        self, control: ControlBlock, pause_seconds: float, most_seconds: Callable[[], float] = lambda: MOST_SECONDS
    ) -> None:
        self._control = control
        self._pause_seconds = pause_seconds
        self._most_seconds = most_seconds
        self._looks: list[Look] = []

    def add(self, look: Look) -> None:
        """Have this called at every look."""
        self._looks.append(look)

    def look(self) -> None:
        """Look now."""
        for one in self._looks:
            one()

    async def run(self) -> None:
        """Look for ever."""
        loop = asyncio.get_running_loop()
        rung = asyncio.Event()
        fd = self._control.bell_fd

        def on_ring() -> None:
            os.eventfd_read(fd)
            rung.set()

        loop.add_reader(fd, on_ring)
        try:
            while True:
                rung.clear()
                self._control.listen()  # before the look: what comes later rings
                looked_at = loop.time()
                self.look()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._most_seconds()):
                        await rung.wait()
                await asyncio.sleep(max(0.0, looked_at + self._pause_seconds - loop.time()))
        finally:
            loop.remove_reader(fd)
