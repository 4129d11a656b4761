"""Photos as pages show them: the record, its pictures' URLs, and whether the viewer likes it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import web

from frontend.database.people import User
from frontend.database.photos import Photo
from frontend.pages.rendering import Origins
from frontend.services.browsing import Browsing
from frontend.services.pictures import Pictures
from frontend.web.keys import SITE

_BETTER_THAN_JPEG = ("avif", "webp")


@dataclass(frozen=True, slots=True)
class Card:
    """A photo on a page. ``reacted``: the viewer likes it."""

    photo: Photo
    pictures: Pictures
    reacted: bool = False

    @property
    def width(self) -> int:
        return max(1, self.photo.width)

    @property
    def height(self) -> int:
        return max(1, self.photo.height)

    @property
    def placeholder(self) -> str:
        """The thumbhash, base64."""
        return base64.b64encode(self.photo.placeholder).decode("ascii")

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats to offer before JPEG."""
        return tuple(name for name in _BETTER_THAN_JPEG if self.pictures.srcset(name))

    def srcset(self, format_name: str) -> str:
        return self.pictures.srcset(format_name)

    def url(self, size: str) -> str:
        return self.pictures.url(size)

    @property
    def download_url(self) -> str:
        """Where it is downloaded instead of shown."""
        return self.pictures.url("original", download=True)

    @property
    def untouched_url(self) -> str | None:
        """Where the upload is downloaded as it came, when that was kept: for its owner."""
        return self.pictures.untouched_url()


async def cards_of(request: web.Request, viewer: User | None, photos: Sequence[Photo]) -> list[Card]:
    """The photos with all that a page shows of them."""
    site = request.app[SITE]
    pictures = await site.pictures.of(photos)
    reacted = await Browsing(site.database).reacted(viewer, [photo.id for photo in photos])
    return [Card(photo, found, photo.id in reacted) for photo, found in zip(photos, pictures, strict=True)]


async def picture_origins(request: web.Request) -> Origins:
    """Where the pictures of a page may come from."""
    return Origins(pictures=await request.app[SITE].pictures.origins())
