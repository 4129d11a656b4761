"""What pages show around photos: the ones before and after, those with a place, and what the viewer likes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, select, tuple_

from frontend.database.access import may_see
from frontend.database.photos import Photo, photo_of, photo_query
from frontend.database.sets import one_of
from frontend.database.tables import likes, photos


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The photos next to one, in the order of its owner's profile; None at an end."""

    newer: Photo | None
    older: Photo | None


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a photo was taken, in degrees north and east."""

    photo_id: int
    latitude: float
    longitude: float


def neighbours(connection: Connection, photo: Photo, viewer_id: int | None) -> Neighbours:
    """The owner's photos next to this one that the viewer may see (without their tags)."""
    place = tuple_(photos.c.created_ms, photos.c.id)
    here = tuple_(photo.created_ms, photo.id)
    own = photo_query().where(photos.c.owner_id == photo.owner_id, may_see(viewer_id)).limit(1)
    newer = connection.execute(own.where(place > here).order_by(photos.c.created_ms, photos.c.id)).first()
    older = connection.execute(own.where(place < here).order_by(photos.c.created_ms.desc(), photos.c.id.desc())).first()
    return Neighbours(*(None if row is None else photo_of(row) for row in (newer, older)))


def spots(connection: Connection, owner_id: int, limit: int) -> list[Spot]:
    """Where the owner's newest photos were taken, of those of which it is known; out of an index alone."""
    query = (
        select(photos.c.id, photos.c.latitude, photos.c.longitude)
        .where(photos.c.owner_id == owner_id, photos.c.latitude.is_not(None), photos.c.longitude.is_not(None))
        .order_by(photos.c.created_ms.desc(), photos.c.id.desc())
        .limit(limit)
    )
    return [Spot(*row) for row in connection.execute(query)]


def titles(connection: Connection, owner_id: int, photo_ids: Collection[int]) -> dict[int, str]:
    """The titles of some of the owner's photos, by id."""
    query = select(photos.c.id, photos.c.title).where(
        photos.c.owner_id == owner_id, one_of(connection, photos.c.id, photo_ids)
    )
    return {int(row[0]): str(row[1]) for row in connection.execute(query)}


def reacted(connection: Connection, viewer_id: int, photo_ids: Collection[int]) -> set[int]:
    """Those of the photos that the viewer has reacted to."""
    query = select(likes.c.photo_id).where(
        likes.c.user_id == viewer_id, one_of(connection, likes.c.photo_id, photo_ids)
    )
    return {int(row[0]) for row in connection.execute(query)}
