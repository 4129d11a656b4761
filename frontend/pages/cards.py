"""Photos as pages show them: the record, its pictures' URLs, and whether the viewer likes it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import web
from markupsafe import Markup, escape

from frontend.database.people import User
from frontend.database.photos import Photo
from frontend.pages.formatting import ratio_class
from frontend.pages.rendering import Origins, photo_url
from frontend.services.browsing import Browsing
from frontend.services.pictures import Pictures
from frontend.web.keys import SITE

_BETTER_THAN_JPEG = ("avif", "webp")
_EAGER, _LAZY = ' fetchpriority="high"', ' loading="lazy"'


@dataclass(frozen=True, slots=True)
class Card:
    """A photo on a page. ``reacted``: the viewer likes it."""

    photo: Photo
    pictures: Pictures
    reacted: bool = False

    @property
    def href(self) -> str:
        """Its page."""
        return photo_url(self.photo.id)

    @property
    def described(self) -> str:
        """Its title, or what stands for one."""
        return self.photo.title or f"Untitled photo by {self.photo.owner_name}"

    @property
    def words(self) -> str:
        """What stands for the picture where photos of many people are."""
        return f"{self.described}, by {self.photo.owner_name}" if self.photo.title else self.described

    @property
    def ratio(self) -> str:
        """The class of its shape."""
        return ratio_class(self.photo.width, self.photo.height)

    def shot(self, sizes: str, eager: bool = False, words: str = "") -> Markup:
        """The picture in a list with its placeholder, as HTML.

        Here and not in a template: a page has forty, and it is most of what a page is made of.

        Parameters
        ----------
        sizes: how wide it is shown.
        eager: it is seen at once.
        words: what stands for it; by itself its title.
        """
        given = f' sizes="{escape(sizes)}"'
        better = ((name, self.pictures.srcset(name)) for name in _BETTER_THAN_JPEG)
        sources = [_source(name, srcset, given) for name, srcset in better if srcset]
        shown = f'src="{escape(self.url("medium"))}" srcset="{escape(self.pictures.srcset("jpeg"))}"{given}'
        return self._shot(sources, shown, words or self.described, eager)

    def large_shot(self, eager: bool = False) -> Markup:
        """The picture as it is looked at, and what moves moving; as HTML.

        There is one size of it: reads of that are what is counted as views.
        """
        there = self.pictures.formats("large")
        better = (name for name in _BETTER_THAN_JPEG if name in there)
        sources = [_source(name, self.pictures.url("large", name)) for name in better]
        # On top of the picture that stands still, so that there is something to see before all of it has come.
        moving = f'<img class="moving" src="{escape(self.url("original"))}" alt="" loading="lazy">'
        more = moving if self.photo.animated else ""
        return self._shot(sources, f'src="{escape(self.url("large"))}"', self.described, eager, more)

    def _shot(self, sources: Sequence[str], shown: str, words: str, eager: bool, more: str = "") -> Markup:
        placeholder = base64.b64encode(self.photo.placeholder).decode("ascii")
        return Markup(  # noqa: S704  # all that comes from people is escaped
            f'<span class="shot {self.ratio}" data-hash="{placeholder}">\n<picture>\n{"".join(sources)}'
            f'<img {shown} width="{max(1, self.photo.width)}" height="{max(1, self.photo.height)}"'
            f' alt="{escape(words)}"{_EAGER if eager else _LAZY} decoding="async">\n'
            f"</picture>{more}\n</span>"
        )

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


def _source(name: str, srcset: str, more: str = "") -> str:
    return f'<source type="image/{name}" srcset="{escape(srcset)}"{more}>\n'


async def cards_of(request: web.Request, viewer: User | None, photos: Sequence[Photo]) -> list[Card]:
    """The photos with all that a page shows of them."""
    site = request.app[SITE]
    pictures = await site.pictures.of(photos)
    reacted = await Browsing(site.database).reacted(viewer, [photo.id for photo in photos])
    return [Card(photo, found, photo.id in reacted) for photo, found in zip(photos, pictures, strict=True)]


async def picture_origins(request: web.Request) -> Origins:
    """Where the pictures of a page may come from."""
    return Origins(pictures=await request.app[SITE].pictures.origins())
