"""Pages that show many photos: feed, explore, top, search, and the map of one's own."""

from __future__ import annotations

from aiohttp import web

from frontend.database.paging import Page
from frontend.database.photos import Photo
from frontend.pages.cards import cards_of, picture_origins
from frontend.pages.common import FEED, TILES, errors_of, more_url, needed_user, position, show
from frontend.pages.rendering import Look
from frontend.pages.world import MAX_PLACED, MAX_POINTS, clusters_of, land_path
from frontend.services.browsing import Browsing
from frontend.services.limits import SEARCH
from frontend.web.keys import SITE
from frontend.web.who import address_of, viewer_of
from haystack.errors import InvalidRequest

PERIOD = "week"
"""Of top photos, when none is asked for."""


async def home(request: web.Request) -> web.Response:
    """The feed; for who is not logged in, everybody's photos."""
    viewer = await viewer_of(request)
    if viewer is None:
        return await _explore(request, landing=True)
    scope = f"page feed {viewer.id}"
    page = await request.app[SITE].lists.feed(viewer, position(request, scope), FEED)
    values = {
        "cards": await cards_of(request, viewer, page.items),
        "more_url": more_url(request, scope, page),
        "following": viewer.following_count,
    }
    return await show(request, Look("feed.html", values, await picture_origins(request)))


async def explore(request: web.Request) -> web.Response:
    """Everybody's photos, newest first."""
    return await _explore(request, landing=False)


async def _explore(request: web.Request, *, landing: bool) -> web.Response:
    viewer = await viewer_of(request)
    page = await request.app[SITE].lists.explore(position(request, "page explore"), TILES)
    values = {
        "cards": await cards_of(request, viewer, page.items),
        "more_url": more_url(request, "page explore", page),
        "landing": landing and "after" not in request.query,
    }
    return await show(request, Look("explore.html", values, await picture_origins(request)))


async def top(request: web.Request) -> web.Response:
    """The best photos of a period, of one user or of all."""
    viewer = await viewer_of(request)
    period, owner = request.query.get("period", PERIOD), request.query.get("user") or None
    photos = await request.app[SITE].lists.top(viewer, owner, period, TILES)
    values = {"cards": await cards_of(request, viewer, photos), "period": period, "owner": owner}
    return await show(request, Look("top.html", values, await picture_origins(request)))


async def search(request: web.Request) -> web.Response:
    """What is found for a query."""
    viewer = await viewer_of(request)
    site = request.app[SITE]
    asked = request.query.get("q", "").strip()
    scope = f"page search {asked}"
    page: Page[Photo] = Page((), None)
    spelt: tuple[str, ...] | None = None
    errors: dict[str, str] = {}
    if asked:
        after = position(request, scope)
        site.limits.take(SEARCH, str(viewer.id) if viewer else address_of(request))
        try:
            found = await site.lists.search(viewer, asked, after, TILES)
            page, spelt = found.page, found.spelt
        except InvalidRequest as error:
            errors = errors_of(error, ())
    values = {
        "asked": asked,
        "cards": await cards_of(request, viewer, page.items),
        "spelt": " ".join(spelt) if spelt else None,
        "more_url": more_url(request, scope, page),
        "errors": errors,
    }
    look = Look("search.html", values, await picture_origins(request), status=422 if errors else 200)
    return await show(request, look)


async def world_map(request: web.Request) -> web.Response:
    """Where one's own photos were taken."""
    user = await needed_user(request)
    browsing = Browsing(request.app[SITE].database)
    spots = await browsing.spots(user, MAX_PLACED)
    clusters = clusters_of(spots)
    newest = await browsing.own_photos(user, [spot.photo_id for spot in spots[:TILES]])
    values = {
        "land": land_path(),
        "clusters": clusters,
        "titles": await browsing.own_titles(user, [one.newest for one in clusters]),
        "shown": sum(one.count for one in clusters),
        "bounded": len(spots) == MAX_PLACED or len(clusters) == MAX_POINTS,
        "cards": await cards_of(request, user, newest),
    }
    return await show(request, Look("map.html", values, await picture_origins(request)))
