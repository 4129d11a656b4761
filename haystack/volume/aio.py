"""The kernel's asynchronous I/O (``io_setup``, ``io_submit``, ``io_getevents``), for which Python has no functions.

The kernel carries out what is submitted without a thread of ours and without Python's lock: reads with ``O_DIRECT`` go
straight to the disk's queue, fdatasync (since Linux 4.18) to threads of the kernel.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

READ = 0
FDSYNC = 3
"""Operations (``IOCB_CMD_PREAD``, ``IOCB_CMD_FDSYNC``)."""

_CALLS = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}
"""Numbers of io_setup, io_destroy, io_getevents and io_submit, for which the C library has no functions."""

_IOCB = struct.Struct("<QIiHhIQQqQII")
"""struct iocb: data, key, rw_flags, opcode, priority, fd, buf, nbytes, offset, reserved, flags, resfd."""

_EVENT = struct.Struct("<QQqq")
"""struct io_event: data, iocb, result, second result."""

_NOTIFY = 1
"""IOCB_FLAG_RESFD: count the completion in an eventfd."""

_POINTER_BYTES = struct.calcsize("P")


class AioContext:
    """A context of the kernel and room for the operations of one submission, for one thread at a time.

    Parameters
    ----------
    capacity: operations under way at the same time, and at most in one submission.
    event_fd: an eventfd that counts completions; -1 for none.

    Raises OSError when the kernel gives none.
    """

    def __init__(self, capacity: int, event_fd: int = -1) -> None:
        numbers = _CALLS.get(platform.machine())
        if numbers is None or _POINTER_BYTES != 8:
            raise OSError(errno.ENOSYS, "calls not known on this machine")
        self._setup, self._destroy, self._getevents, self._submit = (ctypes.c_long(number) for number in numbers)
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.restype = ctypes.c_long
        self._context = ctypes.c_ulong(0)
        self._notify = (_NOTIFY, event_fd) if event_fd >= 0 else (0, 0)
        self._blocks = ctypes.create_string_buffer(_IOCB.size * capacity)
        first = ctypes.addressof(self._blocks)
        self._pointers = (ctypes.c_void_p * capacity)(*(first + _IOCB.size * index for index in range(capacity)))
        self._events = ctypes.create_string_buffer(_EVENT.size * capacity)
        self._at_once = (ctypes.c_long * 2)(0, 0)  # struct timespec
        if self._syscall(self._setup, ctypes.c_long(capacity), ctypes.byref(self._context)) < 0:
            raise OSError(ctypes.get_errno(), "io_setup")

    def prepare_sync(self, place: int, data: int, fd: int) -> None:
        """Make place ``place`` of the next submission an fdatasync; ``data`` comes back with its result."""
        _IOCB.pack_into(self._blocks, place * _IOCB.size, data, 0, 0, FDSYNC, 0, fd, 0, 0, 0, 0, *self._notify)

    def prepare_read(self, place: int, data: int, fd: int, address: int, size_bytes: int, offset: int) -> None:
        """Make place ``place`` of the next submission a read, which fails with EAGAIN where submitting it would wait.

        Parameters
        ----------
        data: comes back with the result.
        address: of memory that stays where it is until the result is there.
        """
        _IOCB.pack_into(
            self._blocks,
            place * _IOCB.size,
            data, 0, os.RWF_NOWAIT, READ, 0, fd, address, size_bytes, offset, 0,
            *self._notify,
        )  # fmt: skip

    def submit(self, start: int, end: int) -> int:
        """Submit the places ``start`` to ``end``; returns how many were taken. Raises OSError when none was."""
        taken: int = self._syscall(
            self._submit,
            self._context,
            ctypes.c_long(end - start),
            ctypes.byref(self._pointers, start * _POINTER_BYTES),
        )
        if taken < 0:
            raise OSError(ctypes.get_errno(), "io_submit")
        return taken

    def collect(self, count: int, *, wait: bool) -> list[tuple[int, int]]:
        """Results of at most ``count`` operations as (data, bytes or negative errno); may be fewer, also with ``wait``.

        Raises OSError.
        """
        found: int = self._syscall(
            self._getevents,
            self._context,
            ctypes.c_long(count if wait else 0),
            ctypes.c_long(count),
            self._events,
            None if wait else self._at_once,
        )
        if found < 0:
            problem = ctypes.get_errno()
            if problem != errno.EINTR:
                raise OSError(problem, "io_getevents")
            return []
        return [(data, result) for data, _, result, _ in _EVENT.iter_unpack(self._events.raw[: found * _EVENT.size])]

    def close(self) -> None:
        """Give the context back; waits for what is under way."""
        self._syscall(self._destroy, self._context)
