"""Accounts: signing up, logging in and out, sessions, API tokens, one's own profile."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Callable

from sqlalchemy import Connection

from frontend.database import people, sessions
from frontend.database.engine import Database
from frontend.database.people import User
from frontend.database.sessions import ApiToken
from frontend.services.errors import Forbidden, Invalid, NotFound, NotLoggedIn
from frontend.services.limits import LOG_IN_ACCOUNT, LOG_IN_ADDRESS, SIGN_UP, Limits
from frontend.services.names import (
    MAX_BIO,
    MAX_EMAIL,
    MAX_NAME,
    MAX_PASSWORD,
    check_password,
    clean_email,
    clean_line,
    clean_text,
    clean_username,
)
from frontend.services.passwords import Passwords

TOKEN_BYTES = 32
TOKEN_PREFIX = "hst_"  # noqa: S105 - no password
"""Of API tokens, so that scanners for secrets know them."""

MAX_TOKEN_TEXT = 128


class Accounts:
    """What concerns accounts.

    Parameters
    ----------
    session_seconds: how long somebody stays logged in.
    open_to_all: whether anybody may sign up.
    now_ms: milliseconds since 1970.
    """

    def __init__(
        self,
        database: Database,
        passwords: Passwords,
        limits: Limits,
        *,
        session_seconds: float,
        open_to_all: bool,
        now_ms: Callable[[], int],
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._limits = limits
        self.session_seconds = session_seconds
        self.open_to_all = open_to_all
        self._now_ms = now_ms

    async def sign_up(self, *, username: str, name: str, email: str | None, password: str, address: str) -> User:
        """A new user.

        Parameters
        ----------
        address: of the client, for the limit.

        Raises
        ------
        Invalid: a value is not as it has to be.
        NameTaken: user name or email address are somebody's already.
        Forbidden: nobody may sign up here. TooMany, Busy.
        """
        if not self.open_to_all:
            raise Forbidden("nobody can sign up here; ask who runs this service for an account")
        username, email = clean_username(username), clean_email(email)
        shown = clean_line(name, "name", MAX_NAME) or username
        check_password(password)
        self._limits.take(SIGN_UP, address)
        kept = await self._passwords.hash(password)
        return await self._database.write(_add_user, username, shown, email, kept, self._now_ms())

    async def log_in(self, login: str, password: str, address: str) -> tuple[User, str]:
        """The user, and the token of a new session. As :meth:`check`."""
        user = await self.check(login, password, address)
        return user, await self.begin_session(user)

    async def check(self, login: str, password: str, address: str) -> User:
        """The user whose login and password these are.

        Parameters
        ----------
        login: user name or email address.
        address: of the client, for the limit.

        Raises
        ------
        NotLoggedIn: wrong password, or no such account: the same answer after the same time. TooMany, Busy.
        """
        login = clean_line(login, "login", MAX_EMAIL)
        self._limits.take(LOG_IN_ADDRESS, address)
        self._limits.take(LOG_IN_ACCOUNT, hashlib.sha256(login.strip().lower().encode()).hexdigest())
        user = await self._database.read(people.by_login, login)
        kept = user.password_hash if user is not None else None
        right = await self._passwords.matches(kept, password[: MAX_PASSWORD + 1])
        if user is None or kept is None or not right:
            raise NotLoggedIn("user name or password is wrong")
        if self._passwords.outdated(kept):
            anew = await self._passwords.hash(password)
            await self._database.write(_change_profile, user.id, {"password_hash": anew})
        return user

    async def begin_session(self, user: User) -> str:
        """The token of a new session, for the browser's cookie; only its hash is kept."""
        token = _new_token()
        now_ms = self._now_ms()
        expires_ms = now_ms + int(self.session_seconds * 1000)
        await self._database.write(sessions.begin_session, user.id, _hash(token), now_ms, expires_ms)
        return token

    async def log_out(self, token: str) -> None:
        """End a session; nothing when there is none."""
        await self._database.write(sessions.end_session, _hash(token))

    async def session_user(self, token: str) -> User | None:
        """Whose session this is; None when there is none, or it has ended."""
        if len(token) > MAX_TOKEN_TEXT:
            return None
        return await self._database.read(_session_user, _hash(token), self._now_ms())

    async def token_user(self, token: str) -> User | None:
        """Whose API token this is."""
        if len(token) > MAX_TOKEN_TEXT or not token.startswith(TOKEN_PREFIX):
            return None
        return await self._database.read(_token_user, _hash(token))

    async def add_token(self, user: User, name: str) -> tuple[ApiToken, str]:
        """A new API token, and its text, which nobody can ask for again. Raises Invalid."""
        text = TOKEN_PREFIX + _new_token()
        name = clean_line(name, "name", MAX_NAME)
        if not name:
            raise Invalid("name", "a token needs a name that tells what it is for")
        return await self._database.write(sessions.add_token, user.id, name, _hash(text), self._now_ms()), text

    async def tokens(self, user: User) -> list[ApiToken]:
        return await self._database.read(sessions.tokens_of, user.id)

    async def remove_token(self, user: User, token_id: int) -> None:
        """Raises NotFound when the user has no such token."""
        if not await self._database.write(sessions.remove_token, user.id, token_id):
            raise NotFound("there is no such token")

    async def change_profile(
        self, user: User, *, name: str | None = None, email: str | None = None, bio: str | None = None
    ) -> User:
        """Change what is given; an empty email address removes it. Raises Invalid, NameTaken."""
        values: dict[str, str | None] = {}
        if name is not None:
            values["name"] = clean_line(name, "name", MAX_NAME) or user.username
        if email is not None:
            values["email"] = clean_email(email)
        if bio is not None:
            values["bio"] = clean_text(bio, "bio", MAX_BIO)
        return await self._database.write(_change_profile, user.id, values)

    async def change_password(self, user: User, old: str, new: str) -> None:
        """Set another password; ends all sessions. Raises Invalid, NotLoggedIn, TooMany, Busy."""
        check_password(new)
        self._limits.take(LOG_IN_ACCOUNT, f"#{user.id}")
        if not await self._passwords.matches(user.password_hash, old[: MAX_PASSWORD + 1]):
            raise NotLoggedIn("the present password is wrong")
        await self._set_password(user.id, new)

    async def set_password(self, username: str, new: str) -> None:
        """Set somebody's password without asking for the old one: for the operator. Raises Invalid, NotFound."""
        check_password(new)
        user = await self._database.read(people.by_username, username)
        if user is None:
            raise NotFound(f"there is no user {username}")
        await self._set_password(user.id, new)

    async def _set_password(self, user_id: int, new: str) -> None:
        await self._database.write(_set_password, user_id, await self._passwords.hash(new))


def _new_token() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(TOKEN_BYTES)).rstrip(b"=").decode("ascii")


def _hash(token: str) -> bytes:
    # 256 random bits: nothing is won by a slow hash.
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


def _add_user(
    connection: Connection, username: str, name: str, email: str | None, password_hash: str, now_ms: int
) -> User:
    return people.add_user(
        connection, username=username, name=name, email=email, password_hash=password_hash, now_ms=now_ms
    )


def _change_profile(connection: Connection, user_id: int, values: dict[str, str | None]) -> User:
    if values:
        people.change_profile(connection, user_id, **values)
    changed = people.by_id(connection, user_id)
    assert changed is not None
    return changed


def _set_password(connection: Connection, user_id: int, password_hash: str) -> None:
    people.change_profile(connection, user_id, password_hash=password_hash)
    sessions.end_sessions(connection, user_id)


def _session_user(connection: Connection, token_hash: bytes, now_ms: int) -> User | None:
    user_id = sessions.session_user(connection, token_hash, now_ms)
    return None if user_id is None else people.by_id(connection, user_id)


def _token_user(connection: Connection, token_hash: bytes) -> User | None:
    user_id = sessions.token_user(connection, token_hash)
    return None if user_id is None else people.by_id(connection, user_id)
