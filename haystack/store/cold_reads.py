"""How a photo that is not in the page cache is read: by the kernel past the page cache, or by a thread through it.

Past the page cache is cheaper and throws nothing else out of it, so that is for what is asked for once. What is asked
for again goes through the page cache and stays there.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from haystack.http.connection import HttpConnection
from haystack.http.request import Request
from haystack.store.catalog import ServedVolume
from haystack.store.recent import RecentReads
from haystack.store.targets import Target
from haystack.volume.direct import DirectReads
from haystack.volume.index_records import IndexEntry

SMALL_BYTES = 32 * 1024
"""Needles up to this size are cheap to keep in the page cache. And the fast way has already asked the kernel for them
without waiting, which makes it begin to read: past the page cache they would be read twice."""

HELD_BYTES = 256 * 1024
"""The most that is sent out of a buffer: what a client that does not read can make us hold. Larger photos that are not
in the page cache by now are sent piece by piece."""

_NOT_DIRECT = (errno.EINVAL, errno.EOPNOTSUPP)
"""What a file system, or a disk with larger blocks, says when it cannot read past the page cache as we do it."""


@dataclass(frozen=True, slots=True)
class ColdRead:
    """A request for a photo that has to be read from the disk."""

    connection: HttpConnection
    request: Request
    served: ServedVolume
    target: Target
    entry: IndexEntry | None
    started: float


class ColdReads:
    """Decides which way a photo is read.

    Parameters
    ----------
    recent: what was read past the page cache lately.
    """

    def __init__(self, recent: RecentReads) -> None:
        self._recent = recent

    def directly(self, served: ServedVolume, offset: int, data_bytes: int, total_bytes: int) -> DirectReads | None:
        """What reads this needle past the page cache, from ``direct_fd`` of the volume's file.

        None when a thread should read it. Asking counts as a read.
        """
        if total_bytes <= SMALL_BYTES or data_bytes > HELD_BYTES or not DirectReads.takes(offset, total_bytes):
            return None
        direct = served.lane.direct()
        if direct is None or served.volume.file.direct_fd() < 0:
            return None
        return None if self._recent.is_repeated(served.number, offset, total_bytes) else direct


def note_problem(served: ServedVolume, problem: int) -> None:
    """A direct read failed with this errno: stop trying where that can never work."""
    if problem in _NOT_DIRECT:
        served.volume.file.give_up_direct()
