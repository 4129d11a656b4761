"""Who may have a volume's file open: one process alone while it recovers the volume, then any number of them."""

from __future__ import annotations

import fcntl
import time

from haystack.errors import VolumeUnavailable
from haystack.volume.files import VolumeFile, disk_error

LOCK_WAIT_SECONDS = 5.0
LOCK_POLL_SECONDS = 0.05


def lock_alone(file: VolumeFile, wait_seconds: float) -> None:
    """Lock out everybody else, waiting for those who have it open to be gone. Raises VolumeUnavailable, DiskError."""
    deadline = time.monotonic() + wait_seconds
    while not _try_lock(file, fcntl.LOCK_EX):
        if time.monotonic() >= deadline:
            raise VolumeUnavailable(f"{file.path}: another process has it open; stop it, or ask it instead")
        time.sleep(LOCK_POLL_SECONDS)


def lock_shared(file: VolumeFile) -> None:
    """Keep others from recovering it while it is open here. Raises VolumeUnavailable, DiskError."""
    if not _try_lock(file, fcntl.LOCK_SH):
        raise VolumeUnavailable(f"{file.path}: another process is recovering it; try again when that is done")


def _try_lock(file: VolumeFile, kind: int) -> bool:
    try:
        fcntl.flock(file.read_fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise disk_error(file.path, "lock it", error) from error
    return True
