"""Top photos, of one user or of all, by views and likes over a period."""

from __future__ import annotations

from sqlalchemy import Connection, and_, select

from frontend.database.access import may_see
from frontend.database.photos import Photo, in_order
from frontend.database.points import EVER
from frontend.database.tables import photos, points

CONSIDERED = 400
"""The best that are looked at; those whom the viewer may not see are left out of them."""


def top(connection: Connection, viewer_id: int | None, owner_id: int | None, period: int, limit: int) -> list[Photo]:
    """The best photos that the viewer may see.

    Parameters
    ----------
    owner_id: of this user alone.
    period: how many days up to today; ``points.EVER`` for all.
    """
    best = select(points.c.photo_id, points.c.points).where(points.c.period == period)
    if period != EVER:
        best = best.where(points.c.points > 0)
    if owner_id is not None:
        best = best.where(points.c.owner_id == owner_id)
    order = (points.c.points.desc(), points.c.photo_id.desc())
    considered = best.order_by(*order).limit(CONSIDERED).subquery("considered")
    query = (
        select(considered.c.photo_id)
        .join(photos, and_(photos.c.id == considered.c.photo_id, may_see(viewer_id)))
        .order_by(considered.c.points.desc(), considered.c.photo_id.desc())
        .limit(limit)
    )
    ids = [int(row[0]) for row in connection.execute(query)]
    return in_order(connection, ids)
