"""Users: signing up, finding, changing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from frontend.database.tables import users
from haystack.errors import HaystackError


class NameTaken(HaystackError):
    """Somebody has this user name, or this email address, already."""

    http_status = 409


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who has an account.

    Parameters
    ----------
    email, password_hash: None of somebody who was rebuilt out of photos and has not set a password yet.
    """

    id: int
    username: str
    name: str
    email: str | None
    password_hash: str | None
    bio: str
    created_ms: int
    photo_count: int
    follower_count: int
    following_count: int


USER_COLUMNS = (
    users.c.id,
    users.c.username,
    users.c.name,
    users.c.email,
    users.c.password_hash,
    users.c.bio,
    users.c.created_ms,
    users.c.photo_count,
    users.c.follower_count,
    users.c.following_count,
)


def user_of(row: Sequence[Any]) -> User:
    """The user of a row of ``USER_COLUMNS``."""
    return User(*row)


def add_user(
    connection: Connection, *, username: str, name: str, email: str | None, password_hash: str | None, now_ms: int
) -> User:
    """A new user.

    Raises
    ------
    NameTaken: user name or email address are somebody's already.
    """
    try:
        with connection.begin_nested():
            result = connection.execute(
                insert(users).values(
                    username=username, name=name, email=email, password_hash=password_hash, created_ms=now_ms
                )
            )
    except IntegrityError:
        if by_username(connection, username) is not None:
            raise NameTaken(f"the user name {username} is taken; choose another one") from None
        raise NameTaken("there is an account with this email address; log in instead") from None
    assert result.inserted_primary_key is not None
    found = by_id(connection, int(result.inserted_primary_key[0]))
    assert found is not None
    return found


def by_id(connection: Connection, user_id: int) -> User | None:
    row = connection.execute(select(*USER_COLUMNS).where(users.c.id == user_id)).one_or_none()
    return None if row is None else user_of(row)


def by_ids(connection: Connection, ids: Iterable[int]) -> dict[int, User]:
    """Those of the users who exist."""
    rows = connection.execute(select(*USER_COLUMNS).where(users.c.id.in_(set(ids))))
    return {user.id: user for user in map(user_of, rows)}


def by_username(connection: Connection, username: str) -> User | None:
    row = connection.execute(select(*USER_COLUMNS).where(users.c.username == username.lower())).one_or_none()
    return None if row is None else user_of(row)


def by_login(connection: Connection, name_or_email: str) -> User | None:
    """Whose user name or email address this is."""
    wanted = name_or_email.strip().lower()
    row = connection.execute(
        select(*USER_COLUMNS).where(or_(users.c.username == wanted, users.c.email == wanted))
    ).first()
    return None if row is None else user_of(row)


def change_profile(connection: Connection, user_id: int, **values: str | None) -> None:
    """Set ``name``, ``email``, ``bio`` or ``password_hash``. Raises NameTaken when the email address is somebody's."""
    try:
        with connection.begin_nested():
            connection.execute(update(users).where(users.c.id == user_id).values(**values))
    except IntegrityError:
        raise NameTaken("there is another account with this email address") from None
