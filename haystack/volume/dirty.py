"""The dirty marker of a volume: ``<id>.dirty``, holding the boot id, while the index may be ahead of the disk.

It is durable before the index changes, and removed after the index was made durable. A marker of another boot means
that the machine stopped in between, and that the index must not be trusted.
"""

from __future__ import annotations

import os
from pathlib import Path

from haystack.volume.files import disk_error, sync_folder


def current_boot_id() -> str:
    """Identity of this boot of the machine: it changes when the kernel, and with it the page cache, was lost."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class DirtyMarker:
    """The marker of one volume.

    Parameters
    ----------
    volume_path: the ``.vol`` file.
    boot_id: identity of this boot.
    """

    def __init__(self, volume_path: Path, boot_id: str) -> None:
        self.path = volume_path.with_suffix(".dirty")
        self._text = os.fspath(self.path)
        self._boot_id = boot_id

    def is_set(self) -> bool:
        return os.access(self._text, os.F_OK)

    def from_another_boot(self) -> bool:
        """Whether the machine stopped while the index was dirty. Raises DiskError."""
        try:
            return self.path.read_text() != self._boot_id
        except FileNotFoundError:
            return False
        except OSError as error:
            raise disk_error(self._text, "read it", error) from error

    def set(self) -> None:
        """Make sure that the marker is there, durably, before the index is changed. Raises DiskError or OutOfSpace."""
        if not self.is_set():
            self.renew()

    def renew(self) -> None:
        """Write the marker for this boot, whatever it said before. Raises DiskError or OutOfSpace."""
        try:
            fd = os.open(self._text, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            try:
                os.write(fd, self._boot_id.encode())
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise disk_error(self._text, "write it", error) from error
        sync_folder(self.path.parent)

    def clear(self) -> None:
        """Remove it, durably. Raises DiskError."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(self._text, "remove it", error) from error
        sync_folder(self.path.parent)
