"""Top photos, of one user or of all, by views and likes over a period."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from frontend.database.access import may_see
from frontend.database.photos import Photo, photo_of, photo_query, with_tags
from frontend.database.tables import daily, photos

LIKE_WEIGHT = 20
"""A like counts as so many views: about one view in twenty is liked where people like much."""
_CONSIDERED = 400
"""The best of a period that are looked at; those whom the viewer may not see are left out of them."""


def top(
    connection: Connection, viewer_id: int | None, owner_id: int | None, first_day: int | None, limit: int
) -> list[Photo]:
    """The best photos that the viewer may see.

    Parameters
    ----------
    owner_id: of this user alone.
    first_day: what they got from that day (since 1970) on; None: ever.
    """
    if first_day is None:
        score = photos.c.view_count + LIKE_WEIGHT * photos.c.like_count
        query = photo_query().where(may_see(viewer_id)).order_by(score.desc(), photos.c.id.desc()).limit(limit)
        if owner_id is not None:
            query = query.where(photos.c.owner_id == owner_id)
        return with_tags(connection, [photo_of(row) for row in connection.execute(query)])
    points = func.sum(daily.c.views + LIKE_WEIGHT * daily.c.likes)
    best = select(daily.c.photo_id, points.label("points")).where(daily.c.day >= first_day)
    if owner_id is not None:
        best = best.where(daily.c.owner_id == owner_id)
    considered = best.group_by(daily.c.photo_id).order_by(points.desc(), daily.c.photo_id.desc()).limit(_CONSIDERED)
    ids = [row.photo_id for row in connection.execute(considered)]
    rows = connection.execute(photo_query().where(photos.c.id.in_(ids), may_see(viewer_id)))
    found = {photo.id: photo for photo in map(photo_of, rows)}
    return with_tags(connection, [found[photo_id] for photo_id in ids if photo_id in found][:limit])
