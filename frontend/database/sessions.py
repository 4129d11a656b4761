"""Sessions of browsers and tokens of programs. What is secret is kept as its SHA-256 alone."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, select

from frontend.database.tables import api_tokens, sessions
from haystack.errors import InvalidRequest

MAX_TOKENS = 20
"""API tokens of one user."""


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A token of a program; what it is itself is known to its owner alone."""

    id: int
    name: str
    created_ms: int


def begin_session(connection: Connection, user_id: int, token_hash: bytes, now_ms: int, expires_ms: int) -> None:
    """Remember a session; those that have ended are forgotten."""
    connection.execute(delete(sessions).where(sessions.c.expires_ms <= now_ms))
    connection.execute(
        insert(sessions).values(token_hash=token_hash, user_id=user_id, created_ms=now_ms, expires_ms=expires_ms)
    )


def session_user(connection: Connection, token_hash: bytes, now_ms: int) -> int | None:
    """Whose session this is."""
    found = connection.execute(
        select(sessions.c.user_id).where(sessions.c.token_hash == token_hash, sessions.c.expires_ms > now_ms)
    ).scalar_one_or_none()
    return None if found is None else int(found)


def end_session(connection: Connection, token_hash: bytes) -> None:
    connection.execute(delete(sessions).where(sessions.c.token_hash == token_hash))


def end_sessions(connection: Connection, user_id: int) -> None:
    """End all sessions of a user, as after a change of the password."""
    connection.execute(delete(sessions).where(sessions.c.user_id == user_id))


def add_token(connection: Connection, user_id: int, name: str, token_hash: bytes, now_ms: int) -> ApiToken:
    """Remember an API token. Raises InvalidRequest when the user has too many."""
    count = connection.execute(
        select(func.count()).select_from(api_tokens).where(api_tokens.c.user_id == user_id)
    ).scalar_one()
    if count >= MAX_TOKENS:
        raise InvalidRequest(f"there are {MAX_TOKENS} tokens already; delete one first")
    result = connection.execute(
        insert(api_tokens).values(user_id=user_id, name=name, token_hash=token_hash, created_ms=now_ms)
    )
    assert result.inserted_primary_key is not None
    return ApiToken(int(result.inserted_primary_key[0]), name, now_ms)


def token_user(connection: Connection, token_hash: bytes) -> int | None:
    """Whose API token this is."""
    found = connection.execute(
        select(api_tokens.c.user_id).where(api_tokens.c.token_hash == token_hash)
    ).scalar_one_or_none()
    return None if found is None else int(found)


def tokens_of(connection: Connection, user_id: int) -> list[ApiToken]:
    rows = connection.execute(
        select(api_tokens.c.id, api_tokens.c.name, api_tokens.c.created_ms)
        .where(api_tokens.c.user_id == user_id)
        .order_by(api_tokens.c.id)
    )
    return [ApiToken(*row) for row in rows]


def remove_token(connection: Connection, user_id: int, token_id: int) -> bool:
    """Whether the user had that token."""
    result = connection.execute(delete(api_tokens).where(api_tokens.c.user_id == user_id, api_tokens.c.id == token_id))
    return result.rowcount > 0
