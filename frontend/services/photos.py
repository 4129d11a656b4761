"""Photos: seeing, changing, deleting, publishing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from frontend.database import chores, people, photos
from frontend.database.engine import Database
from frontend.database.people import User
from frontend.database.photos import Photo
from frontend.records import Record
from frontend.services.errors import Conflict, Forbidden, Invalid
from frontend.services.limits import WRITE, Limits
from frontend.services.names import clean_caption, clean_tags, clean_title, parse_visibility
from frontend.services.stored import StoredPhotos
from frontend.services.talking import id_of, seen
from frontend.visibility import Visibility
from haystack.fid import Fid

STORED_ANEW_MS = 15 * 60 * 1000
"""How long storing a photo anew may take, before what was stored is removed again."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a photo was taken, degrees north and east."""

    latitude: float
    longitude: float


NO_PLACE = Place(0.0, 0.0)
"""Stands for a place that is to be forgotten; compared by identity."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be changed of a photo; None leaves it as it is.

    Parameters
    ----------
    place: ``NO_PLACE`` forgets it.
    """

    title: str | None = None
    caption: str | None = None
    tags: tuple[str, ...] | None = None
    visibility: str | None = None
    place: Place | None = None


class _Turn:
    """Those who want to change one photo, one after the other."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.wanted = 0


class Photos:
    """What concerns single photos.

    Parameters
    ----------
    changed: called after a change that leaves something to do in the store.
    now_ms: milliseconds since 1970.
    """

    def __init__(
        self,
        database: Database,
        stored: StoredPhotos,
        limits: Limits,
        *,
        changed: Callable[[], None],
        now_ms: Callable[[], int],
    ) -> None:
        self._database = database
        self._stored = stored
        self._limits = limits
        self._changed = changed
        self._now_ms = now_ms
        self._turns: dict[int, _Turn] = {}

    async def get(self, viewer: User | None, photo_id: int) -> Photo:
        """A photo. Raises NotFound, also for one that the viewer may not see."""
        return await self._database.read(seen, photo_id, id_of(viewer))

    async def alike(self, user: User, photo: Photo) -> list[Photo]:
        """Other photos of the user that are the same file, or look much the same."""
        found = await self._database.read(photos.alike, user.id, photo.exact_hash, photo.near_hash)
        return [one for one in found if one.id != photo.id]

    async def change(self, user: User, photo_id: int, changes: Changes) -> Photo:
        """Change what is known of one's photo. Another visibility has all its needles stored anew.

        Raises
        ------
        NotFound, Forbidden, Invalid, Conflict, TooMany.
        Busy, Unreachable, VolumeUnavailable: needles cannot be stored anew now; nothing was changed.
        """
        wanted = _checked(changes)
        self._limits.take(WRITE, str(user.id))
        async with self._alone(photo_id):
            before = await self._database.read(owned, photo_id, user.id)
            after = _changed(before, wanted)
            if before.visibility is not after.visibility:
                after = await self._store_anew(before, after)
            elif after != before:
                await self._database.write(_change, after, self._now_ms())
                self._changed()
        return await self.get(user, photo_id)

    async def delete(self, user: User, photo_id: int) -> None:
        """Delete one's photo, with all that hangs on it; its needles follow. Raises NotFound, Forbidden, TooMany."""
        self._limits.take(WRITE, str(user.id))
        async with self._alone(photo_id):
            await self._database.write(_delete, user.id, photo_id, self._now_ms())
        self._changed()

    async def publish(self, record: Record) -> bool:
        """Take in the record of a photo that was stored. Whether it is new."""
        return await self._database.write(publish, record, self._now_ms())

    async def _store_anew(self, before: Photo, after: Photo) -> Photo:
        old = Fid.parse(before.fid)
        needles = await self._stored.copy(old, before.renditions, after.visibility)
        there = tuple(needle.alternate for needle in needles)
        new, address = await self._stored.assign()
        after = replace(after, fid=str(new))
        record = record_of(after, await self._stored.record(old))
        # Whatever happens from here on, one of the two sets of needles is removed and the other one is not.
        await self._database.write(chores.expect_removal, after.id, str(new), there, self._now_ms() + STORED_ANEW_MS)
        await self._stored.write(address, new, needles, record)
        await self._database.write(_move, before, after, new.key, self._now_ms())
        self._changed()
        return after

    @asynccontextmanager
    async def _alone(self, photo_id: int) -> AsyncIterator[None]:
        """One change of a photo at a time."""
        turn = self._turns.setdefault(photo_id, _Turn())
        turn.wanted += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.wanted -= 1
            if not turn.wanted:
                del self._turns[photo_id]


def owned(connection: Connection, photo_id: int, user_id: int) -> Photo:
    """The user's own photo. Raises NotFound when he may not see it, Forbidden when it is somebody else's."""
    photo = seen(connection, photo_id, user_id)
    if photo.owner_id != user_id:
        raise Forbidden("only its owner can change or delete a photo")
    return photo


def publish(connection: Connection, record: Record, now_ms: int) -> bool:
    """Keep the photo of a record. False when it is known already, or was deleted meanwhile."""
    if chores.is_buried(connection, record.photo_id):
        return False
    owner = people.by_id(connection, record.owner_id)
    if owner is None:
        raise Conflict(f"photo {record.photo_id:x} is of user {record.owner_id} who is not known")
    try:
        with connection.begin_nested():
            new = photos.publish(connection, photo_of_record(record, owner))
    except IntegrityError:
        return False  # the intake and the front end that passed the upload on publish it at the same moment
    key = Fid.parse(record.fid).key
    if new and key != record.photo_id:
        chores.set_fid(connection, record.photo_id, record.fid, record.fid, key)
    return new


def photo_of_record(record: Record, owner: User) -> Photo:
    """What the database keeps of a record."""
    return Photo(
        id=record.photo_id,
        owner_id=owner.id,
        owner_name=owner.username,
        fid=record.fid,
        title=record.title,
        caption=record.caption,
        visibility=Visibility(record.visibility),
        created_ms=record.created_ms,
        taken_ms=record.taken_ms,
        latitude=record.latitude,
        longitude=record.longitude,
        camera=record.camera,
        mime=record.mime,
        width=record.width,
        height=record.height,
        size_bytes=record.size_bytes,
        animated=record.animated,
        renditions=record.renditions,
        placeholder=bytes.fromhex(record.placeholder),
        exact_hash=bytes.fromhex(record.exact_hash),
        near_hash=int(record.near_hash, 16),
        tags=record.tags,
    )


def record_of(photo: Photo, before: Record | None) -> Record:
    """The record to store of a photo.

    Parameters
    ----------
    before: the one that is stored: it knows what the database does not keep.
    """
    return Record(
        fid=photo.fid,
        owner_id=photo.owner_id,
        owner_name=photo.owner_name,
        owner_shown=before.owner_shown if before else photo.owner_name,
        title=photo.title,
        caption=photo.caption,
        tags=photo.tags,
        visibility=int(photo.visibility),
        created_ms=photo.created_ms,
        taken_ms=photo.taken_ms,
        latitude=photo.latitude,
        longitude=photo.longitude,
        camera=photo.camera,
        name=before.name if before else "",
        mime=photo.mime,
        width=photo.width,
        height=photo.height,
        size_bytes=photo.size_bytes,
        animated=photo.animated,
        renditions=photo.renditions,
        placeholder=photo.placeholder.hex(),
        exact_hash=photo.exact_hash.hex(),
        near_hash=f"{photo.near_hash:016x}",
        original_id=photo.id if Fid.parse(photo.fid).key != photo.id else None,
    )


def _checked(changes: Changes) -> Changes:
    place = changes.place
    if place is not None and not (-90 <= place.latitude <= 90 and -180 <= place.longitude <= 180):
        raise Invalid("place", "a place has -90 to 90 degrees north and -180 to 180 degrees east")
    if changes.visibility is not None:
        parse_visibility(changes.visibility)
    return replace(
        changes,
        title=None if changes.title is None else clean_title(changes.title),
        caption=None if changes.caption is None else clean_caption(changes.caption),
        tags=None if changes.tags is None else clean_tags(changes.tags),
    )


def _changed(photo: Photo, changes: Changes) -> Photo:
    latitude, longitude = photo.latitude, photo.longitude
    if changes.place is NO_PLACE:
        latitude = longitude = None
    elif changes.place is not None:
        latitude, longitude = changes.place.latitude, changes.place.longitude
    return replace(
        photo,
        title=photo.title if changes.title is None else changes.title,
        caption=photo.caption if changes.caption is None else changes.caption,
        tags=photo.tags if changes.tags is None else changes.tags,
        visibility=photo.visibility if changes.visibility is None else Visibility.of(changes.visibility),
        latitude=latitude,
        longitude=longitude,
    )


def _change(connection: Connection, photo: Photo, now_ms: int) -> None:
    photos.change(connection, photo)
    chores.write_record(connection, photo.id, now_ms)


def _delete(connection: Connection, user_id: int, photo_id: int, now_ms: int) -> None:
    photo = owned(connection, photo_id, user_id)
    photos.remove(connection, photo, now_ms)
    chores.bury(connection, photo_id, now_ms)


def _move(connection: Connection, before: Photo, after: Photo, store_key: int, now_ms: int) -> None:
    if not chores.keep(connection, after.id, after.fid):
        raise Conflict("storing the photo anew took too long; try again")
    if not chores.set_fid(connection, after.id, before.fid, after.fid, store_key):
        raise Conflict("the photo was changed or deleted meanwhile; look at it again")
    photos.change(connection, after)
    photos.note_removal(connection, before, now_ms)
