"""``<id>.members``: the membership of a volume, as this Store was told it last.

Its loss costs a question to the Directory: a volume that promises several copies then takes nothing until it is told.
"""

from __future__ import annotations

import logging
from pathlib import Path

from haystack.errors import DiskError, InvalidRequest
from haystack.store.replication.membership import Membership, pack_members, unpack_members
from haystack.volume.files import disk_error, sync_folder, write_durably

_log = logging.getLogger(__name__)

SUFFIX = ".members"
MAX_FILE_BYTES = 1 << 20


def members_path(volume_path: Path) -> Path:
    """Where the membership of a volume (``<id>.vol``) is kept."""
    return volume_path.with_suffix(SUFFIX)


def read_members(volume_path: Path) -> Membership | None:
    """The membership of a volume; None when there is no file, or one that cannot be used."""
    path = members_path(volume_path)
    try:
        with path.open("rb") as file:
            return unpack_members(file.read(MAX_FILE_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, InvalidRequest) as error:
        _log.error("%s cannot be used, the Directory has to tell it anew: %s", path, error)
        return None


def write_members(volume_path: Path, membership: Membership, me: str) -> None:
    """Replace the file, durably. Raises DiskError, OutOfSpace."""
    write_durably(members_path(volume_path), pack_members(membership, me))


def remove_members(volume_path: Path) -> None:
    """Remove the file, if there is one, durably. Raises DiskError."""
    path = members_path(volume_path)
    try:
        path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        problem = disk_error(str(path), "remove it", error)
        raise DiskError(str(problem)) from error
    sync_folder(path.parent)
