"""Pages of people: profile, followers, following."""

from __future__ import annotations

from aiohttp import web

from frontend.database.paging import Page
from frontend.database.people import User
from frontend.pages.cards import cards_of, picture_origins
from frontend.pages.common import PEOPLE, TILES, go, more_url, needed_user, position, read_form, show
from frontend.pages.rendering import Look, user_url
from frontend.web.keys import SITE
from frontend.web.who import viewer_of


async def profile(request: web.Request) -> web.Response:
    """Somebody and his photos."""
    viewer = await viewer_of(request)
    site = request.app[SITE]
    found = await site.follows.profile(viewer, request.match_info["username"])
    scope = f"page user {found.user.id}"
    page = await site.lists.of_user(viewer, found.user.username, position(request, scope), TILES)
    values = {
        "profile": found,
        "cards": await cards_of(request, viewer, page.items),
        "more_url": more_url(request, scope, page),
    }
    return await show(request, Look("profile.html", values, await picture_origins(request)))


async def followers(request: web.Request) -> web.Response:
    """Who follows somebody."""
    user = await _user(request)
    scope = f"page followers {user.id}"
    page = await request.app[SITE].follows.followers(user.username, position(request, scope), PEOPLE)
    return await _people(request, user, "Followers of", scope, page)


async def following(request: web.Request) -> web.Response:
    """Whom somebody follows."""
    user = await _user(request)
    scope = f"page following {user.id}"
    page = await request.app[SITE].follows.following(user.username, position(request, scope), PEOPLE)
    return await _people(request, user, "Followed by", scope, page)


async def follow(request: web.Request) -> web.Response:
    """Follow somebody."""
    user = await needed_user(request)
    await read_form(request)
    found = await request.app[SITE].follows.follow(user, request.match_info["username"])
    return go(user_url(found.user.username))


async def unfollow(request: web.Request) -> web.Response:
    """Follow somebody no more."""
    user = await needed_user(request)
    await read_form(request)
    found = await request.app[SITE].follows.unfollow(user, request.match_info["username"])
    return go(user_url(found.user.username))


async def _user(request: web.Request) -> User:
    return (await request.app[SITE].follows.profile(None, request.match_info["username"])).user


async def _people(request: web.Request, user: User, heading: str, scope: str, page: Page[User]) -> web.Response:
    values = {"user": user, "heading": heading, "people": page.items, "more_url": more_url(request, scope, page)}
    return await show(request, Look("people.html", values))
