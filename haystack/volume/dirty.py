"""The dirty marker of a volume: ``<id>.dirty``, holding the boot id, while the index may be ahead of the disk.

It is durable before the index changes, and removed after the index was made durable. A marker of another boot means
that the machine stopped in between, and that the index must not be trusted.
"""

from __future__ import annotations

import os
from pathlib import Path

from haystack.volume.files import disk_error, sync_folder

FILESYSTEMS = ("ext4", "xfs", "f2fs")
"""Those that have a folder in sysfs for each mounted device, from mounting to unmounting."""


def current_boot_id(folder: Path) -> str:
    """Identity of the page cache that holds what was written to ``folder`` and not synced.

    It changes with every boot, and, where the filesystem lets us know, when the filesystem was mounted anew: one that
    shut itself down after an error lost what was not synced though the machine goes on.
    """
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot_id}{_mount_identity(folder)}"


def _mount_identity(folder: Path) -> str:
    """Inode of the mounted filesystem's folder in sysfs, which no other mount of this boot has; else nothing."""
    device = folder.stat().st_dev
    try:
        name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").readlink().name
    except OSError:  # no block device behind it (tmpfs, btrfs, overlay), or no sysfs here
        return ""
    for kind in FILESYSTEMS:
        mounted = Path(f"/sys/fs/{kind}/{name}")
        if mounted.exists():
            return f" {kind} {mounted.stat().st_ino}"
    return ""


DISTRUST = "rebuild"
"""Content of a marker that is of no boot at all."""


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
        self._write(self._boot_id)

    def _write(self, content: str) -> None:
        try:
            fd = os.open(self._text, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            try:
                os.write(fd, content.encode())
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise disk_error(self._text, "write it", error) from error
        sync_folder(self.path.parent)

    def distrust(self) -> None:
        """Have the index rebuilt at the next opening, whatever boot that is. Raises DiskError or OutOfSpace."""
        self._write(DISTRUST)

    def clear(self) -> None:
        """Remove it, durably. Raises DiskError."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(self._text, "remove it", error) from error
        sync_folder(self.path.parent)
