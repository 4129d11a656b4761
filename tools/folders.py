"""Folders that a command is about to fill."""

from __future__ import annotations

from pathlib import Path

from haystack.errors import FolderError


def require_empty(folder: Path, why: str) -> None:
    """Raise FolderError when there is something in the folder: nothing that is there may be overwritten.

    Parameters
    ----------
    why: what the folder must be empty for, such as "rebuilding begins".
    """
    try:
        entries = sorted(entry.name for entry in folder.iterdir() if entry.name != "lost+found")
    except FileNotFoundError:
        return
    except OSError as error:
        raise FolderError(f"{folder}: {error.strerror}; choose another --data folder") from error
    if entries:
        raise FolderError(
            f"{folder}: {why} with an empty folder, and here is {entries[0]}; move it away, or choose another folder"
        )
