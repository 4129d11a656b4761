"""The page of one photo: seeing, liking, commenting, changing, deleting."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from frontend.database.paging import Position
from frontend.database.people import User
from frontend.database.photos import Photo
from frontend.pages.cards import cards_of, picture_origins
from frontend.pages.common import (
    COMMENTS,
    RENDERER,
    Form,
    errors_of,
    go,
    more_url,
    needed_user,
    own_path,
    position,
    read_form,
    show,
)
from frontend.pages.rendering import PART_HEADER, Look, photo_url, user_url
from frontend.services.browsing import Browsing
from frontend.services.errors import Invalid, NotFound
from frontend.services.names import REACTIONS, parse_photo_id, split_tags
from frontend.services.photos import NO_PLACE, Changes
from frontend.services.site import now_ms
from frontend.web.csrf import csrf_token
from frontend.web.keys import SITE
from frontend.web.who import viewer_of

ALIKE_SHOWN_MS = 24 * 3_600_000
"""How long after an upload its owner is told of photos that look like it: looking for them reads all of his."""

_EDITABLE = ("title", "caption", "tags", "visibility")


def _comments_scope(photo_id: int) -> str:
    return f"page comments {photo_id}"


def _photo_id(request: web.Request) -> int:
    return parse_photo_id(request.match_info["photo_id"])


async def photo(request: web.Request) -> web.Response:
    """The photo with what people say of it."""
    return await _page(request)


async def _page(
    request: web.Request, *, errors: dict[str, str] | None = None, draft: str = "", status: int = 200
) -> web.Response:
    viewer = await viewer_of(request)
    site = request.app[SITE]
    found = await site.photos.get(viewer, _photo_id(request))
    scope = _comments_scope(found.id)
    comments = await site.talk.comments(viewer, found.id, position(request, scope), COMMENTS)
    own = viewer is not None and viewer.id == found.owner_id
    fresh = now_ms() - found.created_ms < ALIKE_SHOWN_MS
    alike = await site.photos.alike(viewer, found) if viewer is not None and own and fresh else []
    (card,) = await cards_of(request, viewer, [found])
    values: dict[str, Any] = {
        "card": card,
        "reactions": await site.talk.reactions(viewer, found.id),
        "own": own,
        "neighbours": await Browsing(site.database).neighbours(viewer, found),
        "alike": await cards_of(request, viewer, alike),
        "comments": comments.items,
        "more_url": more_url(request, scope, comments),
        "all_url": photo_url(found.id) if "after" in request.query else None,
        "errors": errors or {},
        "draft": draft,
    }
    return await show(request, Look("photo.html", values, await picture_origins(request), status))


async def like(request: web.Request) -> web.Response:
    """React to it: like it, when no other reaction is named."""
    return await _react(request, liked=True)


async def unlike(request: web.Request) -> web.Response:
    """Take the reaction back."""
    return await _react(request, liked=False)


async def _react(request: web.Request, *, liked: bool) -> web.Response:
    user = await needed_user(request)
    form = await read_form(request)
    photo_id = _photo_id(request)
    talk = request.app[SITE].talk
    if liked:
        reactions = await talk.like(user, photo_id, form.text("reaction") or REACTIONS[0])
    else:
        reactions = await talk.unlike(user, photo_id)
    back = own_path(form.text("next"))
    if PART_HEADER not in request.headers:
        return go(photo_url(photo_id) if back == "/" and not form.text("next") else back)
    found = await request.app[SITE].photos.get(user, photo_id)
    every = request.headers[PART_HEADER].startswith("react-")
    look = Look("like.html", {"photo": found, "reactions": reactions, "all": every, "here": back})
    return request.app[RENDERER].answer(request, look, user, csrf_token(request))


async def comment(request: web.Request) -> web.Response:
    """Write a comment."""
    user = await needed_user(request)
    form = await read_form(request)
    photo_id = _photo_id(request)
    try:
        written = await request.app[SITE].talk.comment(user, photo_id, form.text("text"))
    except Invalid as error:
        return await _page(request, errors=errors_of(error, ()), draft=form.text("text"), status=error.http_status)
    found = await request.app[SITE].photos.get(user, photo_id)
    query = ""
    if found.comment_count > COMMENTS:  # the first page does not show it
        before = Position(written.created_ms, written.id - 1)
        query = f"?after={request.app[SITE].cursors.write(_comments_scope(photo_id), before)}"
    return go(f"{photo_url(photo_id)}{query}#c{written.id}")


async def delete_comment(request: web.Request) -> web.Response:
    """Delete a comment."""
    user = await needed_user(request)
    await read_form(request)
    photo_id = _photo_id(request)
    await request.app[SITE].talk.remove_comment(user, photo_id, int(request.match_info["comment_id"]))
    return go(f"{photo_url(photo_id)}#comments")


async def edit(request: web.Request) -> web.Response:
    """The form to change one's photo."""
    _, found = await _own(request)
    values = {
        "title": found.title,
        "caption": found.caption,
        "tags": " ".join(found.tags),
        "visibility": found.visibility.word,
    }
    return await _edit_page(request, found, values, {}, 200)


async def save(request: web.Request) -> web.Response:
    """Change one's photo."""
    user, found = await _own(request)
    form = await read_form(request)
    values = {name: form.text(name) for name in _EDITABLE}
    try:
        await request.app[SITE].photos.change(user, found.id, _changes(form))
    except Invalid as error:
        return await _edit_page(request, found, values, errors_of(error, _EDITABLE[:3]), error.http_status)
    return go(photo_url(found.id))


async def delete(request: web.Request) -> web.Response:
    """Delete one's photo for good."""
    user = await needed_user(request)
    await read_form(request)
    await request.app[SITE].photos.delete(user, _photo_id(request))
    return go(user_url(user.username))


def _changes(form: Form) -> Changes:
    return Changes(
        title=form.text("title"),
        caption=form.text("caption"),
        tags=tuple(split_tags(form.text("tags"))),
        visibility=form.text("visibility") or None,
        place=NO_PLACE if form.ticked("remove_place") else None,
    )


async def _own(request: web.Request) -> tuple[User, Photo]:
    """The user, and the photo that is his. Raises NotFound for somebody else's."""
    user = await needed_user(request)
    found = await request.app[SITE].photos.get(user, _photo_id(request))
    if found.owner_id != user.id:
        raise NotFound("you have no such photo")
    return user, found


async def _edit_page(
    request: web.Request, found: Photo, values: dict[str, str], errors: dict[str, str], status: int
) -> web.Response:
    (card,) = await cards_of(request, None, [found])
    look = Look("edit.html", {"card": card, "values": values, "errors": errors}, await picture_origins(request), status)
    return await show(request, look)
