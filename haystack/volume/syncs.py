"""fdatasync of several files at once, by one thread.

A file system shares one commit of its journal among all fdatasyncs that wait at the same moment: seven files that are
synced one after the other take about seven times as long as seven at once. Linux carries out what is submitted with
``io_submit`` (``IOCB_CMD_FDSYNC``, since 4.18) on threads of the kernel, so that neither threads of ours nor Python's
lock are needed for it. Where that is not possible (an old kernel, a sandbox that refuses the calls), threads do it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

MAX_AT_ONCE = 64
"""Files that one submission names; more take turns."""

FALLBACK_THREADS = 8

_CALLS = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}
"""Numbers of io_setup, io_destroy, io_getevents and io_submit, for which the C library has no functions."""

_FDSYNC = 3
_IOCB = struct.Struct("<QIiHhIQQqQII")
"""struct iocb: data, key, rw_flags, opcode, priority, fd, buf, nbytes, offset, reserved, flags, resfd."""

_EVENT = struct.Struct("<QQqq")
"""struct io_event: data, iocb, result, second result."""


class KernelSyncs:
    """A context of the kernel for one thread at a time.

    Raises OSError when the kernel gives none.
    """

    def __init__(self) -> None:
        numbers = _CALLS.get(platform.machine())
        if numbers is None or struct.calcsize("P") != 8:
            raise OSError(errno.ENOSYS, "calls not known on this machine")
        self._setup, self._destroy, self._getevents, self._submit = (ctypes.c_long(number) for number in numbers)
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.restype = ctypes.c_long
        self._context = ctypes.c_ulong(0)
        self._blocks = ctypes.create_string_buffer(_IOCB.size * MAX_AT_ONCE)
        first = ctypes.addressof(self._blocks)
        self._pointers = (ctypes.c_void_p * MAX_AT_ONCE)(*(first + _IOCB.size * index for index in range(MAX_AT_ONCE)))
        self._events = ctypes.create_string_buffer(_EVENT.size * MAX_AT_ONCE)
        if self._syscall(self._setup, ctypes.c_long(MAX_AT_ONCE), ctypes.byref(self._context)) < 0:
            raise OSError(ctypes.get_errno(), "io_setup")

    def sync(self, fds: Sequence[int]) -> list[int]:
        """fdatasync all of them, at most ``MAX_AT_ONCE``; blocks. Returns an errno for each, 0 for success."""
        for index, fd in enumerate(fds):
            _IOCB.pack_into(self._blocks, index * _IOCB.size, index, 0, 0, _FDSYNC, 0, fd, 0, 0, 0, 0, 0, 0)
        submitted = self._syscall(self._submit, self._context, ctypes.c_long(len(fds)), self._pointers)
        submitted = max(0, submitted)
        results = [0] * len(fds)
        waiting = submitted
        while waiting:
            waiting -= self._collect(waiting, results)
        for index in range(submitted, len(fds)):  # the kernel has no room for more, or cannot do it for such a file
            results[index] = sync_one(fds[index])
        return results

    def _collect(self, count: int, results: list[int]) -> int:
        found: int = self._syscall(
            self._getevents, self._context, ctypes.c_long(count), ctypes.c_long(count), self._events, None
        )
        if found < 0:
            problem = ctypes.get_errno()
            if problem != errno.EINTR:
                raise OSError(problem, "io_getevents")
            return 0
        for index in range(found):
            number, _, result, _ = _EVENT.unpack_from(self._events, index * _EVENT.size)
            results[number] = -min(0, result)
        return found

    def close(self) -> None:
        """Give the context back."""
        self._syscall(self._destroy, self._context)


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
