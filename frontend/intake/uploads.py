"""Uploads on their way, as files: what has come of each, so that it goes on after a broken connection or a restart.

One file an upload. Its name says all that must be known of it (the ticket's id, the size, when it expires), its length
how much has come: there is nothing else that could disagree with it. While bytes come whose checksum is still to be
compared, a second, empty file says from where on they are not to be believed yet.

A machine that loses its power may leave files of the right length with wrong bytes, so uploads of an earlier boot are
dropped: their clients begin again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from frontend.intake.errors import TooManyUploads, UploadInUse, UploadNotFound
from frontend.tickets import Ticket
from haystack.errors import DiskError

_log = logging.getLogger(__name__)

_NAME = re.compile(r"([0-9a-f]{32})\.([0-9]{1,19})\.([0-9]{1,19})\.part")
_DOUBT = re.compile(r"([0-9a-f]{32})\.from-([0-9]{1,19})")
_BOOT_FILE = "boot"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
TAKE_OVER_SECONDS = 5.0
"""How long a call waits for the one that it takes an upload from: that one writes what it still has."""


@dataclass(slots=True)
class Upload:
    """One upload on its way.

    Parameters
    ----------
    id: the ticket's, as hex.
    size_bytes: of the whole.
    expires: seconds since 1970.
    offset: bytes that have come.
    """

    id: str
    size_bytes: int
    expires: int
    path: Path
    offset: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    break_off: Callable[[], None] | None = None
    """Ends the call that receives bytes of it just now; None while there is none, or while it must not end."""

    @property
    def complete(self) -> bool:
        return self.offset == self.size_bytes


class Uploads:
    """All uploads of one intake. Its calls block for a moment of the file system's time: use them on a thread.

    What is known of an upload and whether it has a file change together: two calls with one ticket come on two threads.

    Parameters
    ----------
    folder: for their files; made when it is not there.
    max_uploads, max_bytes: of all together, as announced.
    boot_id: of the machine's present run.

    Raises
    ------
    DiskError: by every call that works on files.
    """

    def __init__(self, folder: Path, *, max_uploads: int, max_bytes: int, boot_id: str) -> None:
        self._folder = folder
        self._max_uploads = max_uploads
        self._max_bytes = max_bytes
        self._changing = threading.Lock()
        self._known: dict[str, Upload] = {}
        self._bytes = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._read(boot_id)
        except OSError as error:
            raise DiskError(f"{folder}: cannot be used for uploads: {error.strerror}") from error

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._known)

    @property
    def announced_bytes(self) -> int:
        """How large they will be together."""
        return self._bytes

    def find(self, id_: str) -> Upload:
        """The upload of a ticket. Raises UploadNotFound."""
        found = self._known.get(id_)
        if found is None:
            raise UploadNotFound("there is no such upload; begin it again")
        return found

    def begin(self, ticket: Ticket) -> Upload:
        """The upload of a ticket, which may have begun before.

        Raises
        ------
        TooManyUploads: there is no room for another one.
        """
        with self._changing:
            return self._known.get(ticket.id.hex()) or self._begin(ticket)

    def _begin(self, ticket: Ticket) -> Upload:
        id_ = ticket.id.hex()
        if len(self._known) >= self._max_uploads or self._bytes + ticket.size_bytes > self._max_bytes:
            raise TooManyUploads("too many uploads are on their way here; try again in a moment")
        path = self._folder / f"{id_}.{ticket.size_bytes}.{ticket.expires}.part"
        upload = Upload(id_, ticket.size_bytes, ticket.expires, path)
        self._add(upload)
        try:
            path.touch(mode=0o600)
        except OSError as error:
            self._drop(upload)
            raise DiskError(f"{path}: cannot be made: {error.strerror}") from error
        return upload

    def remove(self, upload: Upload) -> None:
        """End an upload; its bytes are gone."""
        with self._changing:
            if self._known.get(upload.id) is upload:
                self._drop(upload)
                self._unlink(upload.path)

    def remove_expired(self, now_seconds: float) -> int:
        """Remove those whose ticket has expired and that nobody works on; returns how many that were."""
        with self._changing:
            known = list(self._known.values())
        old = [one for one in known if one.expires <= now_seconds and not one.lock.locked()]
        for upload in old:
            self.remove(upload)
        return len(old)

    def cut(self, upload: Upload, offset: int) -> None:
        """Forget what came behind ``offset``. Raises UploadNotFound when it has ended, as its ticket has, just now."""
        try:
            os.truncate(upload.path, offset)
        except FileNotFoundError:
            raise UploadNotFound("this upload has ended; begin it again") from None
        except OSError as error:
            raise DiskError(f"{upload.path}: cannot be cut: {error.strerror}") from error
        upload.offset = offset

    def doubt(self, upload: Upload) -> Path:
        """Note that what comes from now on is not to be believed before :meth:`believe`, even after a crash."""
        mark = self._folder / f"{upload.id}.from-{upload.offset}"
        try:
            mark.touch(mode=0o600)
        except OSError as error:
            raise DiskError(f"{mark}: cannot be made: {error.strerror}") from error
        return mark

    def believe(self, mark: Path) -> None:
        """What came since :meth:`doubt` is right, or was cut off."""
        self._unlink(mark)

    @asynccontextmanager
    async def held(self, upload: Upload, break_off: Callable[[], None]) -> AsyncIterator[Upload]:
        """Hold an upload against other calls.

        A call that only receives bytes is ended: its client has come back, so its connection is dead. One that
        works on the picture is not.

        Parameters
        ----------
        break_off: ends the caller's own connection, when another call comes.

        Raises
        ------
        UploadInUse: somebody works on it.
        UploadNotFound: it has ended meanwhile.
        """
        if upload.lock.locked():
            if upload.break_off is None:
                raise UploadInUse("this upload is being worked on; ask again in a moment")
            upload.break_off()
        try:
            async with asyncio.timeout(TAKE_OVER_SECONDS):
                await upload.lock.acquire()
        except TimeoutError:
            raise UploadInUse("this upload is still being received; ask again in a moment") from None
        try:
            if self.find(upload.id) is not upload:  # it has ended, and was begun anew
                raise UploadNotFound("this upload has ended; begin it again")
            upload.break_off = break_off
            yield upload
        finally:
            upload.break_off = None
            upload.lock.release()

    def _read(self, boot_id: str) -> None:
        boot = self._folder / _BOOT_FILE
        same_boot = boot.exists() and boot.read_text() == boot_id
        doubted: dict[str, int] = {}
        for path in sorted(self._folder.iterdir()):
            if mark := _DOUBT.fullmatch(path.name):
                doubted[mark[1]] = min(int(mark[2]), doubted.get(mark[1], int(mark[2])))
            elif (name := _NAME.fullmatch(path.name)) and same_boot:
                upload = Upload(name[1], int(name[2]), int(name[3]), path, path.stat().st_size)
                self._add(upload)
            elif name:
                path.unlink()
        for id_, offset in doubted.items():
            if id_ in self._known and self._known[id_].offset > offset:
                self.cut(self._known[id_], offset)
        for path in self._folder.iterdir():
            if _DOUBT.fullmatch(path.name):
                path.unlink()
        boot.write_text(boot_id)

    def _add(self, upload: Upload) -> None:
        self._known[upload.id] = upload
        self._bytes += upload.size_bytes

    def _drop(self, upload: Upload) -> None:
        del self._known[upload.id]
        self._bytes -= upload.size_bytes

    def _unlink(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise DiskError(f"{path}: cannot be removed: {error.strerror}") from error
