"""Calls about photos, lists of them, comments and reactions."""

from __future__ import annotations

from frontend.api import schemas
from frontend.api.spooling import spooled_form
from frontend.api.table import PREFIX, Asking, Reply
from frontend.api.views import (
    comment_view,
    moment,
    photo_page,
    photo_view,
    photo_views,
    reactions_view,
)
from frontend.services.names import photo_id_text, split_tags
from frontend.services.photos import NO_PLACE, Changes, Place
from frontend.services.pictures import choose_format
from frontend.services.uploads import Wish
from frontend.visibility import Visibility

IDEMPOTENCY_KEY = "Idempotency-Key"
_REDIRECT_SECONDS = 300


async def ask_upload(asking: Asking) -> Reply:
    sent = asking.sent(schemas.AskUpload)
    wish = Wish(
        size_bytes=sent.size,
        name=sent.name,
        title=sent.title,
        caption=sent.caption,
        tags=tuple(sent.tags),
        visibility=sent.visibility,
        keep_place=sent.keep_place,
    )
    offer = await asking.site.uploads.offer(asking.me, wish, asking.request.headers.get(IDEMPOTENCY_KEY))
    document = schemas.Upload(
        photo=photo_id_text(offer.photo_id),
        upload_url=offer.upload_url,
        tus_url=offer.tus_url,
        ticket=offer.ticket,
        expires=moment(offer.expires * 1000),
    )
    return Reply(document)


async def upload_photo(asking: Asking) -> Reply:
    uploads, user = asking.site.uploads, asking.me
    async with spooled_form(asking.request, schemas.UploadForm, uploads.max_bytes) as form:
        wish = Wish(
            size_bytes=form.size_bytes,
            name=form.name,
            title=form.fields.title,
            caption=form.fields.caption,
            tags=tuple(split_tags(form.fields.tags)),
            visibility=form.fields.visibility,
            keep_place=form.fields.keep_place == "true",
            content_hash=form.content_hash,
        )
        offer = await uploads.offer(user, wish, asking.request.headers.get(IDEMPOTENCY_KEY))
        record = await uploads.pass_on(offer, form.pieces, form.size_bytes)
    photo = await asking.site.photos.get(user, record.photo_id)
    [view] = await photo_views(asking.site, [photo])
    alike = [photo_id_text(one.id) for one in await asking.site.photos.alike(user, photo)]
    document = schemas.UploadedPhoto(**view.model_dump(), alike=alike)
    return Reply(document, headers={"Location": f"{PREFIX}/photos/{view.id}"})


async def get_photo(asking: Asking) -> Reply:
    photo = await asking.site.photos.get(asking.user, asking.photo_id)
    [pictures] = await asking.site.pictures.of([photo])
    return Reply(photo_view(pictures))


async def change_photo(asking: Asking) -> Reply:
    sent = asking.sent(schemas.ChangePhoto)
    place = None if sent.place is None else Place(sent.place.latitude, sent.place.longitude)
    if place is None and "place" in sent.model_fields_set:
        place = NO_PLACE
    changes = Changes(
        title=sent.title,
        caption=sent.caption,
        tags=None if sent.tags is None else tuple(sent.tags),
        visibility=sent.visibility,
        place=place,
    )
    photo = await asking.site.photos.change(asking.me, asking.photo_id, changes)
    [pictures] = await asking.site.pictures.of([photo])
    return Reply(photo_view(pictures))


async def delete_photo(asking: Asking) -> Reply:
    await asking.site.photos.delete(asking.me, asking.photo_id)
    return Reply()


async def get_picture(asking: Asking) -> Reply:
    query, size = asking.asked(schemas.PictureQuery), asking.request.match_info["size"]
    photo = await asking.site.photos.get(asking.user, asking.photo_id)
    [pictures] = await asking.site.pictures.of([photo])
    name = query.format or choose_format(asking.request.headers.get("Accept", ""), pictures.formats(size))
    return _redirect(pictures.url(size, name), photo.visibility)


async def download_photo(asking: Asking) -> Reply:
    photo = await asking.site.photos.get(asking.user, asking.photo_id)
    [pictures] = await asking.site.pictures.of([photo])
    own = asking.user is not None and asking.user.id == photo.owner_id
    untouched = pictures.untouched_url() if own else None
    return _redirect(untouched or pictures.url("original", download=True), Visibility.PRIVATE)


def _redirect(url: str, visibility: Visibility) -> Reply:
    public = visibility is Visibility.PUBLIC
    keep = f"public, max-age={_REDIRECT_SECONDS}" if public else "private, no-store"
    return Reply(headers={"Location": url, "Cache-Control": keep, "Vary": "Accept, Authorization, Cookie"})


async def get_feed(asking: Asking) -> Reply:
    query, scope = asking.asked(schemas.PageQuery), f"feed {asking.me.id}"
    page = await asking.site.lists.feed(asking.me, asking.site.cursors.read(scope, query.cursor), query.limit)
    return Reply(await photo_page(asking.site, scope, page))


async def list_photos(asking: Asking) -> Reply:
    query = asking.asked(schemas.PageQuery)
    page = await asking.site.lists.explore(asking.site.cursors.read("explore", query.cursor), query.limit)
    return Reply(await photo_page(asking.site, "explore", page))


async def list_top(asking: Asking) -> Reply:
    query = asking.asked(schemas.TopQuery)
    found = await asking.site.lists.top(asking.user, None, query.period, query.limit)
    return Reply(schemas.PhotoList(photos=await photo_views(asking.site, found)))


async def search_photos(asking: Asking) -> Reply:
    query = asking.asked(schemas.SearchQuery)
    scope = f"search {query.q}"
    after = asking.site.cursors.read(scope, query.cursor)
    found = await asking.site.lists.search(asking.user, query.q, after, query.limit)
    page = await photo_page(asking.site, scope, found.page)
    spelt = None if found.spelt is None else list(found.spelt)
    return Reply(schemas.SearchPage(photos=page.photos, next=page.next, spelt=spelt))


async def get_comments(asking: Asking) -> Reply:
    query, scope = asking.asked(schemas.PageQuery), f"comments {asking.photo_id}"
    after = asking.site.cursors.read(scope, query.cursor)
    page = await asking.site.talk.comments(asking.user, asking.photo_id, after, query.limit)
    following = asking.site.cursors.write(scope, page.next)
    return Reply(schemas.CommentPage(comments=[comment_view(one) for one in page.items], next=following))


async def write_comment(asking: Asking) -> Reply:
    text = asking.sent(schemas.WriteComment).text
    return Reply(comment_view(await asking.site.talk.comment(asking.me, asking.photo_id, text)))


async def delete_comment(asking: Asking) -> Reply:
    comment_id = int(asking.request.match_info["comment"])
    await asking.site.talk.remove_comment(asking.me, asking.photo_id, comment_id)
    return Reply()


async def get_reactions(asking: Asking) -> Reply:
    return Reply(reactions_view(await asking.site.talk.reactions(asking.user, asking.photo_id)))


async def react(asking: Asking) -> Reply:
    reaction = asking.sent(schemas.React).reaction
    return Reply(reactions_view(await asking.site.talk.like(asking.me, asking.photo_id, reaction)))


async def take_reaction_back(asking: Asking) -> Reply:
    return Reply(reactions_view(await asking.site.talk.unlike(asking.me, asking.photo_id)))
