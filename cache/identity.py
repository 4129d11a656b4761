"""A Cache's data folder: ``cache.json`` with the node's id, by which Directories know it again, and a lock.

The loss of the folder costs nothing but that: the node is a new one then, and its share of the photos another.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID, uuid4

from haystack.errors import FolderError

FILE_NAME = "cache.json"
LOCK_NAME = "lock"


@contextmanager
def locked_folder(folder: Path) -> Iterator[str]:
    """Lock the folder for the length of the block, making it when it is not there; gives the node's id.

    Raises FolderError when it cannot be used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise FolderError(f"data folder {folder}: cannot be used: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise FolderError(f"data folder {folder}: another Cache uses it; give each a folder of its own") from error
        yield _identity(folder / FILE_NAME)
    finally:
        os.close(lock)


def _identity(path: Path) -> str:
    try:
        return str(UUID(json.loads(path.read_text())["cacheId"]))
    except FileNotFoundError:
        return _new_identity(path)
    except OSError as error:
        raise FolderError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FolderError(f"{path}: is damaged; remove it, and this Cache gets a new id") from error


def _new_identity(path: Path) -> str:
    cache_id = str(uuid4())
    temporary = path.with_suffix(".new")
    try:
        with temporary.open("w") as file:
            file.write(json.dumps({"cacheId": cache_id}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError as error:
        raise FolderError(f"{path}: cannot be written: {error.strerror}") from error
    return cache_id
