"""Having the kernel begin to write what was just appended, before anybody waits for it.

Without that nothing of a large append moves to the disk until its sync, and the disk idles while the next one is copied
into the page cache.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

FROM_BYTES = 512 * 1024
"""Smaller appends are left alone: their sync follows at once, and writes them in fewer pieces."""

_WRITE = 2
"""SYNC_FILE_RANGE_WRITE: submit the dirty pages of the range, and wait for nothing."""


def _find_call() -> Callable[..., int] | None:
    try:
        call = ctypes.CDLL(None, use_errno=True).sync_file_range
    except AttributeError:  # a C library without it
        return None
    call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    call.restype = ctypes.c_int
    found: Callable[..., int] = call
    return found


_sync_file_range = _find_call()


def begin_writeback(fd: int, offset: int, size_bytes: int) -> None:
    """Submit a large range of a file to its disk; a hint, which promises nothing.

    What goes wrong on the way the next fdatasync reports, so the result does not matter.
    """
    if _sync_file_range is not None and size_bytes >= FROM_BYTES:
        _sync_file_range(fd, offset, size_bytes, _WRITE)
