"""Renders templates into answers, with what every page has: who looks, the policy, the token of forms."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from aiohttp import web

from frontend.database.people import User
from frontend.pages import formatting
from frontend.pages.assets import Assets
from frontend.pages.policy import content_security_policy
from frontend.services.names import REACTIONS, photo_id_text
from frontend.web.csrf import csrf_token
from frontend.web.keys import SITE
from frontend.web.who import viewer_of

FOLDER = Path(__file__).parent / "templates"
PART_HEADER = "X-Part"
"""Sent by the script with a form of which it will show one part alone."""


@dataclass(frozen=True, slots=True)
class Origins:
    """Other origins that a page may use: pictures from, uploads to."""

    pictures: tuple[str, ...] = ()
    uploads: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Look:
    """One page to show.

    Parameters
    ----------
    template: its file.
    values: what stands in it.
    origins: what it loads from elsewhere.
    status: of the answer.
    secret: not even the browser may keep it.
    """

    template: str
    values: dict[str, Any] = field(default_factory=dict)
    origins: Origins = Origins()
    status: int = 200
    secret: bool = False


class Renderer:
    """Makes HTML answers. ``assets``: the files that pages name."""

    def __init__(self, assets: Assets) -> None:
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(FOLDER),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.globals.update(asset=assets.url, photo_url=photo_url, user_url=user_url)
        self._environment.filters.update(
            day=formatting.day,
            moment=formatting.moment,
            machine_time=formatting.machine_time,
            count=formatting.count,
            size=formatting.size,
            limit=formatting.limit,
            hue=formatting.hue_class,
            photo_id=photo_id_text,
        )
        self._environment.filters["ago"] = lambda time_ms: formatting.ago(time_ms, _now_ms())
        self._environment.globals.update(counted=formatting.counted, place=formatting.place, reaction_names=REACTIONS)

    async def page(self, request: web.Request, look: Look) -> web.Response:
        """The page as an answer."""
        viewer = await viewer_of(request)
        return self.answer(request, look, viewer, csrf_token(request))

    def answer(self, request: web.Request, look: Look, viewer: User | None, token: str) -> web.Response:
        """The page for a viewer who is known."""
        shared = {
            "viewer": viewer,
            "csrf": token,
            "here": request.path_qs,
            "path": request.path,
            "open_to_all": request.app[SITE].accounts.open_to_all,
        }
        values = {**shared, **look.values}
        text = self._environment.get_template(look.template).render(values)
        headers = {
            "Content-Security-Policy": content_security_policy(look.origins.pictures, look.origins.uploads),
            # Going back shows a page as it was, at the place in it where one was.
            "Cache-Control": "no-store" if look.secret else "private, no-cache",
            "Vary": "Cookie",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Permissions-Policy": "geolocation=(), camera=(), microphone=()",
        }
        response = web.Response(
            text=text, status=look.status, content_type="text/html", charset="utf-8", headers=headers
        )
        if viewer is None:
            # Not with somebody's token beside words of others: the length of what is compressed would tell (BREACH).
            response.enable_compression()
        return response


def photo_url(photo_id: int) -> str:
    """Where a photo's page is."""
    return f"/photos/{photo_id_text(photo_id)}"


def user_url(username: str) -> str:
    """Where a user's page is."""
    return f"/@{quote(username)}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
