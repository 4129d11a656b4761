"""The feed: photos of those whom somebody follows, newest first.

Fan-out on read: nothing is written for followers when a photo is published, so it is there at once for 50,000 of them,
and gone at once after an unfollow. A page costs one look into the index of photos for each person followed, and a few
more for those whose newest photos make the page: of so many photos, no more people than that can be.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from frontend.database.engine import is_postgres
from frontend.database.paging import Page, Position
from frontend.database.photos import Photo, in_order

_OF_ONE = """
    SELECT photos.id, photos.created_ms FROM photos
    WHERE photos.owner_id = {owner} AND photos.visibility < 2
      AND (photos.created_ms, photos.id) < (:number, :id)
    ORDER BY photos.created_ms DESC, photos.id DESC LIMIT {limit}
"""
# Visibility 0 and 1: what followers may see.
_LATEST = f"""
WITH latest AS MATERIALIZED (
    SELECT follows.followee_id AS owner_id,
           (SELECT one.created_ms FROM ({_OF_ONE.format(owner="follows.followee_id", limit="1")}) AS one) AS created_ms
    FROM follows WHERE follows.follower_id = :viewer
), chosen AS MATERIALIZED (
    SELECT owner_id FROM latest WHERE created_ms >= (
        SELECT min(created_ms) FROM (
            SELECT created_ms FROM latest WHERE created_ms IS NOT NULL ORDER BY created_ms DESC LIMIT :limit
        ) AS best
    )
)
"""  # noqa: S608  # of constants
_NEWEST_SQLITE = f"""{_LATEST}
SELECT candidates.id FROM chosen
JOIN photos AS candidates ON candidates.id IN (
    SELECT one.id FROM ({_OF_ONE.format(owner="chosen.owner_id", limit=":limit")}) AS one
)
ORDER BY candidates.created_ms DESC, candidates.id DESC LIMIT :limit
"""  # noqa: S608  # of constants
_NEWEST_POSTGRES = f"""{_LATEST}
SELECT candidates.id FROM chosen
CROSS JOIN LATERAL ({_OF_ONE.format(owner="chosen.owner_id", limit=":limit")}) AS candidates
ORDER BY candidates.created_ms DESC, candidates.id DESC LIMIT :limit
"""  # noqa: S608  # of constants
_LAST = Position(2**63 - 1, 2**63 - 1)


def feed(connection: Connection, viewer_id: int, after: Position | None, limit: int) -> Page[Photo]:
    """A page of the feed."""
    start = after or _LAST
    values = {"viewer": viewer_id, "number": start.number, "id": start.id, "limit": limit + 1}
    newest = _NEWEST_POSTGRES if is_postgres(connection) else _NEWEST_SQLITE
    ids = [int(row[0]) for row in connection.execute(text(newest), values)]
    shown = tuple(in_order(connection, ids[:limit]))
    return Page(shown, Position(shown[-1].created_ms, shown[-1].id) if len(ids) > limit else None)
