"""URLs of pictures: straight at the Cache, Store or CDN that has them, signed when not everybody may see them."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from urllib.parse import urlsplit

from frontend.database.photos import Photo
from frontend.images.renditions import KEYS, ORIGINAL, SIZES, UNTOUCHED, Format
from frontend.visibility import Visibility
from haystack.client import HaystackClient
from haystack.errors import HaystackError
from haystack.fid import Fid
from haystack.lifetime import end_tasks
from haystack.signed_urls import UrlSigner
from haystack.views import is_view

HOUR_SECONDS = 3600
KNOWN_SECONDS = 30.0
"""How long it is believed which machines there are."""

INTAKE = "intake"
"""Under this name Stores tell of the intake on their machine."""

_log = logging.getLogger(__name__)

SIZE_NAMES = (*(size.name for size in SIZES), "original")
FORMATS = {format_.name.lower(): format_ for format_ in Format}
_SMALLEST_FIRST = tuple(reversed(FORMATS))
_KEYS = {(size, format_.name.lower()): alternate for (size, format_), alternate in KEYS.items()}
_KNOWN_SHAPES = 4096
"""Of photos with the same width, height and renditions, what is known once: a camera makes thousands of them."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One picture of a photo, whatever it shows.

    Parameters
    ----------
    format: None as the original came.
    alternate: its alternate key.
    """

    size: str
    format: str | None
    width: int
    height: int
    alternate: int


@lru_cache(maxsize=_KNOWN_SHAPES)
def shapes_of(width: int, height: int, renditions: tuple[int, ...]) -> tuple[Shape, ...]:
    """All pictures of a photo with so many pixels, by size and format: the smallest, and the smallest files, first."""
    found = []
    for size in SIZES:
        wide, high = _scaled(size.edge, width, height)
        keys = ((name, _KEYS[size.name, name]) for name in _SMALLEST_FIRST)
        found += [Shape(size.name, name, wide, high, key) for name, key in keys if key in renditions]
    return (*found, Shape("original", None, width, height, ORIGINAL))


@lru_cache(maxsize=_KNOWN_SHAPES)
def _widths(width: int, height: int, renditions: tuple[int, ...], format_name: str) -> tuple[tuple[int, int], ...]:
    """Alternate key and width of all sizes of a format that lists show."""
    found = (one for one in shapes_of(width, height, renditions) if one.format == format_name)
    return tuple((one.alternate, one.width) for one in found if not is_view(one.alternate))


def _scaled(edge: int, width: int, height: int) -> tuple[int, int]:
    longer = max(width, height)
    if longer <= edge:
        return width, height
    return max(1, round(width * edge / longer)), max(1, round(height * edge / longer))


@dataclass(frozen=True, slots=True)
class Pictures:
    """The pictures of one photo. A page asks for a dozen URLs of each of forty photos.

    Parameters
    ----------
    base: where they are; with the photo's fid behind it.
    until: seconds since 1970 until which signed URLs hold.
    """

    photo: Photo
    base: str
    signer: UrlSigner
    until: int

    def formats(self, size: str) -> tuple[str, ...]:
        """The formats that there are of a size, the smallest files first."""
        return tuple(one.format for one in self.shapes if one.size == size and one.format is not None)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """All of them, as :func:`shapes_of` tells them."""
        return shapes_of(self.photo.width, self.photo.height, self.photo.renditions)

    def url(self, size: str, format_name: str | None = None, *, download: bool = False) -> str:
        """The URL of a picture.

        Parameters
        ----------
        size: of ``SIZE_NAMES``.
        format_name: of ``FORMATS``; JPEG when there is none of it.
        download: browsers save it instead of showing it.
        """
        return self._url(self._alternate(size, format_name), download)

    def untouched_url(self) -> str | None:
        """Where its owner downloads the upload as it came, when that was kept."""
        return self._url(UNTOUCHED, True) if UNTOUCHED in self.photo.renditions else None

    def url_of(self, shape: Shape) -> str:
        """The URL of one of ``shapes``."""
        return self._url(shape.alternate)

    def srcset(self, format_name: str) -> str:
        """The sizes of a format that lists show, for the attribute ``srcset``; empty when there is none of it.

        The large one is none of them: who is given it has looked at the photo, and counts.
        """
        widths = _widths(self.photo.width, self.photo.height, self.photo.renditions, format_name)
        return ", ".join([f"{self._url(alternate)} {width}w" for alternate, width in widths])

    def _alternate(self, size: str, format_name: str | None) -> int:
        if size == "original":
            return ORIGINAL
        for name in (format_name or "jpeg", "jpeg"):
            key = _KEYS.get((size, name))
            if key in self.photo.renditions and key is not None:
                return key
        return ORIGINAL

    def _url(self, alternate: int, download: bool = False) -> str:
        # The record has the original's fid; a rendition's has its number behind it.
        url = f"{self.base}/{self.photo.fid}_{alternate}" if alternate else f"{self.base}/{self.photo.fid}"
        query = "dl=true" if download else ""
        if self.photo.visibility is not Visibility.PUBLIC or alternate == UNTOUCHED:
            fid = replace(Fid.parse(self.photo.fid), alternate=alternate)
            query = "&".join(filter(None, (self.signer.query(fid, self.until), query)))
        return f"{url}?{query}" if query else url


class PictureUrls:
    """Makes the URLs of pictures.

    Parameters
    ----------
    client: knows where volumes are, for a while; with public addresses.
    cdn: base of all URLs instead, when there is one.
    now: unix seconds.
    """

    def __init__(self, client: HaystackClient, signer: UrlSigner, *, cdn: str | None, now: Callable[[], float]) -> None:
        self._client = client
        self._signer = signer
        self._cdn = cdn.rstrip("/") if cdn else None
        self._now = now
        self._learnt = float("-inf")
        self._learning: asyncio.Task[None] | None = None
        self._images: tuple[str, ...] = ()
        self._intakes: tuple[str, ...] = ()

    async def of(self, photos: Sequence[Photo]) -> list[Pictures]:
        """The pictures of some photos. Raises Unreachable, VolumeUnavailable when nobody says where they are."""
        # The same URL for an hour, so that browsers find it in their caches; good for another one.
        until = (int(self._now()) // HOUR_SECONDS + 2) * HOUR_SECONDS
        bases = await asyncio.gather(*(self._base(photo) for photo in photos))
        return [Pictures(photo, base, self._signer, until) for photo, base in zip(photos, bases, strict=True)]

    async def _base(self, photo: Photo) -> str:
        if self._cdn is not None:
            return self._cdn
        fid = Fid.parse(photo.fid)
        # Drawn by the photo: all pages name the same place for it, and all places are named by some.
        urls = await self._client.read_urls(fid, uniform=random.Random(fid.key).random, at_once=True)
        return urls[0].rpartition("/")[0]

    async def origins(self) -> tuple[str, ...]:
        """Where pictures may come from, for a page's Content-Security-Policy."""
        await self._learn()
        return (self._cdn,) if self._cdn is not None else self._images

    async def intake_origins(self) -> tuple[str, ...]:
        """Where photos may be uploaded to, for a page's Content-Security-Policy."""
        await self._learn()
        return self._intakes

    async def _learn(self) -> None:
        """Ask beside the pages that want to know; they wait for it only when what is known is twice as old."""
        age = self._now() - self._learnt
        if age < KNOWN_SECONDS:
            return
        if self._learning is None or self._learning.done():
            self._learning = asyncio.get_running_loop().create_task(self._ask())
        if age >= 2 * KNOWN_SECONDS:
            await asyncio.shield(self._learning)

    async def close(self) -> None:
        """Break off what is under way."""
        if self._learning is not None:
            await end_tasks([self._learning])

    async def _ask(self) -> None:
        try:
            images, intakes = await self._client.read_bases(), await self._client.services(INTAKE)
        except HaystackError as error:
            _log.warning("the cluster's machines are not known, pages name those of before: %s", error)
            return
        except Exception:
            _log.exception("the cluster's machines are not known, pages name those of before")
            return
        finally:
            self._learnt = self._now()
        self._images = tuple(sorted({_origin(url) for url in images}))
        self._intakes = tuple(sorted({_origin(url) for url in intakes}))


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def choose_format(accept: str, there: Sequence[str]) -> str:
    """The format to send to who accepts this.

    Parameters
    ----------
    accept: the header; ``image/*`` says nothing of WebP and AVIF, as old browsers send it.
    there: the formats that there are, best first.
    """
    wanted = {part.partition(";")[0].strip().lower() for part in accept.split(",") if "q=0" not in part.split(";")[1:]}
    for name in there:
        if FORMATS[name].mime in wanted:
            return name
    return "jpeg"
