"""Files that a command makes: written beside their place, put there whole, under names that cannot lead elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import tempfile
from collections.abc import AsyncIterable
from pathlib import Path, PurePosixPath

import xxhash

from haystack.errors import HaystackError, InvalidRequest

MAX_NAME_BYTES = 200
"""Longest file name that is made; file systems take 255, and a suffix may have to fit."""

READ_BYTES = 1024 * 1024
TEMPORARY_PREFIX = ".haystack-"

_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class FileExists(HaystackError):
    """A file is where one should be made; nothing was overwritten."""


class NewFile:
    """A file that is being written under a temporary name. Use it as a context manager: what is not placed is removed.

    Its methods block; call them in threads.

    Parameters
    ----------
    folder: where it is going to be; it must exist.
    """

    def __init__(self, folder: Path) -> None:
        try:
            descriptor, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=folder)
        except OSError as error:
            # The name that was tried is random, and tells nobody what is wrong.
            raise OSError(error.errno, error.strerror, str(folder)) from error
        self._descriptor: int | None = descriptor
        self._path: Path | None = Path(name)
        self._hasher = xxhash.xxh3_64()
        self.size_bytes = 0

    def __enter__(self) -> NewFile:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._close()
        if self._path is not None:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()

    @property
    def digest(self) -> str:
        """xxh3-64 of what was written, 16 hex digits."""
        return self._hasher.hexdigest()

    def write(self, data: bytes) -> None:
        """Append. Raises OSError."""
        if self._descriptor is None:
            raise ValueError("the file is closed")
        self._hasher.update(data)
        self.size_bytes += len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def place(self, target: Path, *, force: bool = False, mtime_ns: int | None = None) -> None:
        """Put the file where it belongs, whole or not at all.

        Parameters
        ----------
        target: on the same file system as the folder.
        force: replace a file that is there.
        mtime_ns: modification time to give it.

        Raises FileExists.
        """
        if self._descriptor is None or self._path is None:
            raise ValueError("the file was placed before")
        mask = os.umask(0)
        os.umask(mask)
        os.fchmod(self._descriptor, 0o666 & ~mask)
        if mtime_ns is not None:
            os.utime(self._descriptor, ns=(mtime_ns, mtime_ns))
        if force:
            self._path.rename(target)
        else:
            _move_without_replacing(self._path, target)
        self._path = None
        self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


async def write_pieces(file: NewFile, pieces: AsyncIterable[bytes]) -> None:
    """Write all pieces, each in a thread."""
    async for piece in pieces:
        await asyncio.to_thread(file.write, piece)


def file_digest(path: Path) -> str:
    """Return the xxh3-64 of a file's content, 16 hex digits. Blocks. Raises OSError."""
    hasher = xxhash.xxh3_64()
    with path.open("rb", buffering=0) as file:
        while data := file.read(READ_BYTES):
            hasher.update(data)
    return hasher.hexdigest()


def safe_name(name: str, fallback: str) -> str:
    """Return a file name made from a name that anybody may have given to a photo.

    It has no folder in it, no control characters, does not begin with a dot, and is at most MAX_NAME_BYTES long.
    """
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2].strip()
    clean = "".join(one if one.isprintable() else "_" for one in last)
    if clean.startswith("."):
        clean = "_" + clean[1:]
    if not clean.strip("_. "):
        clean = fallback
    return shorten(clean, MAX_NAME_BYTES)


def with_suffix_before_extension(name: str, suffix: str) -> str:
    """Return ``cat~1.jpg`` for ``cat.jpg`` and ``~1``."""
    stem, extension = _split(name)
    return f"{shorten(stem, MAX_NAME_BYTES - len(os.fsencode(extension)))}{suffix}{extension}"


def shorten(name: str, limit_bytes: int) -> str:
    """Cut a name between characters so that it fits, keeping its extension."""
    if len(os.fsencode(name)) <= limit_bytes:
        return name
    stem, extension = _split(name)
    room = limit_bytes - len(os.fsencode(extension))
    return os.fsencode(stem)[:room].decode("utf-8", "ignore") + extension


def inside(root: Path, relative: str) -> Path:
    """Return the path of a file below ``root``, and make its folder.

    Blocks. Raises InvalidRequest when the name, or a symbolic link on its way, leads out of the root.
    """
    parts = relative.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise InvalidRequest(f"{relative!r}: not a path below the folder; nothing was written")
    path = root.joinpath(*parts)
    # Before anything is made: a link on the way must not have us make folders elsewhere.
    existing = path.parent
    while not os.path.lexists(existing):
        existing = existing.parent
    if not existing.resolve().is_relative_to(root.resolve()):
        raise InvalidRequest(f"{relative!r}: a symbolic link leads out of {root}; nothing was written")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _split(name: str) -> tuple[str, str]:
    path = PurePosixPath(name)
    return (path.stem, path.suffix) if 1 < len(path.suffix) <= 12 else (name, "")


def _move_without_replacing(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileExistsError:
        raise _exists(target) from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # No hard links here (FAT, some network shares): a moment remains in which somebody else's file is replaced.
        if os.path.lexists(target):
            raise _exists(target) from None
        source.rename(target)
        return
    source.unlink()


def _exists(target: Path) -> FileExists:
    return FileExists(f"{target}: exists already and was left as it is; give --force to replace it, or another name")
