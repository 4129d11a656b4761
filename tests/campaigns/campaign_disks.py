"""Real disks that lose power, fill up or fail, made of loop devices and tmpfs. For root."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2
"""Neither data nor journal are written: what a power cut leaves."""


def missing() -> str | None:
    """Why these campaigns cannot run here, or None."""
    if os.geteuid() != 0:
        return "needs root to mount filesystems"
    for tool in ("losetup", "mkfs.ext4", "mount", "umount"):
        if shutil.which(tool) is None:
            return f"needs {tool}"
    if not Path("/dev/loop-control").exists():
        return "needs loop devices (/dev/loop-control is missing)"
    return None


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout.strip()


class LoopDisk:
    """ext4 on a loop device over a file."""

    def __init__(self, image: Path, mount_point: Path, size_bytes: int) -> None:
        self.image = image
        self.mount_point = mount_point
        with image.open("wb") as file:
            file.truncate(size_bytes)
        run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image))
        self.device = run("losetup", "-f", "--show", str(image))
        mount_point.mkdir()
        self.mounted = False
        self.mount()

    def mount(self) -> None:
        run("mount", self.device, str(self.mount_point))
        self.mounted = True

    def unmount(self) -> None:
        run("umount", str(self.mount_point))
        self.mounted = False

    def cut_power(self) -> None:
        """Everything that is not on the disk yet will never be."""
        fd = os.open(self.mount_point, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def close(self) -> None:
        if self.mounted:
            run("umount", "-l", str(self.mount_point))
        run("losetup", "-d", self.device)


@contextmanager
def loop_disk(folder: Path, size_bytes: int = 256 * 2**20) -> Iterator[LoopDisk]:
    disk = LoopDisk(folder / "disk.img", folder / "mounted", size_bytes)
    try:
        yield disk
    finally:
        disk.close()


@contextmanager
def tmpfs(folder: Path, size_bytes: int) -> Iterator[Path]:
    folder.mkdir()
    run("mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        run("umount", "-l", str(folder))


def drop_caches() -> None:
    Path("/proc/sys/vm/drop_caches").write_text("3\n")
