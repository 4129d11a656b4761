"""Profiles, and who follows whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection

from frontend.database import follows, people
from frontend.database.engine import Database
from frontend.database.paging import Page, Position
from frontend.database.people import User
from frontend.services.errors import NotFound
from frontend.services.limits import WRITE, Limits


@dataclass(frozen=True, slots=True)
class Profile:
    """A user as somebody sees him.

    Parameters
    ----------
    following: whether the one who asks follows him; follows_you: the other way round.
    """

    user: User
    following: bool
    follows_you: bool


class Follows:
    """What concerns following. ``now_ms``: milliseconds since 1970."""

    def __init__(self, database: Database, limits: Limits, *, now_ms: Callable[[], int]) -> None:
        self._database = database
        self._limits = limits
        self._now_ms = now_ms

    async def profile(self, viewer: User | None, username: str) -> Profile:
        """Raises NotFound."""
        return await self._database.read(_profile, None if viewer is None else viewer.id, username)

    async def follow(self, user: User, username: str) -> Profile:
        """Follow somebody; again does nothing. Raises NotFound, InvalidRequest for oneself and too many, TooMany."""
        self._limits.take(WRITE, str(user.id))
        return await self._database.write(_follow, user.id, username, self._now_ms())

    async def unfollow(self, user: User, username: str) -> Profile:
        """Follow somebody no more. Raises NotFound, TooMany."""
        self._limits.take(WRITE, str(user.id))
        return await self._database.write(_unfollow, user.id, username)

    async def followers(self, username: str, after: Position | None, limit: int) -> Page[User]:
        """Who follows a user, latest first. Raises NotFound."""
        return await self._database.read(_followers, username, after, limit)

    async def following(self, username: str, after: Position | None, limit: int) -> Page[User]:
        """Whom a user follows, latest first. Raises NotFound."""
        return await self._database.read(_following, username, after, limit)


def user_named(connection: Connection, username: str) -> User:
    """The user of this name. Raises NotFound."""
    user = people.by_username(connection, username)
    if user is None:
        raise NotFound("there is no such user")
    return user


def _profile(connection: Connection, viewer_id: int | None, username: str) -> Profile:
    user = user_named(connection, username)
    if viewer_id is None or viewer_id == user.id:
        return Profile(user, False, False)
    return Profile(
        user,
        follows.is_following(connection, viewer_id, user.id),
        follows.is_following(connection, user.id, viewer_id),
    )


def _follow(connection: Connection, user_id: int, username: str, now_ms: int) -> Profile:
    follows.follow(connection, user_id, user_named(connection, username).id, now_ms)
    return _profile(connection, user_id, username)


def _unfollow(connection: Connection, user_id: int, username: str) -> Profile:
    follows.unfollow(connection, user_id, user_named(connection, username).id)
    return _profile(connection, user_id, username)


def _followers(connection: Connection, username: str, after: Position | None, limit: int) -> Page[User]:
    return follows.followers(connection, user_named(connection, username).id, after, limit)


def _following(connection: Connection, username: str, after: Position | None, limit: int) -> Page[User]:
    return follows.following(connection, user_named(connection, username).id, after, limit)
