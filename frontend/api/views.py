"""From what the services know to what is answered."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime

from frontend.api import schemas
from frontend.database.paging import Page
from frontend.database.people import User
from frontend.database.photos import Photo
from frontend.database.sessions import ApiToken
from frontend.database.talk import Comment
from frontend.services.following import Profile
from frontend.services.names import photo_id_text
from frontend.services.pictures import Pictures
from frontend.services.site import Site
from frontend.services.talking import Reactions


def moment(ms: int) -> datetime:
    """A time, from ms since 1970."""
    return datetime.fromtimestamp(ms / 1000, UTC)


def user_view(user: User) -> schemas.User:
    return schemas.User(
        username=user.username,
        name=user.name,
        bio=user.bio,
        created=moment(user.created_ms),
        photos=user.photo_count,
        followers=user.follower_count,
        following=user.following_count,
    )


def me_view(user: User) -> schemas.Me:
    return schemas.Me(**user_view(user).model_dump(), id=str(user.id), email=user.email)


def profile_view(profile: Profile) -> schemas.Profile:
    return schemas.Profile(
        **user_view(profile.user).model_dump(),
        followed_by_you=profile.following,
        follows_you=profile.follows_you,
    )


def token_view(token: ApiToken) -> schemas.Token:
    return schemas.Token(id=str(token.id), name=token.name, created=moment(token.created_ms))


def photo_view(pictures: Pictures) -> schemas.Photo:
    photo = pictures.photo
    place = None
    if photo.latitude is not None and photo.longitude is not None:
        place = schemas.Place(latitude=photo.latitude, longitude=photo.longitude)
    return schemas.Photo(
        id=photo_id_text(photo.id),
        owner=photo.owner_name,
        title=photo.title,
        caption=photo.caption,
        tags=list(photo.tags),
        visibility=photo.visibility.word,  # type: ignore[arg-type]  # the words are those of the schema
        created=moment(photo.created_ms),
        taken=None if photo.taken_ms is None else moment(photo.taken_ms),
        place=place,
        camera=photo.camera,
        mime=photo.mime,
        width=photo.width,
        height=photo.height,
        size_bytes=photo.size_bytes,
        animated=photo.animated,
        placeholder=base64.b64encode(photo.placeholder).decode(),
        likes=photo.like_count,
        comments=photo.comment_count,
        views=photo.view_count,
        pictures=_pictures(pictures),
    )


def _pictures(pictures: Pictures) -> list[schemas.Picture]:
    return [
        schemas.Picture(
            size=shape.size,  # type: ignore[arg-type]  # of the schema's names
            format=shape.format,  # type: ignore[arg-type]  # of the schema's names
            width=shape.width,
            height=shape.height,
            url=pictures.url_of(shape),
        )
        for shape in pictures.shapes
    ]


async def photo_views(site: Site, photos: Sequence[Photo]) -> list[schemas.Photo]:
    return [photo_view(one) for one in await site.pictures.of(photos)]


async def photo_page(site: Site, scope: str, page: Page[Photo]) -> schemas.PhotoPage:
    return schemas.PhotoPage(photos=await photo_views(site, page.items), next=site.cursors.write(scope, page.next))


def user_page(site: Site, scope: str, page: Page[User]) -> schemas.UserPage:
    return schemas.UserPage(users=[user_view(one) for one in page.items], next=site.cursors.write(scope, page.next))


def comment_view(comment: Comment) -> schemas.Comment:
    return schemas.Comment(
        id=str(comment.id), author=comment.author_name, text=comment.text, created=moment(comment.created_ms)
    )


def reactions_view(reactions: Reactions) -> schemas.Reactions:
    return schemas.Reactions(
        counts=dict(reactions.counts),
        yours=reactions.mine,  # type: ignore[arg-type]  # the services keep no others
    )
