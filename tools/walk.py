"""The files below a folder, in the order of their names."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Found:
    """A regular file, or a symbolic link to one. ``path`` is relative to the folder."""

    path: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A folder or a file that could not be looked at."""

    path: str
    reason: str


def walk(root: Path) -> Iterator[Found | Unreadable]:
    """Yield every regular file below ``root``. Blocks; in memory are the names of the folders on the way only.

    Symbolic links to folders are not followed, so that no loop is possible and nothing comes twice. What is neither
    file nor folder (pipes, devices, broken links) is left aside.
    """
    open_folders = [_entries(root, "")]
    while open_folders:
        entry = next(open_folders[-1], None)
        if entry is None:
            open_folders.pop()
        elif isinstance(entry, str):
            open_folders.append(_entries(root, entry))
        else:
            yield entry


def _entries(root: Path, folder: str) -> Iterator[Found | Unreadable | str]:
    """Yield the files of one folder, and the paths of the folders in it."""
    try:
        with os.scandir(root / folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        yield Unreadable(folder or ".", error.strerror or str(error))
        return
    for entry in entries:
        path = f"{folder}/{entry.name}" if folder else entry.name
        try:
            if entry.is_dir(follow_symlinks=False):
                yield path
                continue
            status = entry.stat()
        except FileNotFoundError:
            continue  # a broken link, or removed since
        except OSError as error:
            yield Unreadable(path, error.strerror or str(error))
            continue
        if stat.S_ISREG(status.st_mode):
            yield Found(path, status.st_size, status.st_mtime_ns)
