"""The feed: photos of those whom somebody follows, newest first.

Fan-out on read: nothing is written for followers when a photo is published, so it is there at once for 50,000 of them,
and gone at once after an unfollow. A page costs one look into the index of photos for each person followed.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from frontend.database.paging import Page, Position
from frontend.database.photos import Photo, photo_of, photo_query, with_tags
from frontend.database.tables import photos

_NEWEST = """
SELECT candidates.id FROM follows
JOIN photos AS candidates ON candidates.id IN (
    SELECT photos.id FROM photos
    WHERE photos.owner_id = follows.followee_id AND photos.visibility < 2
      AND (photos.created_ms, photos.id) < (:number, :id)
    ORDER BY photos.created_ms DESC, photos.id DESC LIMIT :limit
)
WHERE follows.follower_id = :viewer
ORDER BY candidates.created_ms DESC, candidates.id DESC LIMIT :limit
"""
_LAST = Position(2**63 - 1, 2**63 - 1)


def feed(connection: Connection, viewer_id: int, after: Position | None, limit: int) -> Page[Photo]:
    """A page of the feed."""
    start = after or _LAST
    values = {"viewer": viewer_id, "number": start.number, "id": start.id, "limit": limit + 1}
    ids = [int(row[0]) for row in connection.execute(text(_NEWEST), values)]
    rows = connection.execute(photo_query().where(photos.c.id.in_(ids[:limit])))
    found = {photo.id: photo for photo in with_tags(connection, [photo_of(row) for row in rows])}
    shown = tuple(found[photo_id] for photo_id in ids[:limit])
    return Page(shown, Position(shown[-1].created_ms, shown[-1].id) if len(ids) > limit else None)
