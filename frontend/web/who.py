"""Who asks: a browser with a session's cookie, or a program with an API token; and from which address."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from aiohttp import web
from yarl import URL

from frontend.database.people import User
from frontend.services.errors import NotLoggedIn
from frontend.web.keys import SITE

COOKIE = "haystack_session"
SECURE_COOKIE = "__Host-haystack_session"
"""Under https: browsers take it from this host alone, and only over https."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks.

    Parameters
    ----------
    user: None for nobody.
    by_cookie: the browser said so by itself, so another site may have made it.
    """

    user: User | None
    by_cookie: bool


_ASKED = web.RequestKey("asked", Asked)


async def asked_by(request: web.Request) -> Asked:
    """Who asks. Raises NotLoggedIn when a token is given that is none."""
    known: Asked | None = request.get(_ASKED)
    if known is not None:
        return known
    asked = await _find(request)
    request[_ASKED] = asked
    return asked


async def _find(request: web.Request) -> Asked:
    accounts = request.app[SITE].accounts
    header = request.headers.get("Authorization")
    if header is not None:
        kind, _, token = header.partition(" ")
        user = await accounts.token_user(token.strip()) if kind.lower() == "bearer" else None
        if user is None:
            raise NotLoggedIn("this is no API token; make one with POST /api/v1/tokens")
        return Asked(user, by_cookie=False)
    session = session_token(request)
    return Asked(None if session is None else await accounts.session_user(session), by_cookie=session is not None)


async def viewer_of(request: web.Request) -> User | None:
    """Who asks, or None for somebody who is not logged in."""
    return (await asked_by(request)).user


async def user_of(request: web.Request) -> User:
    """Who asks. Raises NotLoggedIn for nobody."""
    user = await viewer_of(request)
    if user is None:
        raise NotLoggedIn("log in first")
    return user


def session_token(request: web.Request) -> str | None:
    """The token in the session's cookie."""
    return request.cookies.get(_cookie(request)) or None


def set_session(request: web.Request, response: web.StreamResponse, token: str) -> None:
    """Give a browser the cookie of its session."""
    response.set_cookie(
        _cookie(request),
        token,
        max_age=int(request.app[SITE].accounts.session_seconds),
        path="/",
        secure=is_https(request),
        httponly=True,
        samesite="Lax",
    )


def clear_session(request: web.Request, response: web.StreamResponse) -> None:
    """Take it away again."""
    response.del_cookie(_cookie(request), path="/", secure=is_https(request), httponly=True, samesite="Lax")


def _cookie(request: web.Request) -> str:
    return SECURE_COOKIE if is_https(request) else COOKIE


def is_https(request: web.Request) -> bool:
    """Whether browsers reach us over https, themselves or by way of a proxy."""
    return own_origin(request).startswith("https://")


def own_origin(request: web.Request) -> str:
    """The origin that browsers know us under: of the settings, else as the request names it."""
    configured = request.app[SITE].settings.public_url
    return configured.rstrip("/") if configured else str(URL.build(scheme=request.scheme, authority=request.host))


def address_of(request: web.Request) -> str:
    """The client's address, past as many proxies as the settings say."""
    proxies = request.app[SITE].settings.proxies
    if proxies:
        hops = [hop.strip() for line in request.headers.getall("X-Forwarded-For", []) for hop in line.split(",")]
        if len(hops) >= proxies:
            return network_of(hops[-proxies])
    return network_of(request.remote or "")


def network_of(address: str) -> str:
    """What limits are counted for: an IPv4 address, or the network of an IPv6 address, all of which one client has."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)
