"""The folder of ``haystack up``.

::

    DIR/
      secret       the cluster's secret, mode 0600. Loss: give the same secret to all roles anew, photos are not touched
      directory/   data folder of the Directory
      store1/ …    data folders of the Stores; the photos
      frontend/    the photo service's database. Loss: `haystack frontend rebuild` makes photos and people again
      intake1/ …   data folders of the intakes: uploads that are on their way
      layout.json  replication, and how the Stores are spread over racks and data centers, as of the last start. Loss:
                   give --replication, --racks and --data-centers once more
      up.lock      flock'ed by `haystack up` and by its children, so until the last of them has ended; holds up's pid
      up.json      where everything listens; there only while it runs
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType

from haystack.config import UpSettings
from haystack.config.kinds import check_replication
from haystack.errors import ConfigError, FolderError
from haystack.security import load_secret, new_secret
from tools.app import RUNNING_FILE, SECRET_FILE
from tools.cluster import Running
from tools.layout import Layout, make_layout

LAYOUT_FILE = "layout.json"
LOCK_FILE = "up.lock"
LEFTOVER_TIMEOUT_SECONDS = 30.0
"""How long the children of an `up` that was killed may take to stop."""

LOCK_POLL_SECONDS = 0.1

_STORE_FOLDER = re.compile(r"store([1-9][0-9]{0,3})")


class UpFolder:
    """The folder, held with its lock from ``with`` to its end.

    Parameters
    ----------
    path: the folder; made when it is not there.
    note: gets a message when something has to be waited for.
    leftover_timeout_seconds: how long to wait for children of an earlier `up` that was killed.

    Raises (on entering)
    --------------------
    FolderError: it cannot be made or written, or another `haystack up` is using it.
    """

    def __init__(
        self,
        path: Path,
        *,
        note: Callable[[str], None],
        leftover_timeout_seconds: float = LEFTOVER_TIMEOUT_SECONDS,
    ) -> None:
        self.path = path
        self.lock_fd = -1
        self._note = note
        self._leftover_timeout_seconds = leftover_timeout_seconds

    def __enter__(self) -> UpFolder:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock_fd = os.open(self.path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise FolderError(
                f"{error.filename or self.path}: {error.strerror}; choose another --data folder"
            ) from error
        try:
            self._lock()
            os.ftruncate(self.lock_fd, 0)
            os.pwrite(self.lock_fd, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            os.close(self.lock_fd)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.lock_fd)

    def ensure_secret(self) -> None:
        """Make the cluster's secret, unless there is one. Raises ConfigError when the one there cannot be used."""
        path = self.path / SECRET_FILE
        if not path.exists():
            temporary = self.path / f"{SECRET_FILE}.new"
            temporary.unlink(missing_ok=True)
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(fd, "w") as file:
                file.write(f"{new_secret()}\n")
                file.flush()
                os.fsync(fd)
            temporary.rename(path)
        load_secret(path)

    def layout(self, settings: UpSettings) -> Layout:
        """Return how the cluster is laid out: as asked for, else as it was before. Raises ConfigError."""
        before = self._read_layout()
        asked = any(one is not None for one in (settings.replication, settings.data_centers, settings.racks))
        if before is not None and not asked:
            return before
        # A new replication keeps the places of the Stores, unless it cannot be kept with them.
        replication = settings.replication or (before.replication if before else Layout().replication)
        centers, racks = settings.data_centers, settings.racks
        if before is not None and centers is None and racks is None:
            same = replace(before, replication=replication)
            if same.least_stores() is not None:
                return same
        return make_layout(replication, centers, racks, settings.stores or self.stores_there())

    def write_layout(self, layout: Layout) -> None:
        """Write down the layout for the next start."""
        self._replace(LAYOUT_FILE, {"format": 1, **asdict(layout)})

    def store_count(self, wanted: int | None, least: int = 1) -> int:
        """Return how many Stores to start: all that are there, or more if so wanted.

        Parameters
        ----------
        least: how many are needed.

        Raises
        ------
        ConfigError: fewer are wanted than are there; the photos on the others would be missing.
        """
        there = self.stores_there()
        if wanted is not None and wanted < there:
            raise ConfigError(
                f"up.stores: {wanted} wanted, but {self.path} holds {there} Stores and the photos on store{there} "
                f"would be missing; give --stores {there} or leave it out"
            )
        return wanted or max(there, least)

    def stores_there(self) -> int:
        """Return how many Stores this folder has."""
        numbers = [int(match[1]) for entry in self.path.iterdir() if (match := _STORE_FOLDER.fullmatch(entry.name))]
        return max(numbers, default=0)

    def write_running(self, running: Running) -> None:
        """Write down where everything listens, for commands that are given this folder."""
        document = {
            "pid": os.getpid(),
            "directory": running.directory_url,
            "stores": [asdict(store) for store in running.stores],
            "cache": asdict(running.cache) if running.cache else None,
            "frontend": asdict(running.frontend) if running.frontend else None,
            "intakes": [asdict(intake) for intake in running.intakes],
        }
        self._replace(RUNNING_FILE, document)

    def remove_running(self) -> None:
        """Undo :meth:`write_running`."""
        (self.path / RUNNING_FILE).unlink(missing_ok=True)

    def _replace(self, name: str, document: dict[str, object]) -> None:
        temporary = self.path / f"{name}.new"
        temporary.write_text(json.dumps(document, indent=2) + "\n")
        temporary.rename(self.path / name)

    def _read_layout(self) -> Layout | None:
        path = self.path / LAYOUT_FILE
        try:
            document = json.loads(path.read_text())
            layout = Layout(str(document["replication"]), int(document["data_centers"]), int(document["racks"]))
            check_replication(layout.replication)
            if not 1 <= layout.data_centers <= layout.racks:
                raise ValueError("there are more data centers than racks")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FolderError(
                f"{path}: cannot be used: {error}; remove it, and give --replication, --racks and --data-centers as "
                "they were"
            ) from error
        return layout

    def _lock(self) -> None:
        deadline = time.monotonic() + self._leftover_timeout_seconds
        told = False
        while not self._try_lock():
            pid = self._owner()
            if pid is not None and _is_alive(pid):
                raise FolderError(
                    f"{self.path} is in use by another `haystack up` (process {pid}); "
                    "stop it or choose another --data folder"
                )
            if time.monotonic() > deadline:
                raise FolderError(
                    f"{self.path} is still in use by processes of an earlier `haystack up`; "
                    f"`fuser -v {self.path / LOCK_FILE}` shows them"
                )
            if not told:
                self._note("Waiting for the processes of an earlier `haystack up` to stop.")
                told = True
            time.sleep(LOCK_POLL_SECONDS)

    def _try_lock(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(self.lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    def _owner(self) -> int | None:
        text = os.pread(self.lock_fd, 32, 0).strip()
        return int(text) if text.isdigit() else None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
