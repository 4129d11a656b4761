"""Opening the data folders of a Store: which are its own, which are new, which are missing, which are refused.

A Store may have several data folders, usually one a disk. All of them name the same ``store_id``, and each also lists
its siblings (folder id and path), so that a start finds out that a disk is missing: a path that is listed but holds no
folder any more (disk broken, not mounted) is not taken for a new, empty folder. It is set aside with its volumes, and
the Store starts with the others. The list is what the last start was given, so whoever gives up a disk starts the Store
once without its path; from then on that path may serve as a new folder.

What an operator must put right is refused instead, whatever the others are like: a folder that a running Store has
locked, or that belongs to another Store.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

from haystack.errors import FolderError, HaystackError
from haystack.store.control_cells import MAX_FOLDERS
from haystack.store.folder import TEMPORARY, DataFolder, write_test
from haystack.store.folder_identity import IDENTITY_FILE, MAX_IDENTITY_BYTES, Identity
from haystack.store.folder_lock import LOCK_FILE, lock_folder
from haystack.volume.files import write_durably

_log = logging.getLogger(__name__)

_OWN_FILES = frozenset({LOCK_FILE, TEMPORARY, IDENTITY_FILE + ".new", "lost+found"})
"""What may lie in a folder without identity: what a start that was cut short leaves, and what mkfs makes."""


class _Unusable(Exception):
    """Something that is wrong with one folder alone."""


def open_folders(
    paths: Sequence[Path], *, wait_seconds: float = 0.0, new_uuid: Callable[[], UUID] = uuid4
) -> list[DataFolder]:
    """Lock and open all data folders of a Store; new ones are made.

    Parameters
    ----------
    wait_seconds: how long to wait for the workers of a Store that was killed to finish their requests.
    new_uuid: source of identities.

    Returns the folders in the order of ``paths``; some may have failed. Raises FolderError.
    """
    if len(paths) > MAX_FOLDERS:
        raise FolderError(f"{len(paths)} data folders; a Store has at most {MAX_FOLDERS}")
    return _Opening(paths, wait_seconds, new_uuid).run()


class _Opening:
    """One start: look at all folders first, so that nothing is left behind when one has to be refused."""

    def __init__(self, paths: Sequence[Path], wait_seconds: float, new_uuid: Callable[[], UUID]) -> None:
        self._paths = [Path(os.path.realpath(path)) for path in paths]
        self._wait_seconds = wait_seconds
        self._new_uuid = new_uuid
        self._identities: dict[Path, Identity] = {}
        self._broken: dict[Path, str] = {}

    def run(self) -> list[DataFolder]:
        self._examine()
        store_id, cluster_id = self._common()
        lost = self._lost()
        self._require_known(lost)
        folders: list[DataFolder] = []
        try:
            for number, path in enumerate(self._paths):
                identity = self._identities.get(path) or Identity(
                    store_id, lost.get(path) or str(self._new_uuid()), cluster_id
                )
                folders.append(self._open(number, path, identity, lost))
            if all(folder.failed for folder in folders):
                raise FolderError(
                    "no data folder can be used: " + "; ".join(f"{one.path}: {one.error}" for one in folders)
                )
            self._introduce(folders)
        except BaseException:
            for folder in folders:
                folder.close()
            raise
        return folders

    def _examine(self) -> None:
        if len(set(self._paths)) != len(self._paths):
            raise FolderError("the same data folder is given twice: " + ", ".join(map(str, self._paths)))
        for path in self._paths:
            try:
                identity = _look_at(path)
            except _Unusable as error:
                self._broken[path] = str(error)
                continue
            if identity is not None:
                self._identities[path] = identity

    def _common(self) -> tuple[str, str | None]:
        """Store id and cluster id that all folders agree on."""
        owners: dict[str, Path] = {}
        seen: dict[str, Path] = {}
        for path, identity in self._identities.items():
            owners.setdefault(identity.store_id, path)
            other = seen.setdefault(identity.folder_id, path)
            if other is not path:
                raise FolderError(f"data folders {other} and {path} have the same id: one is a copy of the other")
        if len(owners) > 1:
            (first, one), (second, two) = list(owners.items())[:2]
            raise FolderError(
                f"data folder {two} belongs to another Store ({second}) than {one} ({first}); "
                "start each Store with its own folders"
            )
        clusters = {identity.cluster_id for identity in self._identities.values()} - {None}
        if len(clusters) > 1:
            raise FolderError(f"the data folders belong to different clusters: {', '.join(sorted(map(str, clusters)))}")
        return next(iter(owners), None) or str(self._new_uuid()), next(iter(clusters), None)

    def _lost(self) -> dict[Path, str]:
        """Folder ids by the paths where they should be but are not."""
        present = {identity.folder_id for identity in self._identities.values()}
        return {
            Path(path): folder_id
            for identity in self._identities.values()
            for folder_id, path in identity.siblings.items()
            if folder_id not in present and Path(path) not in self._identities
        }

    def _require_known(self, lost: Mapping[Path, str]) -> None:
        for path, problem in self._broken.items():
            if path not in lost:
                raise FolderError(f"data folder {path}: {problem}")

    def _open(self, number: int, path: Path, identity: Identity, lost: Mapping[Path, str]) -> DataFolder:
        if path in lost:
            problem = self._broken.get(path, f"folder {lost[path]} is not there; is its disk mounted?")
            return DataFolder(number, path, identity, -1, problem)
        lock_fd = -1
        try:
            lock_fd = self._prepare(path, identity)
            return DataFolder(number, path, identity, lock_fd)
        except (OSError, HaystackError) as error:
            if lock_fd >= 0:
                os.close(lock_fd)
            if isinstance(error, FolderError):
                raise
            problem = str(error.strerror if isinstance(error, OSError) else error)
            if not self._has_siblings(path):
                raise FolderError(f"data folder {path}: cannot be used: {problem}") from error
            return DataFolder(number, path, identity, -1, f"cannot be used: {problem}")

    def _has_siblings(self, path: Path) -> bool:
        return path in self._identities and len(self._paths) > 1

    def _prepare(self, path: Path, identity: Identity) -> int:
        path.mkdir(parents=True, exist_ok=True)
        lock_fd = lock_folder(path, wait_seconds=self._wait_seconds)
        try:
            if path not in self._identities:
                if (path / IDENTITY_FILE).exists():
                    raise FolderError(f"data folder {path}: another Store has just taken it")
                write_durably(path / IDENTITY_FILE, identity.to_json())
            temporary = path / TEMPORARY
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(exist_ok=True)
            write_test(path)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                os.close(lock_fd)
                raise
        except BaseException:
            os.close(lock_fd)
            raise
        return lock_fd

    def _introduce(self, folders: Sequence[DataFolder]) -> None:
        """Tell each folder of the others. Not being able to is no reason not to start: the list is as it was."""
        siblings = {folder.id: os.fspath(folder.path) for folder in folders}
        for folder in folders:
            if folder.failed or folder.identity.siblings == siblings:
                continue
            identity = replace(folder.identity, siblings=siblings)
            try:
                write_durably(folder.path / IDENTITY_FILE, identity.to_json())
            except HaystackError as error:
                _log.warning("the list of data folders in %s is not updated: %s", folder.path, error)
                continue
            folder.identity = identity


def _look_at(path: Path) -> Identity | None:
    """The identity of a folder, None when it is new. Raises _Unusable."""
    try:
        if not path.exists():
            return None
        if not path.is_dir():
            raise _Unusable("is not a directory")
        names = set(os.listdir(path))
        if IDENTITY_FILE not in names:
            _require_new(names)
            return None
        return Identity.from_json((path / IDENTITY_FILE).read_bytes()[:MAX_IDENTITY_BYTES])
    except OSError as error:
        raise _Unusable(f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise _Unusable(f"{IDENTITY_FILE} cannot be used: {error}") from error


def _require_new(names: set[str]) -> None:
    foreign = sorted(names - _OWN_FILES)
    if any(name.endswith(".vol") for name in foreign):
        raise _Unusable(
            f"has volumes but no {IDENTITY_FILE}; to bring these volumes back, start a Store once with an empty "
            "folder, stop it, and move the .vol files there"
        )
    if foreign:
        raise _Unusable(f"is not empty and no data folder (it has {', '.join(foreign[:3])}…); give an empty folder")
