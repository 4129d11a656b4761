"""Pages of one's account: signing up, logging in and out, settings."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from frontend.database.people import NameTaken
from frontend.pages.common import errors_of, go, needed_user, own_path, read_form, show
from frontend.pages.rendering import Look
from frontend.services.errors import Invalid, NotLoggedIn
from frontend.web.keys import SITE
from frontend.web.who import address_of, clear_session, session_token, set_session, viewer_of
from haystack.errors import HaystackError, InvalidRequest

_SIGN_UP_FIELDS = ("username", "name", "email", "password")
_PROFILE_FIELDS = ("name", "email", "bio")
_NOTICES = {"profile": "Your profile is saved.", "token": "The token is revoked."}
_PASSWORD_CHANGED = "Your password is changed. Log in with the new one."  # noqa: S105 - words, not a password


async def sign_up_page(request: web.Request) -> web.Response:
    """The form to sign up."""
    if await viewer_of(request) is not None:
        return go("/")
    return await _sign_up_form(request, dict.fromkeys(_SIGN_UP_FIELDS, ""), request.query.get("next", ""), {}, 200)


async def sign_up(request: web.Request) -> web.Response:
    """Make an account, and log in."""
    form = await read_form(request)
    accounts = request.app[SITE].accounts
    values = {name: form.text(name) for name in _SIGN_UP_FIELDS}
    try:
        user = await accounts.sign_up(**values, address=address_of(request))
    except (Invalid, NameTaken) as error:
        shown = errors_of(error, _SIGN_UP_FIELDS)
        return await _sign_up_form(request, values, form.text("next"), shown, error.http_status)
    response = go(own_path(form.text("next")))
    set_session(request, response, await accounts.begin_session(user))
    return response


async def _sign_up_form(
    request: web.Request, values: dict[str, str], back: str, errors: dict[str, str], status: int
) -> web.Response:
    return await show(request, Look("sign_up.html", {"values": values, "next": back, "errors": errors}, status=status))


async def log_in_page(request: web.Request) -> web.Response:
    """The form to log in."""
    if await viewer_of(request) is not None:
        return go(own_path(request.query.get("next", "")))
    notice = _PASSWORD_CHANGED if request.query.get("changed") == "password" else ""
    return await _log_in_form(request, "", request.query.get("next", ""), {}, 200, notice)


async def log_in(request: web.Request) -> web.Response:
    """Log in."""
    form = await read_form(request)
    login = form.text("login")
    try:
        _, token = await request.app[SITE].accounts.log_in(login, form.text("password"), address_of(request))
    except NotLoggedIn as error:
        return await _log_in_form(request, login, form.text("next"), errors_of(error, ()), error.http_status)
    response = go(own_path(form.text("next")))
    set_session(request, response, token)
    return response


async def _log_in_form(
    request: web.Request, login: str, back: str, errors: dict[str, str], status: int, notice: str = ""
) -> web.Response:
    values = {"values": {"login": login}, "next": back, "errors": errors, "notice": notice}
    return await show(request, Look("log_in.html", values, status=status))


async def log_out(request: web.Request) -> web.Response:
    """Log out, here alone."""
    await read_form(request)
    token = session_token(request)
    if token is not None:
        await request.app[SITE].accounts.log_out(token)
    response = go("/")
    clear_session(request, response)
    return response


async def settings(request: web.Request) -> web.Response:
    """Profile, password, API tokens."""
    return await _settings(request, notice=_NOTICES.get(request.query.get("saved", ""), ""))


async def save_profile(request: web.Request) -> web.Response:
    """Change one's profile."""
    user = await needed_user(request)
    form = await read_form(request)
    values = {name: form.text(name) for name in _PROFILE_FIELDS}
    try:
        await request.app[SITE].accounts.change_profile(user, **values)
    except (Invalid, NameTaken) as error:
        return await _settings(request, "profile", error, _PROFILE_FIELDS, values=values)
    return go("/settings?saved=profile")


async def save_password(request: web.Request) -> web.Response:
    """Change one's password; all sessions end."""
    user = await needed_user(request)
    form = await read_form(request)
    try:
        await request.app[SITE].accounts.change_password(user, form.text("old"), form.text("password"))
    except NotLoggedIn as error:
        return await _settings(request, "password", Invalid("old", str(error)), ("old",))
    except Invalid as error:
        return await _settings(request, "password", error, ("password",))
    response = go("/log-in?changed=password")
    clear_session(request, response)
    return response


async def add_token(request: web.Request) -> web.Response:
    """Make an API token, and show it this once."""
    user = await needed_user(request)
    form = await read_form(request)
    try:
        _, text = await request.app[SITE].accounts.add_token(user, form.text("token-name"))
    except InvalidRequest as error:
        named = Invalid("token-name", str(error)) if isinstance(error, Invalid) else error
        return await _settings(request, "token", named, ("token-name",))
    return await _settings(request, new_token=text)


async def remove_token(request: web.Request) -> web.Response:
    """Revoke an API token."""
    user = await needed_user(request)
    await read_form(request)
    await request.app[SITE].accounts.remove_token(user, int(request.match_info["token_id"]))
    return go("/settings?saved=token")


async def _settings(
    request: web.Request,
    part: str = "",
    error: HaystackError | None = None,
    fields: tuple[str, ...] = (),
    *,
    values: dict[str, str] | None = None,
    notice: str = "",
    new_token: str = "",
) -> web.Response:
    """The page of settings; ``error`` stands at the form ``part``."""
    user = await needed_user(request)
    errors: dict[str, dict[str, str]] = {"profile": {}, "password": {}, "token": {}}
    if error is not None:
        errors[part] = errors_of(error, fields)
    shown: dict[str, Any] = {
        "values": values or {"name": user.name, "email": user.email or "", "bio": user.bio},
        "tokens": await request.app[SITE].accounts.tokens(user),
        "errors": errors,
        "notice": notice,
        "new_token": new_token,
    }
    return await show(request, Look("settings.html", shown, status=error.http_status if error else 200, secret=True))
