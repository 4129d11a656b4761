"""Who may see which photos, as a condition of statements, so that no list ever shows one too many."""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, exists, or_, select

from frontend.database.tables import follows, photos
from frontend.visibility import Visibility


def may_see(viewer_id: int | None) -> ColumnElement[bool]:
    """True of the photos that somebody may see: public ones, one's own, and those for followers of whom one follows.

    Parameters
    ----------
    viewer_id: None for somebody who is not logged in.
    """
    public = photos.c.visibility == int(Visibility.PUBLIC)
    if viewer_id is None:
        return public
    follows_owner = exists(
        select(follows.c.followee_id)
        .where(follows.c.follower_id == viewer_id, follows.c.followee_id == photos.c.owner_id)
        .correlate(photos)
    )
    return or_(
        public,
        photos.c.owner_id == viewer_id,
        and_(photos.c.visibility == int(Visibility.FOLLOWERS), follows_owner),
    )
