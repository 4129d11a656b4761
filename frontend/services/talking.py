"""Comments and reactions: for all who may see a photo."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from frontend.database import photos, talk
from frontend.database.engine import Database
from frontend.database.paging import Page, Position
from frontend.database.people import User
from frontend.database.photos import Photo
from frontend.database.talk import Comment
from frontend.services.errors import Forbidden, Invalid, NotFound
from frontend.services.limits import WRITE, Limits
from frontend.services.names import MAX_COMMENT, REACTIONS, clean_text


@dataclass(frozen=True, slots=True)
class Reactions:
    """How people reacted to a photo, and how the one who asks did."""

    counts: Mapping[str, int]
    mine: str | None


class Talk:
    """What concerns comments and reactions. ``now_ms``: milliseconds since 1970."""

    def __init__(self, database: Database, limits: Limits, *, now_ms: Callable[[], int]) -> None:
        self._database = database
        self._limits = limits
        self._now_ms = now_ms

    async def comment(self, user: User, photo_id: int, text: str) -> Comment:
        """Write a comment. Raises NotFound, Invalid, TooMany."""
        text = clean_text(text, "text", MAX_COMMENT)
        if not text:
            raise Invalid("text", "a comment needs a text")
        self._limits.take(WRITE, str(user.id))
        return await self._database.write(_comment, user.id, photo_id, text, self._now_ms())

    async def comments(self, viewer: User | None, photo_id: int, after: Position | None, limit: int) -> Page[Comment]:
        """The comments under a photo, oldest first. Raises NotFound."""
        return await self._database.read(_comments, id_of(viewer), photo_id, after, limit)

    async def remove_comment(self, user: User, photo_id: int, comment_id: int) -> None:
        """For who wrote it, and the photo's owner. Raises NotFound, Forbidden, TooMany."""
        self._limits.take(WRITE, str(user.id))
        await self._database.write(_remove_comment, user.id, photo_id, comment_id)

    async def like(self, user: User, photo_id: int, reaction: str = REACTIONS[0]) -> Reactions:
        """React to a photo, in place of an earlier reaction. Raises NotFound, Invalid, TooMany."""
        if reaction not in REACTIONS:
            raise Invalid("reaction", f"there are {', '.join(REACTIONS)}")
        self._limits.take(WRITE, str(user.id))
        return await self._database.write(_like, user.id, photo_id, reaction, self._now_ms())

    async def unlike(self, user: User, photo_id: int) -> Reactions:
        """Take a reaction back. Raises NotFound, TooMany."""
        self._limits.take(WRITE, str(user.id))
        return await self._database.write(_unlike, user.id, photo_id, self._now_ms())

    async def reactions(self, viewer: User | None, photo_id: int) -> Reactions:
        """How people reacted. Raises NotFound."""
        return await self._database.read(_reactions, id_of(viewer), photo_id)


def id_of(viewer: User | None) -> int | None:
    """The id of who asks."""
    return None if viewer is None else viewer.id


def seen(connection: Connection, photo_id: int, viewer_id: int | None) -> Photo:
    """The photo, for one who may see it. Raises NotFound."""
    photo = photos.by_id(connection, photo_id, viewer_id)
    if photo is None:
        raise NotFound("there is no such photo")
    return photo


def _comment(connection: Connection, user_id: int, photo_id: int, text: str, now_ms: int) -> Comment:
    seen(connection, photo_id, user_id)
    written = talk.comment_by_id(connection, talk.add_comment(connection, photo_id, user_id, text, now_ms))
    assert written is not None
    return written


def _comments(
    connection: Connection, viewer_id: int | None, photo_id: int, after: Position | None, limit: int
) -> Page[Comment]:
    seen(connection, photo_id, viewer_id)
    return talk.comments_of(connection, photo_id, after, limit)


def _remove_comment(connection: Connection, user_id: int, photo_id: int, comment_id: int) -> None:
    photo = seen(connection, photo_id, user_id)
    comment = talk.comment_by_id(connection, comment_id)
    if comment is None or comment.photo_id != photo.id:
        raise NotFound("there is no such comment")
    if user_id not in (comment.author_id, photo.owner_id):
        raise Forbidden("a comment can be deleted by who wrote it, and by the photo's owner")
    talk.remove_comment(connection, comment)


def _like(connection: Connection, user_id: int, photo_id: int, reaction: str, now_ms: int) -> Reactions:
    talk.like(connection, seen(connection, photo_id, user_id), user_id, reaction, now_ms)
    return _reactions(connection, user_id, photo_id)


def _unlike(connection: Connection, user_id: int, photo_id: int, now_ms: int) -> Reactions:
    talk.unlike(connection, seen(connection, photo_id, user_id), user_id, now_ms)
    return _reactions(connection, user_id, photo_id)


def _reactions(connection: Connection, viewer_id: int | None, photo_id: int) -> Reactions:
    seen(connection, photo_id, viewer_id)
    mine = None if viewer_id is None else talk.reaction_of(connection, photo_id, viewer_id)
    return Reactions(talk.reactions_to(connection, photo_id), mine)
