"""From a ticket and the bytes of an upload to a stored photo: the steps, and what each of them leaves behind."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from frontend.images.pool import ImagePool
from frontend.images.preparing import Prepared
from frontend.images.renditions import UNTOUCHED, Encoded
from frontend.intake.outbox import INTENDED, Note, Outbox
from frontend.intake.store import MaybeStored, NotStored, StoreWriter, needles_of
from frontend.records import Record, dump, load
from frontend.tickets import Ticket, TicketOffice, TicketRefused
from haystack.fid import Fid

_log = logging.getLogger(__name__)

Result = TypeVar("Result")

ASKED_AGAIN_SECONDS = 2.0
"""How long after the start those who were being stored at a crash are asked for: a write may still be on its way."""


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

    async def take(self, ticket: Ticket, data: bytes) -> Taken:
        """Check, prepare and store an upload.

        Raises
        ------
        TicketRefused: it is of another size than the ticket says, or the same ticket is being used right now.
        ImageRefused, ImageTooLarge, ImagesBusy, ImageWorkFailed: what is wrong with the picture.
        NotStored, MaybeStored: the Store did not take it.
        """
        if len(data) != ticket.size_bytes:
            raise TicketRefused(f"the upload has {len(data)} bytes, the ticket is for {ticket.size_bytes}")
        if ticket.id in self._busy:
            raise TicketRefused("an upload with this ticket is being worked on; wait for its answer")
        self._busy.add(ticket.id)
        try:
            found = await self.before(ticket)
            if found is not None:
                return Taken(found, again=True)
            return Taken(await self._take(ticket, data), again=False)
        finally:
            self._busy.discard(ticket.id)

    async def _take(self, ticket: Ticket, data: bytes) -> Record:
        prepared = await self._pool.prepare(data)
        pictures = list(prepared.pictures)
        if ticket.keep_untouched:
            pictures.append(Encoded(UNTOUCHED, prepared.mime, prepared.width, prepared.height, data))
        record = _record(ticket, prepared, pictures, len(data), self._now_ms())
        await self.on_disk(self._outbox.intend, Note(ticket.id, ticket.expires, INTENDED, dump(record)))
        try:
            await self._store.write(Fid.parse(ticket.fid), needles_of(record, pictures))
        except NotStored:
            await self.on_disk(self._outbox.forget, ticket.id)
            raise
        await self.on_disk(self._outbox.stored, ticket.id)
        self._stored()
        return record

    async def settle(self) -> None:
        """After a start: find out what became of the uploads that were being stored when the intake ended."""
        left = await self.on_disk(self._outbox.intended)
        if left:
            await asyncio.sleep(ASKED_AGAIN_SECONDS)  # for a write that was on its way to the Store
        for note in left:
            if note.ticket not in self._busy:
                await self._settle(note)

    async def _settle(self, note: Note) -> None:
        wait_seconds = 0.5
        while True:
            try:
                there = await self._store.has(Fid.parse(load(note.record).fid))
            except MaybeStored as error:
                _log.warning("a photo that was being stored at the last end is asked for again soon: %s", error)
                await asyncio.sleep(wait_seconds)
                wait_seconds = min(60.0, wait_seconds * 2)
                continue
            act = self._outbox.stored if there else self._outbox.forget
            await self.on_disk(act, note.ticket)
            if there:
                self._stored()
            return

    async def close(self) -> None:
        """Wait for what is being written to the outbox."""
        await asyncio.to_thread(self._disk.shutdown)


def _record(ticket: Ticket, prepared: Prepared, pictures: list[Encoded], size_bytes: int, now_ms: int) -> Record:
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
        size_bytes=size_bytes,
        animated=prepared.animated,
        renditions=tuple(picture.alternate for picture in pictures),
        placeholder=prepared.placeholder.hex(),
        exact_hash=prepared.exact.hex(),
        near_hash=f"{prepared.near:016x}",
    )
