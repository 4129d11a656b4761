"""The page that tells a person what went wrong."""

from __future__ import annotations

from aiohttp import web

from frontend.pages.common import RENDERER
from frontend.pages.rendering import Look
from frontend.web.csrf import csrf_token
from frontend.web.who import viewer_of
from haystack.errors import HaystackError

_HEADINGS = {
    400: "That cannot be done",
    401: "Log in first",
    403: "That is not allowed",
    404: "There is no such page",
    405: "That cannot be done here",
    409: "Somebody was faster",
    413: "That is too large",
    422: "Something is not right",
    429: "A little slower, please",
    503: "Not now",
}
_OTHERS = "Something went wrong"


async def error_page(request: web.Request, status: int, message: str) -> web.StreamResponse:
    """The page for an error; who looks is shown as far as that can still be found out."""
    try:
        viewer = await viewer_of(request)
    except HaystackError:
        viewer = None  # the database may be what went wrong
    sentence = message[:1].upper() + message[1:]
    if sentence and sentence[-1] not in ".!?":
        sentence += "."
    heading = _HEADINGS.get(status, _OTHERS)
    if status == 404 and message == "Not Found":
        sentence = "The address may be wrong, or what was here is gone."
    elif status == 404:
        heading = "Not found"
    look = Look("error.html", {"status": status, "heading": heading, "message": sentence}, status=status)
    return request.app[RENDERER].answer(request, look, viewer, csrf_token(request))
