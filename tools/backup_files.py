"""The folder of a backup.

::

    TARGET/
      backup.json                what belongs to the backup, and how much of each file. Replaced at the end of each run,
                                 so that a run that is interrupted leaves the backup before it as it was
      directory-<time>.lmdb      the Directory's storage
      volumes/<id>.<generation>.vol   the volumes as they are. They only grow; what lies behind the size that
                                 backup.json tells belongs to a run that has not ended, which the next one makes use of
      lock                       flock'ed by a run; marks the folder as one of backups

A volume that was compacted, or that has another history, gets a new file; the old one goes when nothing names it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from haystack.errors import FolderError
from haystack.volume.files import sync_folder, write_durably

FORMAT = 1
MANIFEST = "backup.json"
LOCK = "lock"
VOLUMES = "volumes"

_VOLUME_FILE = re.compile(r"[1-9][0-9]{0,9}\.[0-9]{1,10}(?:-[0-9]{1,4})?\.vol")
_DIRECTORY_FILE = re.compile(r"directory-[0-9]{1,20}\.lmdb(?:\.part)?")


@dataclass(frozen=True, slots=True)
class SavedVolume:
    """One volume of a backup.

    Parameters
    ----------
    file: its name in the folder of volumes; ``size_bytes`` of it belong to the backup.
    damage: offset and bytes of what no Store had right when it was copied.
    """

    volume: int
    uuid: str
    generation: int
    size_bytes: int
    file: str
    damage: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup is made of.

    Parameters
    ----------
    taken_ms: unix time in milliseconds of its snapshot.
    directory_file, directory_bytes, directory_checksum: the Directory's storage (xxh3-64, hex).
    """

    cluster_id: str
    snapshot: str
    taken_ms: int
    directory_file: str
    directory_bytes: int
    directory_checksum: str
    volumes: dict[int, SavedVolume]

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "clusterId": self.cluster_id,
            "snapshot": self.snapshot,
            "takenMs": self.taken_ms,
            "directory": {
                "file": self.directory_file,
                "sizeBytes": self.directory_bytes,
                "checksum": self.directory_checksum,
            },
            "volumes": [asdict(one) for one in self.volumes.values()],
        }

    @classmethod
    def from_json(cls, document: Any) -> Manifest:
        """Read it. Raises KeyError, TypeError, ValueError for what is none."""
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']} is unknown to this release")
        directory = document["directory"]
        volumes = {}
        for one in document["volumes"]:
            damage = tuple((int(offset), int(size)) for offset, size in one["damage"])
            saved = SavedVolume(**{**one, "damage": damage})
            volumes[saved.volume] = saved
            if not _VOLUME_FILE.fullmatch(saved.file):
                raise ValueError(f"{saved.file!r} is no volume of a backup")
        if not _DIRECTORY_FILE.fullmatch(directory["file"]):
            raise ValueError(f"{directory['file']!r} is no storage of a Directory")
        return cls(
            str(document["clusterId"]),
            str(document["snapshot"]),
            int(document["takenMs"]),
            directory["file"],
            int(directory["sizeBytes"]),
            str(directory["checksum"]),
            volumes,
        )


class BackupFolder:
    """A folder of backups. Hold it with :meth:`locked` while it is changed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold it against other runs; it is made when it is not there.

        Raises FolderError: in use, or a folder of something else.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            there = {entry.name for entry in self.path.iterdir()} - {"lost+found"}
            if there and LOCK not in there:
                raise FolderError(f"{self.path}: is not empty and no folder of backups; choose another one")
            descriptor = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise FolderError(f"{error.filename or self.path}: {error.strerror}; choose another folder") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FolderError(f"{self.path}: another backup is being written into it; wait for its end") from None
            (self.path / VOLUMES).mkdir(exist_ok=True)
            yield
        finally:
            os.close(descriptor)

    def read(self) -> Manifest | None:
        """Return what the backup is made of; None when there is none yet. Raises FolderError."""
        path = self.path / MANIFEST
        try:
            return Manifest.from_json(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise FolderError(f"{path}: cannot be used: {type(error).__name__}: {error}") from error

    def write(self, manifest: Manifest) -> None:
        """Make this the backup, durably, and remove what does not belong to it. Raises DiskError, OutOfSpace."""
        sync_folder(self.path / VOLUMES)
        write_durably(self.path / MANIFEST, json.dumps(manifest.to_json(), indent=1).encode() + b"\n")
        named = {one.file for one in manifest.volumes.values()} | {manifest.directory_file}
        for path in [*(self.path / VOLUMES).iterdir(), *self.path.iterdir()]:
            is_ours = _VOLUME_FILE.fullmatch(path.name) or _DIRECTORY_FILE.fullmatch(path.name)
            if is_ours and path.name not in named:
                path.unlink()

    def volume(self, name: str) -> Path:
        """Where the file of a volume is."""
        return self.path / VOLUMES / name

    def new_name(self, volume: int, generation: int) -> str:
        """Return a name for a volume's file that is not taken."""
        name, number = f"{volume}.{generation}.vol", 1
        while self.volume(name).exists():
            name, number = f"{volume}.{generation}-{number}.vol", number + 1
        return name
