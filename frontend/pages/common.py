"""What the handlers of pages share: forms, who has to be logged in, links to more."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

from aiohttp import web
from multidict import MultiDictProxy

from frontend.database.paging import Page, Position
from frontend.database.people import User
from frontend.pages.rendering import Look, Renderer
from frontend.services.errors import Invalid
from frontend.web.csrf import check_csrf
from frontend.web.keys import SITE
from frontend.web.who import own_origin, viewer_of
from haystack.errors import HaystackError

RENDERER = web.AppKey("pages_renderer", Renderer)

TILES = 40
FEED = 12
COMMENTS = 50
PEOPLE = 50
MAX_NEXT = 500


class Form:
    """A form that was sent to us, from one of our own pages."""

    def __init__(self, values: MultiDictProxy[Any]) -> None:
        self._values = values

    def text(self, name: str) -> str:
        """A field's text; "" when it is not there."""
        value = self._values.get(name, "")
        return value if isinstance(value, str) else ""

    def ticked(self, name: str) -> bool:
        """Whether a box is ticked."""
        return self.text(name) == "yes"


async def read_form(request: web.Request) -> Form:
    """The form of a request. Raises Forbidden unless our own pages sent it."""
    form = Form(await request.post())
    await check_csrf(request, form_token=form.text("csrf"))
    return form


async def show(request: web.Request, look: Look) -> web.Response:
    """Answer with a page."""
    return await request.app[RENDERER].page(request, look)


def go(url: str) -> web.Response:
    """Answer that the browser shall get another page, after a form."""
    return web.Response(status=303, headers={"Location": url, "Cache-Control": "no-store"})


async def needed_user(request: web.Request) -> User:
    """Who asks. Raises a redirect to where one logs in, and comes back from."""
    user = await viewer_of(request)
    if user is None:
        back = request.path_qs if request.method == "GET" else _came_from(request)
        raise web.HTTPSeeOther(f"/log-in?next={quote(back, safe='')}")
    return user


def _came_from(request: web.Request) -> str:
    """The page whose form was sent; ``/`` when that is not known."""
    referrer, origin = request.headers.get("Referer", ""), own_origin(request)
    return own_path(referrer.removeprefix(origin)) if referrer.startswith(f"{origin}/") else "/"


def own_path(text: str) -> str:
    """A path on this site to go back to; ``/`` for whatever might lead elsewhere."""
    plain = text.isprintable() and text.isascii() and "\\" not in text and " " not in text
    if not plain or not text.startswith("/") or text.startswith("//") or len(text) > MAX_NEXT:
        return "/"
    return text


def position(request: web.Request, scope: str) -> Position | None:
    """Where the page of a list begins. Raises Invalid."""
    return request.app[SITE].cursors.read(scope, request.query.get("after"))


def more_url(request: web.Request, scope: str, page: Page[Any]) -> str | None:
    """The URL of the list's next page; None behind the last."""
    cursor = request.app[SITE].cursors.write(scope, page.next)
    if cursor is None:
        return None
    return f"{request.path}?{urlencode({**request.query, 'after': cursor})}"


def errors_of(error: HaystackError, fields: tuple[str, ...]) -> dict[str, str]:
    """What to say at which field; "" for the form as a whole."""
    message = str(error)
    if isinstance(error, Invalid) and error.field in fields:
        return {error.field: message}
    return {"": message[:1].upper() + message[1:] + "."}
