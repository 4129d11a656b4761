"""The lock of a data folder: held by the process that took it and by all that inherit its descriptor."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path

from haystack.errors import FolderError

LOCK_FILE = "lock"
LOCK_POLL_SECONDS = 0.05


def lock_folder(path: Path, *, wait_seconds: float = 0.0) -> int:
    """Lock a data folder for this process and those that inherit the descriptor; returns the descriptor.

    Parameters
    ----------
    wait_seconds: how long to wait when the process that took the lock has ended but its children still finish.

    Raises FolderError when a running process has it, OSError when the folder cannot be written.
    """
    fd = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + wait_seconds
        while not _try_lock(fd):
            owner = _owner(fd)
            if owner or time.monotonic() >= deadline:
                who = f"process {owner}" if owner else "a process that is finishing its requests"
                raise FolderError(f"data folder {path}: in use by another Store ({who}); stop that one first")
            time.sleep(LOCK_POLL_SECONDS)
        _sign(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sign(fd: int) -> None:
    """Write down who has the lock. It only makes a refusal quicker, so a full disk is no reason not to start."""
    name = _process_name(os.getpid()).encode()
    try:
        os.ftruncate(fd, os.pwrite(fd, name, 0))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise


def _owner(fd: int) -> int | None:
    """The process that took the lock, if it still runs."""
    name = os.pread(fd, 64, 0).decode(errors="replace")
    pid = name.partition(" ")[0]
    return int(pid) if pid.isascii() and pid.isdigit() and name == _process_name(int(pid)) else None


def _process_name(pid: int) -> str:
    """Process id and start time (clock ticks since boot): no other process has both. Empty when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return f"{pid} {stat.rpartition(')')[2].split()[19]}"
