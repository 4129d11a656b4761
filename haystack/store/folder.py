"""One data folder of a Store while it is in use: its threads, its health, its volumes' files.

How folders are opened and refused is in :mod:`haystack.store.folder_opening`.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ParamSpec, TypeVar

from haystack.errors import FolderError
from haystack.fid import MAX_VOLUME_ID
from haystack.store.control_cells import FolderState
from haystack.store.folder_identity import IDENTITY_FILE, Identity
from haystack.volume.files import write_durably

_log = logging.getLogger(__name__)

TEMPORARY = "tmp"

THREADS = 4
"""Threads that work on one folder at the same time."""

_VOLUME_NAME = re.compile(r"([1-9][0-9]{0,9})\.vol")

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Probe:
    """How a folder is: bytes in all and free for us, and what is wrong, if anything."""

    total_bytes: int = 0
    free_bytes: int = 0
    error: str | None = None


class DataFolder:
    """One data folder in use; made by :func:`~haystack.store.folder_opening.open_folders`.

    All blocking work on the folder goes through :meth:`run`, on threads of its own: a disk that hangs must not keep
    the other folders waiting.

    ``lock_fd`` is handed down to the workers: the folder stays locked until the last process that may write to it has
    ended, also when the supervisor was killed. ``state``, ``error`` and sizes are as of the last probe;
    ``reserve_bytes`` is the free space that uploads leave.
    """

    def __init__(self, number: int, path: Path, identity: Identity, lock_fd: int, error: str = "") -> None:
        self.number = number
        self.path = path
        self.identity = identity
        self.lock_fd = lock_fd
        self.error = error
        self.state = FolderState.FAILED if error else FolderState.OK
        self.total_bytes = 0
        self.free_bytes = 0
        self.reserve_bytes = 0
        self._threads = ThreadPoolExecutor(THREADS, f"folder-{number}")
        # A thread of its own: it has to find out that the others hang.
        self._probe_thread = ThreadPoolExecutor(1, f"probe-{number}")
        self._device = (0, 0)
        if not error:
            status = path.stat()
            self._device = (status.st_dev, status.st_ino)

    @property
    def id(self) -> str:
        """The folder's UUID."""
        return self.identity.folder_id

    @property
    def failed(self) -> bool:
        return self.state is FolderState.FAILED

    async def run(
        self, function: Callable[_Parameters, _Result], *args: _Parameters.args, **kwargs: _Parameters.kwargs
    ) -> _Result:
        """Call a function that touches the folder, on one of its threads."""
        return await asyncio.wrap_future(self.submit(function, *args, **kwargs))

    def submit(
        self, function: Callable[_Parameters, _Result], *args: _Parameters.args, **kwargs: _Parameters.kwargs
    ) -> Future[_Result]:
        """As :meth:`run`, for whoever wants to know when the thread is done, also when nobody waits any more."""
        return self._threads.submit(function, *args, **kwargs)

    async def probe_in_thread(self) -> Probe:
        """:meth:`probe`, without blocking."""
        return await asyncio.get_running_loop().run_in_executor(self._probe_thread, self.probe)

    def fail(self, error: str) -> None:
        """Set the folder aside until the Store is restarted."""
        self.state, self.error = FolderState.FAILED, error

    def volumes(self) -> list[tuple[int, Path]]:
        """Id and path of each volume, in the order of ids. Raises FolderError when the folder cannot be listed."""
        found = []
        try:
            names = [name for name in os.listdir(self.path) if name.endswith(".vol")]
        except OSError as error:
            raise FolderError(f"data folder {self.path}: cannot be listed: {error.strerror}") from error
        for name in names:
            match = _VOLUME_NAME.fullmatch(name)
            if match and int(match[1]) <= MAX_VOLUME_ID:
                found.append((int(match[1]), self.path / name))
            else:
                _log.warning("%s is left alone: its name is not <volume id>.vol", self.path / name)
        return sorted(found)

    def probe(self) -> Probe:
        """Ask the disk for its free space and write a few bytes. Blocks, for ever when the disk does."""
        try:
            status = self.path.stat()
            if (status.st_dev, status.st_ino) != self._device:
                return Probe(error="another folder is in its place; was the disk unmounted?")
            space = os.statvfs(self.path)
            found = Probe(space.f_blocks * space.f_frsize, space.f_bavail * space.f_frsize)
            write_test(self.path)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                return Probe(found.total_bytes, 0)
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                return Probe(self.total_bytes, self.free_bytes)  # our own shortage, not the disk's
            return Probe(error=f"{error.strerror}; look at the disk and the kernel's log")
        return found

    def space(self) -> Probe:
        """Only ask for the free space. Blocks."""
        try:
            space = os.statvfs(self.path)
        except OSError as error:
            return Probe(error=str(error.strerror))
        return Probe(space.f_blocks * space.f_frsize, space.f_bavail * space.f_frsize)

    def join_cluster(self, cluster_id: str) -> None:
        """Note the cluster that the Store belongs to, durably. Raises DiskError."""
        if self.identity.cluster_id != cluster_id:
            identity = replace(self.identity, cluster_id=cluster_id)
            write_durably(self.path / IDENTITY_FILE, identity.to_json())
            self.identity = identity

    def close(self) -> None:
        """Wait for work on the folder, unless it has failed, and release the lock as far as this process goes."""
        for threads in (self._threads, self._probe_thread):
            threads.shutdown(wait=not self.failed, cancel_futures=True)
        if self.lock_fd >= 0:
            os.close(self.lock_fd)
            self.lock_fd = -1


def write_test(path: Path) -> None:
    """Write a few bytes for good. Raises OSError."""
    fd = os.open(path / TEMPORARY / "probe", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.pwrite(fd, b"haystack", 0)
        os.fdatasync(fd)
    finally:
        os.close(fd)
