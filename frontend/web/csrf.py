"""Changes that a browser asks for by its cookie must come from our own pages.

Browsers say where a request comes from: ``Sec-Fetch-Site``, and ``Origin`` with everything that changes something. Who
sends neither (an old browser, a program with a cookie) needs the token that our forms have.
"""

from __future__ import annotations

import hashlib
import hmac

from aiohttp import web

from frontend.services.errors import Forbidden
from frontend.web.keys import SITE
from frontend.web.who import own_origin, session_token

HEADER = "X-CSRF-Token"
_PURPOSE = b"haystack csrf key 1"


def csrf_token(request: web.Request) -> str:
    """The token for forms of the session of this request; of nobody when there is none."""
    return csrf_token_of(request.app[SITE].secret, session_token(request) or "")


def csrf_token_of(secret: bytes, session: str) -> str:
    """The token for forms of a session."""
    key = hmac.digest(secret, _PURPOSE, hashlib.sha256)
    return hmac.digest(key, session.encode("utf-8", "replace"), hashlib.sha256).hex()


async def check_csrf(request: web.Request, form_token: str | None = None) -> None:
    """Return when a change was asked for by our own pages.

    Parameters
    ----------
    form_token: of the form's hidden field, if it was a form.

    Raises
    ------
    Forbidden: it comes from another site, or nobody says where from.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None and site not in ("same-origin", "none"):
        raise Forbidden("this request was made by another site")
    if origin is not None:
        if origin != own_origin(request):
            raise Forbidden("this request was made by a page of another origin")
        return
    if site is not None:
        return
    given = form_token or request.headers.get(HEADER)
    if given is None or not hmac.compare_digest(given.encode("utf-8", "replace"), csrf_token(request).encode()):
        raise Forbidden(f"send Origin, or the token of our forms in {HEADER}; programs use an API token")
