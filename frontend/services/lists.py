"""Lists of photos: feed, explore, top, search."""

from __future__ import annotations

from sqlalchemy import Connection

from frontend.database import feed, finding, photos, points, top
from frontend.database.engine import Database
from frontend.database.finding import Found
from frontend.database.paging import Page, Position
from frontend.database.people import User
from frontend.database.photos import Photo
from frontend.services.errors import Invalid
from frontend.services.following import user_named
from frontend.services.names import clean_line
from frontend.services.talking import id_of

PERIODS = dict(zip(("day", "week", "month", "year", "ever"), (*points.PERIODS, points.EVER), strict=True))


class Lists:
    """What shows many photos at once; never one that the viewer may not see."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def feed(self, user: User, after: Position | None, limit: int) -> Page[Photo]:
        """Photos of those whom the user follows, newest first."""
        return await self._database.read(feed.feed, user.id, after, limit)

    async def explore(self, after: Position | None, limit: int) -> Page[Photo]:
        """Everybody's public photos, newest first."""
        return await self._database.read(photos.newest_public, after, limit)

    async def of_user(self, viewer: User | None, username: str, after: Position | None, limit: int) -> Page[Photo]:
        """A user's photos, newest first. Raises NotFound."""
        return await self._database.read(_of_user, id_of(viewer), username, after, limit)

    async def top(self, viewer: User | None, username: str | None, period: str, limit: int) -> list[Photo]:
        """The best photos of a user, or of all, by views and likes of a period. Raises NotFound, Invalid."""
        if period not in PERIODS:
            raise Invalid("period", f"there are {', '.join(PERIODS)}")
        return await self._database.read(_top, id_of(viewer), username, PERIODS[period], limit)

    async def search(self, viewer: User | None, query: str, after: Position | None, limit: int) -> Found:
        """Photos by words, #tags, @user, dates and place, best first. Raises InvalidRequest."""
        asked = finding.parse_query(clean_line(query, "q", finding.MAX_QUERY))
        return await self._database.read(finding.find, asked, id_of(viewer), after, limit)


def _of_user(
    connection: Connection, viewer_id: int | None, username: str, after: Position | None, limit: int
) -> Page[Photo]:
    return photos.of_user(connection, user_named(connection, username).id, viewer_id, after, limit)


def _top(connection: Connection, viewer_id: int | None, username: str | None, period: int, limit: int) -> list[Photo]:
    owner_id = None if username is None else user_named(connection, username).id
    return top.top(connection, viewer_id, owner_id, period, limit)
