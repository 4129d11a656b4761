"""Photos' records: publishing, showing, changing, giving up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, insert, select, update

from frontend.database import points, search
from frontend.database.access import may_see
from frontend.database.paging import Page, Position, newest_first
from frontend.database.sets import one_of
from frontend.database.tables import photo_tags, photos, removals, users
from frontend.images.fingerprints import NEAR_BITS, bits_apart
from frontend.visibility import Visibility

_SIGN = 1 << 63


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo's record.

    Parameters
    ----------
    id: its key in the store.
    owner_name: the owner's user name.
    fid: of its original in the store.
    visibility: who may see it.
    created_ms, taken_ms: when it was published, and when it was taken, if that is known.
    latitude, longitude: where, if that is known and its owner does not mind.
    mime, width, height, size_bytes: of the upload.
    renditions: alternate keys that the store has.
    placeholder: its thumbhash.
    exact_hash, near_hash: fingerprints, see :mod:`frontend.images.fingerprints`.
    tags: in alphabetical order.
    """

    id: int
    owner_id: int
    owner_name: str
    fid: str
    title: str
    caption: str
    visibility: Visibility
    created_ms: int
    taken_ms: int | None
    latitude: float | None
    longitude: float | None
    camera: str
    mime: str
    width: int
    height: int
    size_bytes: int
    animated: bool
    renditions: tuple[int, ...]
    placeholder: bytes
    exact_hash: bytes
    near_hash: int
    like_count: int = 0
    comment_count: int = 0
    view_count: int = 0
    tags: tuple[str, ...] = ()


_OWN = (
    photos.c.fid,
    photos.c.title,
    photos.c.caption,
    photos.c.visibility,
    photos.c.created_ms,
    photos.c.taken_ms,
    photos.c.latitude,
    photos.c.longitude,
    photos.c.camera,
    photos.c.mime,
    photos.c.width,
    photos.c.height,
    photos.c.size_bytes,
    photos.c.animated,
    photos.c.renditions,
    photos.c.placeholder,
    photos.c.exact_hash,
    photos.c.near_hash,
    photos.c.like_count,
    photos.c.comment_count,
    photos.c.view_count,
)
PHOTO_COLUMNS = (photos.c.id, photos.c.owner_id, users.c.username, *_OWN)
_VISIBILITY, _RENDITIONS, _NEAR = map(
    PHOTO_COLUMNS.index, (photos.c.visibility, photos.c.renditions, photos.c.near_hash)
)
_VISIBILITIES = tuple(sorted(Visibility))


def photo_query() -> Select[Any]:
    """All photos, with the user names of their owners."""
    return select(*PHOTO_COLUMNS).join_from(photos, users, users.c.id == photos.c.owner_id)


def photo_of(row: Sequence[Any], tags: Sequence[str] = ()) -> Photo:
    """The photo of a row of :func:`photo_query`."""
    values: list[Any] = [*row[: len(PHOTO_COLUMNS)], tuple(tags)]
    # What is kept in another form than it is used in.
    values[_VISIBILITY] = _VISIBILITIES[values[_VISIBILITY]]
    values[_RENDITIONS] = parse_renditions(values[_RENDITIONS])
    values[_NEAR] += _SIGN
    return Photo(*values)


@lru_cache(maxsize=1000)
def parse_renditions(text: str) -> tuple[int, ...]:
    """The alternate keys that a record names."""
    return tuple(int(part) for part in text.split(",") if part)


def publish(connection: Connection, photo: Photo) -> bool:
    """Keep a photo's record. Whether it was new: a photo that is there already is left alone."""
    known = connection.execute(select(photos.c.id).where(photos.c.id == photo.id)).first()
    if known is not None:
        return False
    values = {column.name: getattr(photo, column.name) for column in _OWN}
    values |= {
        "id": photo.id,
        "owner_id": photo.owner_id,
        "visibility": int(photo.visibility),
        "renditions": ",".join(map(str, photo.renditions)),
        "near_hash": photo.near_hash - _SIGN,  # databases have signed numbers alone
    }
    connection.execute(insert(photos).values(**values))
    _set_tags(connection, photo.id, photo.tags)
    connection.execute(update(users).where(users.c.id == photo.owner_id).values(photo_count=users.c.photo_count + 1))
    points.begin(connection, photo.id, photo.owner_id)
    search.put(connection, photo.id, _searched(photo), new=True)
    return True


def change(connection: Connection, photo: Photo) -> None:
    """Keep what can be changed of a photo: title, caption, tags, visibility, place, and its fid with that."""
    connection.execute(
        update(photos)
        .where(photos.c.id == photo.id)
        .values(
            title=photo.title,
            caption=photo.caption,
            visibility=int(photo.visibility),
            latitude=photo.latitude,
            longitude=photo.longitude,
            fid=photo.fid,
        )
    )
    _set_tags(connection, photo.id, photo.tags)
    search.put(connection, photo.id, _searched(photo), new=False)


def remove(connection: Connection, photo: Photo, now_ms: int) -> bool:
    """Give up a photo and all that hangs on it; its needles are noted down to be deleted. Whether it was there."""
    result = connection.execute(delete(photos).where(photos.c.id == photo.id))
    if result.rowcount == 0:
        return False
    search.remove(connection, photo.id)
    connection.execute(update(users).where(users.c.id == photo.owner_id).values(photo_count=users.c.photo_count - 1))
    note_removal(connection, photo, now_ms)
    return True


def note_removal(connection: Connection, photo: Photo, now_ms: int) -> None:
    """Note down that the needles of this record are to be deleted from the store."""
    connection.execute(
        insert(removals).values(
            photo_id=photo.id, fid=photo.fid, renditions=",".join(map(str, photo.renditions)), retry_ms=now_ms
        )
    )


def by_id(connection: Connection, photo_id: int, viewer_id: int | None) -> Photo | None:
    """The photo, if it is there and the viewer may see it."""
    row = connection.execute(photo_query().where(photos.c.id == photo_id, may_see(viewer_id))).one_or_none()
    return None if row is None else with_tags(connection, [row])[0]


def whatever(connection: Connection, photo_id: int) -> Photo | None:
    """The photo, whoever may see it: for what nobody has asked for."""
    row = connection.execute(photo_query().where(photos.c.id == photo_id)).one_or_none()
    return None if row is None else with_tags(connection, [row])[0]


def of_user(
    connection: Connection, owner_id: int, viewer_id: int | None, after: Position | None, limit: int
) -> Page[Photo]:
    """A user's photos that the viewer may see, newest first."""
    return page(connection, photo_query().where(photos.c.owner_id == owner_id, may_see(viewer_id)), after, limit)


def newest_public(connection: Connection, after: Position | None, limit: int) -> Page[Photo]:
    """Everybody's public photos, newest first."""
    return page(connection, photo_query().where(photos.c.visibility == int(Visibility.PUBLIC)), after, limit)


def page(connection: Connection, query: Select[Any], after: Position | None, limit: int) -> Page[Photo]:
    """A page of photos, newest first, with their tags."""
    rows = connection.execute(newest_first(query, photos.c.created_ms, photos.c.id, after, limit)).all()
    shown = rows[:limit]
    following = Position(shown[-1].created_ms, shown[-1].id) if len(rows) > limit else None
    return Page(tuple(with_tags(connection, shown)), following)


def with_tags(connection: Connection, rows: Sequence[Row[Any]]) -> list[Photo]:
    """The photos of some rows of :func:`photo_query` with their tags, which one statement brings for all."""
    if not rows:
        return []
    tags: dict[int, list[str]] = {row[0]: [] for row in rows}
    query = select(photo_tags.c.photo_id, photo_tags.c.tag).where(one_of(connection, photo_tags.c.photo_id, tags))
    for photo_id, tag in connection.execute(query).all():
        tags[photo_id].append(tag)
    return [photo_of(row, sorted(tags[row[0]])) for row in rows]


def in_order(connection: Connection, photo_ids: Sequence[int]) -> list[Photo]:
    """Some photos with their tags, in the order of their ids here; those that are gone are left out."""
    rows = connection.execute(photo_query().where(one_of(connection, photos.c.id, photo_ids))).all()
    found = {photo.id: photo for photo in with_tags(connection, rows)}
    return [found[photo_id] for photo_id in photo_ids if photo_id in found]


def alike(connection: Connection, owner_id: int, exact_hash: bytes, near_hash: int, limit: int = 5) -> list[Photo]:
    """The owner's photos that are the same file (first), or look much the same."""
    rows = connection.execute(
        select(photos.c.id, photos.c.exact_hash, photos.c.near_hash).where(photos.c.owner_id == owner_id)
    )
    found = []
    for photo_id, exact, near in rows:
        apart = -1 if exact == exact_hash else bits_apart(near + _SIGN, near_hash)
        if apart <= NEAR_BITS:
            found.append((apart, photo_id))
    return in_order(connection, [photo_id for _, photo_id in sorted(found)[:limit]])


def _set_tags(connection: Connection, photo_id: int, tags: Sequence[str]) -> None:
    connection.execute(delete(photo_tags).where(photo_tags.c.photo_id == photo_id))
    if tags:
        connection.execute(insert(photo_tags), [{"photo_id": photo_id, "tag": tag} for tag in sorted(set(tags))])


def _searched(photo: Photo) -> search.Searched:
    return search.Searched(
        title=photo.title,
        caption=photo.caption,
        tags=photo.tags,
        owner=photo.owner_name,
        camera=photo.camera,
        visibility=int(photo.visibility),
        when_ms=photo.created_ms if photo.taken_ms is None else photo.taken_ms,
        latitude=photo.latitude,
        longitude=photo.longitude,
    )
