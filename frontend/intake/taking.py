"""From a ticket and the bytes of an upload to a stored photo: the steps, and what each of them leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from frontend.images.errors import ImagesBusy
from frontend.images.pool import ImagePool
from frontend.images.preparing import Prepared
from frontend.images.renditions import UNTOUCHED, Encoded
from frontend.intake.errors import UploadInUse
from frontend.intake.outbox import INTENDED, Note, Outbox
from frontend.intake.store import MaybeStored, NotStored, StoreWriter, needles_of
from frontend.records import Record, dump, load
from frontend.tickets import Ticket, TicketOffice
from haystack.errors import DiskError
from haystack.fid import Fid

_log = logging.getLogger(__name__)

Result = TypeVar("Result")

ASKED_AGAIN_SECONDS = 2.0
"""How long after an end without an answer a photo is asked for: its write may still be on its way."""
MAX_BUSY = 64
"""Uploads that are complete and not stored yet; each may have its renditions in memory."""
MAX_WRITING = 8
"""Multi-writes at the same time; each may have an untouched original in memory."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A photo that was stored.

    Parameters
    ----------
    again: it had been stored before, and this was the same upload once more.
    """

    record: Record
    again: bool


class Taker:
    """Takes uploads.

    Parameters
    ----------
    notes: called after a photo was stored, so that it is published soon.
    now_ms: milliseconds since 1970.
    """

    def __init__(
        self,
        office: TicketOffice,
        outbox: Outbox,
        pool: ImagePool,
        store: StoreWriter,
        *,
        stored: Callable[[], None],
        now_ms: Callable[[], int],
    ) -> None:
        self._office = office
        self._outbox = outbox
        self._pool = pool
        self._store = store
        self._stored = stored
        self._now_ms = now_ms
        self._disk = ThreadPoolExecutor(1, "outbox")
        self._busy: set[bytes] = set()
        self._writing = asyncio.Semaphore(MAX_WRITING)
        self._unsettled = asyncio.Event()

    async def on_disk(self, act: Callable[..., Result], *args: object) -> Result:
        """A call of the outbox, on its thread."""
        return await asyncio.get_running_loop().run_in_executor(self._disk, act, *args)

    def check(self, text: str) -> Ticket:
        """The ticket that a text is. Raises TicketRefused."""
        return self._office.check(text, self._now_ms() / 1000)

    async def before(self, ticket: Ticket) -> Record | None:
        """The photo that was stored with this ticket before, so that nothing needs to be sent again."""
        note = await self.on_disk(self._outbox.find, ticket.id)
        return None if note is None or note.state == INTENDED else load(note.record)

    async def take(self, ticket: Ticket, file: Path) -> Taken:
        """Check, prepare and store an upload.

        Parameters
        ----------
        file: with its bytes, as many as the ticket says.

        Raises
        ------
        UploadInUse: the same ticket is being used right now.
        ImageRefused, ImageTooLarge, ImagesBusy, ImageWorkFailed: what is wrong with the picture.
        NotStored, MaybeStored: the Store did not take it.
        DiskError: the file or the outbox is not to be used.
        """
        if len(self._busy) >= MAX_BUSY:
            raise ImagesBusy("too many uploads are being worked on; try again in a moment")
        with self._alone(ticket.id):
            found = await self.before(ticket)
            if found is not None:
                return Taken(found, again=True)
            return Taken(await self._take(ticket, file), again=False)

    @contextlib.contextmanager
    def _alone(self, ticket: bytes) -> Iterator[None]:
        """Nobody else works on a ticket, nor settles what became of it, meanwhile. Raises UploadInUse."""
        if ticket in self._busy:
            raise UploadInUse("an upload with this ticket is being worked on; ask again in a moment")
        self._busy.add(ticket)
        try:
            yield
        finally:
            self._busy.discard(ticket)

    async def _take(self, ticket: Ticket, file: Path) -> Record:
        prepared = await self._pool.prepare(file)
        async with self._writing:
            pictures = list(prepared.pictures)
            if ticket.keep_untouched:
                data = await asyncio.to_thread(_read, file)
                pictures.append(Encoded(UNTOUCHED, prepared.mime, prepared.width, prepared.height, data))
            record = _record(ticket, prepared, pictures, self._now_ms())
            await self.on_disk(self._outbox.intend, Note(ticket.id, ticket.expires, INTENDED, dump(record)))
            await self._write(ticket, record, pictures)
        self._stored()
        return record

    async def _write(self, ticket: Ticket, record: Record, pictures: list[Encoded]) -> None:
        try:
            await self._store.write(Fid.parse(ticket.fid), needles_of(record, pictures))
        except NotStored:
            await self.on_disk(self._outbox.forget, ticket.id)
            raise
        except MaybeStored:
            self._unsettled.set()
            raise
        await self.on_disk(self._outbox.stored, ticket.id)

    async def settle(self) -> None:
        """For ever: find out what became of the uploads of which nobody knows whether they were stored.

        They are those that were being stored when the intake ended the last time, and those to which the Store gave
        no answer: their clients were told to come again, and may not.
        """
        self._unsettled.set()
        while True:
            await self._unsettled.wait()
            self._unsettled.clear()
            await asyncio.sleep(ASKED_AGAIN_SECONDS)  # for a write that is still on its way to the Store
            for note in await self.on_disk(self._outbox.intended):
                try:
                    with self._alone(note.ticket):
                        await self._settle(note.ticket)
                except UploadInUse:
                    continue  # its client has come again, and writes it anew
                except MaybeStored as error:
                    _log.warning("what became of an upload is asked again soon: %s", error)
                    self._unsettled.set()

    async def _settle(self, ticket: bytes) -> None:
        note = await self.on_disk(self._outbox.find, ticket)
        if note is None or note.state != INTENDED:
            return  # it was settled between the question for all of them and now
        if await self._store.has(Fid.parse(load(note.record).fid)):
            await self.on_disk(self._outbox.stored, ticket)
            self._stored()
        else:
            await self.on_disk(self._outbox.forget, ticket)

    async def close(self) -> None:
        """Wait for what is being written to the outbox."""
        await asyncio.to_thread(self._disk.shutdown)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DiskError(f"{file}: cannot be read: {error.strerror}") from error


def _record(ticket: Ticket, prepared: Prepared, pictures: list[Encoded], now_ms: int) -> Record:
    taken = prepared.taken
    place = taken.place if ticket.keep_place else None
    return Record(
        fid=ticket.fid,
        owner_id=ticket.owner_id,
        owner_name=ticket.owner_name,
        owner_shown=ticket.owner_shown,
        title=ticket.title,
        caption=ticket.caption,
        tags=ticket.tags,
        visibility=ticket.visibility,
        created_ms=now_ms,
        taken_ms=taken.time_ms,
        latitude=place.latitude if place else None,
        longitude=place.longitude if place else None,
        camera=taken.camera,
        name=ticket.name,
        mime=prepared.mime,
        width=prepared.width,
        height=prepared.height,
        size_bytes=ticket.size_bytes,
        animated=prepared.animated,
        renditions=tuple(picture.alternate for picture in pictures),
        placeholder=prepared.placeholder.hex(),
        exact_hash=prepared.exact.hex(),
        near_hash=f"{prepared.near:016x}",
    )
