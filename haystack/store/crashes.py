"""Workers that end again and again by the same volume's index.

LMDB does not checksum its pages: damage in one can make a look-up touch memory that is not there, and the kernel ends
the process. A worker notes the volume before it looks into an index. When workers die that way again and again with
the same volume noted, its index is made anew. A volume that was noted by chance loses some seconds.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable

MOST_CRASHES = 3
WITHIN_SECONDS = 600.0

BY_MEMORY = (-signal.SIGBUS, -signal.SIGSEGV)


class Crashes:
    """Counts them.

    Parameters
    ----------
    clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[int, deque[float]] = {}

    def blames(self, slot: int | None, exit_code: int | None) -> bool:
        """Note the end of a worker; returns whether the volume in this slot is to be blamed now.

        Parameters
        ----------
        slot: of the volume whose index was looked at last, None for none.
        exit_code: as of ``subprocess``: negative for a signal.
        """
        if slot is None or exit_code not in BY_MEMORY:
            return False
        now = self._clock()
        times = self._seen.setdefault(slot, deque())
        times.append(now)
        while now - times[0] > WITHIN_SECONDS:
            times.popleft()
        if len(times) < MOST_CRASHES:
            return False
        del self._seen[slot]
        return True
