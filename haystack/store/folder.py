"""The data folders of a Store: opening them, their identity, their health.

A Store may have several data folders, usually one a disk. All of them name the same ``store_id``, and each also lists
its siblings (folder id and path), so that a start finds out that a disk is missing: a path that is listed but holds no
folder any more (disk broken, not mounted) is not taken for a new, empty folder. It is set aside with its volumes, and
the Store starts with the others. The list is what the last start was given, so whoever gives up a disk starts the Store
once without its path; from then on that path may serve as a new folder.

What an operator must put right is refused instead, whatever the others are like: a folder that a running Store has
locked, or that belongs to another Store.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import functools
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from uuid import UUID, uuid4

from haystack.errors import FolderError, HaystackError
from haystack.fid import MAX_VOLUME_ID
from haystack.store.control import MAX_FOLDERS, FolderState
from haystack.volume.files import write_durably

_log = logging.getLogger(__name__)

FOLDER_FORMAT = 1
LMDB_FORMAT = 1
IDENTITY_FILE = "folder.json"
LOCK_FILE = "lock"
TEMPORARY = "tmp"
MAX_IDENTITY_BYTES = 1 << 20
LOCK_POLL_SECONDS = 0.05

THREADS = 4
"""Threads that work on one folder at the same time."""

_OWN_FILES = frozenset({LOCK_FILE, TEMPORARY, IDENTITY_FILE + ".new", "lost+found"})
"""What may lie in a folder without identity: what a start that was cut short leaves, and what mkfs makes."""

_VOLUME_NAME = re.compile(r"([1-9][0-9]{0,9})\.vol")


_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Identity:
    """What ``folder.json`` says.

    Parameters
    ----------
    store_id, folder_id: UUIDs.
    cluster_id: UUID of the cluster, None until a Directory has told it.
    siblings: paths of all folders of the Store by folder id, this one included.
    """

    store_id: str
    folder_id: str
    cluster_id: str | None = None
    siblings: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> bytes:
        document = {
            "format": FOLDER_FORMAT,
            "store_id": self.store_id,
            "folder_id": self.folder_id,
            "cluster_id": self.cluster_id,
            "lmdb_format": LMDB_FORMAT,
            "folders": dict(self.siblings),
        }
        return json.dumps(document, indent=2).encode() + b"\n"

    @classmethod
    def from_json(cls, raw: bytes) -> Identity:
        """Read it. Raises ValueError, saying what is wrong."""
        document: Any = json.loads(raw)
        if not isinstance(document, dict):
            raise ValueError("not a JSON object")
        for name, known in (("format", FOLDER_FORMAT), ("lmdb_format", LMDB_FORMAT)):
            if document.get(name) != known:
                raise ValueError(f"{name} {document.get(name)} is unknown; this release knows {known}")
        cluster_id, siblings = document.get("cluster_id"), document.get("folders", {})
        if not isinstance(siblings, dict) or not all(isinstance(path, str) for path in siblings.values()):
            raise ValueError("folders is not a map of paths")
        return cls(
            _uuid(document.get("store_id")),
            _uuid(document.get("folder_id")),
            None if cluster_id is None else _uuid(cluster_id),
            {_uuid(folder_id): path for folder_id, path in siblings.items()},
        )


@dataclass(frozen=True, slots=True)
class Probe:
    """How a folder is: bytes in all and free for us, and what is wrong, if anything."""

    total_bytes: int = 0
    free_bytes: int = 0
    error: str | None = None


class _Unusable(Exception):
    """Something that is wrong with one folder alone."""


class DataFolder:
    """One data folder in use; made by :func:`open_folders`.

    All blocking work on the folder goes through :meth:`run`, on threads of its own: a disk that hangs must not keep
    the other folders waiting.

    ``lock_fd`` is handed down to the workers: the folder stays locked until the last process that may write to it has
    ended, also when the supervisor was killed. ``state`` and ``error`` are as of the last probe.
    """

    def __init__(self, number: int, path: Path, identity: Identity, lock_fd: int, error: str = "") -> None:
        self.number = number
        self.path = path
        self.identity = identity
        self.lock_fd = lock_fd
        self.error = error
        self.state = FolderState.FAILED if error else FolderState.OK
        self.total_bytes = 0
        self.free_bytes = 0
        self._threads = ThreadPoolExecutor(THREADS, f"folder-{number}")
        # A thread of its own: it has to find out that the others hang.
        self._probe_thread = ThreadPoolExecutor(1, f"probe-{number}")
        self._device = (0, 0)
        if not error:
            status = path.stat()
            self._device = (status.st_dev, status.st_ino)

    @property
    def id(self) -> str:
        """The folder's UUID."""
        return self.identity.folder_id

    @property
    def failed(self) -> bool:
        return self.state is FolderState.FAILED

    async def run(
        self, function: Callable[_Parameters, _Result], *args: _Parameters.args, **kwargs: _Parameters.kwargs
    ) -> _Result:
        """Call a function that touches the folder, on one of its threads."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, functools.partial(function, *args, **kwargs))

    async def probe_in_thread(self) -> Probe:
        """:meth:`probe`, without blocking."""
        return await asyncio.get_running_loop().run_in_executor(self._probe_thread, self.probe)

    def fail(self, error: str) -> None:
        """Set the folder aside until the Store is restarted."""
        self.state, self.error = FolderState.FAILED, error

    def volumes(self) -> list[tuple[int, Path]]:
        """Id and path of each volume, in the order of ids. Raises FolderError when the folder cannot be listed."""
        found = []
        try:
            names = [name for name in os.listdir(self.path) if name.endswith(".vol")]
        except OSError as error:
            raise FolderError(f"data folder {self.path}: cannot be listed: {error.strerror}") from error
        for name in names:
            match = _VOLUME_NAME.fullmatch(name)
            if match and int(match[1]) <= MAX_VOLUME_ID:
                found.append((int(match[1]), self.path / name))
            else:
                _log.warning("%s is left alone: its name is not <volume id>.vol", self.path / name)
        return sorted(found)

    def probe(self) -> Probe:
        """Ask the disk for its free space and write a few bytes. Blocks, for ever when the disk does."""
        try:
            status = self.path.stat()
            if (status.st_dev, status.st_ino) != self._device:
                return Probe(error="another folder is in its place; was the disk unmounted?")
            space = os.statvfs(self.path)
            found = Probe(space.f_blocks * space.f_frsize, space.f_bavail * space.f_frsize)
            _write_test(self.path)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                return Probe(found.total_bytes, 0)
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                return Probe(self.total_bytes, self.free_bytes)  # our own shortage, not the disk's
            return Probe(error=f"{error.strerror}; look at the disk and the kernel's log")
        return found

    def join_cluster(self, cluster_id: str) -> None:
        """Note the cluster that the Store belongs to, durably. Raises DiskError."""
        if self.identity.cluster_id != cluster_id:
            identity = replace(self.identity, cluster_id=cluster_id)
            write_durably(self.path / IDENTITY_FILE, identity.to_json())
            self.identity = identity

    def close(self) -> None:
        """Wait for work on the folder, unless it has failed, and release the lock as far as this process goes."""
        for threads in (self._threads, self._probe_thread):
            threads.shutdown(wait=not self.failed, cancel_futures=True)
        if self.lock_fd >= 0:
            os.close(self.lock_fd)
            self.lock_fd = -1


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
            _write_test(path)
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


def lock_folder(path: Path, *, wait_seconds: float = 0.0) -> int:
    """Lock a data folder for this process and those that inherit the descriptor; returns the descriptor.

    Parameters
    ----------
    wait_seconds: how long to wait when the process that took the lock has ended but its children still finish.

    Raises FolderError when a running process has it, OSError when the folder cannot be written.
    """
    fd = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + wait_seconds
        while not _try_lock(fd):
            owner = _owner(fd)
            if owner or time.monotonic() >= deadline:
                who = f"process {owner}" if owner else "a process that is finishing its requests"
                raise FolderError(f"data folder {path}: in use by another Store ({who}); stop that one first")
            time.sleep(LOCK_POLL_SECONDS)
        _sign(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sign(fd: int) -> None:
    """Write down who has the lock. It only makes a refusal quicker, so a full disk is no reason not to start."""
    name = _process_name(os.getpid()).encode()
    try:
        os.ftruncate(fd, os.pwrite(fd, name, 0))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise


def _owner(fd: int) -> int | None:
    """The process that took the lock, if it still runs."""
    name = os.pread(fd, 64, 0).decode(errors="replace")
    pid = name.partition(" ")[0]
    return int(pid) if pid.isascii() and pid.isdigit() and name == _process_name(int(pid)) else None


def _process_name(pid: int) -> str:
    """Process id and start time (clock ticks since boot): no other process has both. Empty when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return f"{pid} {stat.rpartition(')')[2].split()[19]}"


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


def _write_test(path: Path) -> None:
    """Write a few bytes for good. Raises OSError."""
    fd = os.open(path / TEMPORARY / "probe", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.pwrite(fd, b"haystack", 0)
        os.fdatasync(fd)
    finally:
        os.close(fd)


def _uuid(text: object) -> str:
    if not isinstance(text, str):
        raise ValueError(f"{text!r} is no UUID")
    return str(UUID(text))
