"""Who follows whom."""

from __future__ import annotations

from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from frontend.database.paging import Page, Position, newest_first, page_of
from frontend.database.people import USER_COLUMNS, User, user_of
from frontend.database.tables import follows, users
from haystack.errors import InvalidRequest

MAX_FOLLOWING = 7_500
"""People that one user may follow: a feed is made of all of them at each look."""


def follow(connection: Connection, follower_id: int, followee_id: int, now_ms: int) -> bool:
    """Whether that is new. Raises InvalidRequest for oneself, and for more than ``MAX_FOLLOWING``."""
    if follower_id == followee_id:
        raise InvalidRequest("nobody can follow himself")
    count = connection.execute(
        select(users.c.following_count).where(users.c.id == follower_id).with_for_update()
    ).scalar_one()
    if count >= MAX_FOLLOWING:
        raise InvalidRequest(f"at most {MAX_FOLLOWING:,} people can be followed; unfollow somebody first")
    try:
        with connection.begin_nested():
            connection.execute(
                insert(follows).values(follower_id=follower_id, followee_id=followee_id, created_ms=now_ms)
            )
    except IntegrityError:
        return False
    _count(connection, follower_id, followee_id, 1)
    return True


def unfollow(connection: Connection, follower_id: int, followee_id: int) -> bool:
    """Whether there was something to end."""
    result = connection.execute(
        delete(follows).where(follows.c.follower_id == follower_id, follows.c.followee_id == followee_id)
    )
    if result.rowcount == 0:
        return False
    _count(connection, follower_id, followee_id, -1)
    return True


def _count(connection: Connection, follower_id: int, followee_id: int, change: int) -> None:
    # In the order of ids, so that two who follow each other at the same moment do not wait for each other for ever.
    changes = {
        follower_id: {"following_count": users.c.following_count + change},
        followee_id: {"follower_count": users.c.follower_count + change},
    }
    for user_id in sorted(changes):
        connection.execute(update(users).where(users.c.id == user_id).values(**changes[user_id]))


def is_following(connection: Connection, follower_id: int, followee_id: int) -> bool:
    return (
        connection.execute(
            select(func.count())
            .select_from(follows)
            .where(follows.c.follower_id == follower_id, follows.c.followee_id == followee_id)
        ).scalar_one()
        > 0
    )


def followers(connection: Connection, user_id: int, after: Position | None, limit: int) -> Page[User]:
    """Who follows a user, latest first."""
    query = (
        select(*USER_COLUMNS, follows.c.created_ms)
        .join_from(follows, users, users.c.id == follows.c.follower_id)
        .where(follows.c.followee_id == user_id)
    )
    rows = connection.execute(newest_first(query, follows.c.created_ms, follows.c.follower_id, after, limit)).all()
    return page_of(rows, limit, lambda row: user_of(row[:-1]), lambda row: Position(row[-1], row.id))


def following(connection: Connection, user_id: int, after: Position | None, limit: int) -> Page[User]:
    """Whom a user follows, latest first."""
    query = (
        select(*USER_COLUMNS, follows.c.created_ms)
        .join_from(follows, users, users.c.id == follows.c.followee_id)
        .where(follows.c.follower_id == user_id)
    )
    rows = connection.execute(newest_first(query, follows.c.created_ms, follows.c.followee_id, after, limit)).all()
    return page_of(rows, limit, lambda row: user_of(row[:-1]), lambda row: Position(row[-1], row.id))
