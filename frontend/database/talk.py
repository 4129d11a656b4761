"""What people say of photos: comments and likes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from frontend.database import points
from frontend.database.paging import Page, Position, oldest_first, page_of
from frontend.database.photos import Photo
from frontend.database.points import Gain
from frontend.database.tables import comments, likes, photos, users

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Comment:
    """What somebody wrote under a photo."""

    id: int
    photo_id: int
    author_id: int
    author_name: str
    text: str
    created_ms: int


_COMMENT_COLUMNS = (
    comments.c.id,
    comments.c.photo_id,
    comments.c.author_id,
    users.c.username,
    comments.c.text,
    comments.c.created_ms,
)


def _comment_of(row: Sequence[Any]) -> Comment:
    return Comment(*row)


def add_comment(connection: Connection, photo_id: int, author_id: int, text: str, now_ms: int) -> int:
    """Keep a comment; its id."""
    result = connection.execute(
        insert(comments).values(photo_id=photo_id, author_id=author_id, text=text, created_ms=now_ms)
    )
    connection.execute(update(photos).where(photos.c.id == photo_id).values(comment_count=photos.c.comment_count + 1))
    assert result.inserted_primary_key is not None
    return int(result.inserted_primary_key[0])


def comment_by_id(connection: Connection, comment_id: int) -> Comment | None:
    row = connection.execute(
        select(*_COMMENT_COLUMNS)
        .join_from(comments, users, users.c.id == comments.c.author_id)
        .where(comments.c.id == comment_id)
    ).one_or_none()
    return None if row is None else _comment_of(row)


def comments_of(connection: Connection, photo_id: int, after: Position | None, limit: int) -> Page[Comment]:
    """A page of the comments under a photo, oldest first."""
    query = (
        select(*_COMMENT_COLUMNS)
        .join_from(comments, users, users.c.id == comments.c.author_id)
        .where(comments.c.photo_id == photo_id)
    )
    rows = connection.execute(oldest_first(query, comments.c.created_ms, comments.c.id, after, limit)).all()
    return page_of(rows, limit, _comment_of, lambda row: Position(row.created_ms, row.id))


def remove_comment(connection: Connection, comment: Comment) -> bool:
    """Whether it was there."""
    if connection.execute(delete(comments).where(comments.c.id == comment.id)).rowcount == 0:
        return False
    connection.execute(
        update(photos).where(photos.c.id == comment.photo_id).values(comment_count=photos.c.comment_count - 1)
    )
    return True


def like(connection: Connection, photo: Photo, user_id: int, reaction: str, now_ms: int) -> bool:
    """Keep somebody's reaction to a photo, in place of an earlier one. Whether it is his first to this photo."""
    changed = connection.execute(
        update(likes).where(likes.c.photo_id == photo.id, likes.c.user_id == user_id).values(reaction=reaction)
    )
    if changed.rowcount:
        return False
    connection.execute(insert(likes).values(photo_id=photo.id, user_id=user_id, reaction=reaction, created_ms=now_ms))
    _count_like(connection, photo, now_ms, 1)
    return True


def unlike(connection: Connection, photo: Photo, user_id: int, now_ms: int) -> bool:
    """Take a reaction back. Whether there was one."""
    created_ms = connection.execute(
        delete(likes).where(likes.c.photo_id == photo.id, likes.c.user_id == user_id).returning(likes.c.created_ms)
    ).scalar_one_or_none()
    if created_ms is None:
        return False
    _count_like(connection, photo, created_ms, -1)
    return True


def _count_like(connection: Connection, photo: Photo, when_ms: int, change: int) -> None:
    connection.execute(update(photos).where(photos.c.id == photo.id).values(like_count=photos.c.like_count + change))
    points.add(connection, [Gain(photo.id, photo.owner_id, likes=change)], when_ms // DAY_MS)


def reaction_of(connection: Connection, photo_id: int, user_id: int) -> str | None:
    """How somebody reacted to a photo."""
    return connection.execute(
        select(likes.c.reaction).where(likes.c.photo_id == photo_id, likes.c.user_id == user_id)
    ).scalar_one_or_none()


def reactions_to(connection: Connection, photo_id: int) -> dict[str, int]:
    """How many reacted how."""
    rows = connection.execute(
        select(likes.c.reaction, func.count()).where(likes.c.photo_id == photo_id).group_by(likes.c.reaction)
    )
    return {str(reaction): int(count) for reaction, count in rows}
