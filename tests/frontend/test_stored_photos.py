"""Needles of photos whose volume has moved a moment ago."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import cast

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from frontend.images.renditions import ORIGINAL
from frontend.services.stored import StoredPhotos
from frontend.visibility import Visibility
from haystack.client import HaystackClient
from haystack.errors import NeedleNotFound
from haystack.fid import Fid
from haystack.signed_urls import UrlSigner

FID = Fid(3, 7, 0xC0FFEE)


class Places:
    """What a client knows of where a volume is: as it was, until that is in doubt."""

    def __init__(self, before: str, now: str) -> None:
        self.known = before
        self.now = now

    async def read_urls(self, fid: Fid) -> list[str]:
        return [f"{self.known}/{fid}"]

    def doubt(self, volume: int) -> None:
        self.known = self.now


@pytest.fixture
async def places() -> AsyncIterator[Places]:
    """The volume has moved from one Store to another."""

    async def gone(request: web.Request) -> web.Response:
        raise web.HTTPNotFound

    async def there(request: web.Request) -> web.Response:
        return web.Response(body=b"a photo", content_type="image/jpeg")

    async with AsyncExitStack() as stack:
        urls = []
        for answer in (gone, there):
            app = web.Application()
            app.router.add_get("/{fid}", answer)
            server = TestServer(app)
            await server.start_server()
            stack.push_async_callback(server.close)
            urls.append(f"http://127.0.0.1:{server.port}")
        yield Places(*urls)


async def test_a_photo_that_has_moved_is_not_taken_for_gone(places: Places) -> None:
    async with aiohttp.ClientSession() as session:
        stored = StoredPhotos(cast(HaystackClient, places), session, UrlSigner(b"s" * 32))
        (needle,) = await stored.copy(FID, [ORIGINAL], Visibility.PUBLIC)
        assert needle.data == b"a photo"


async def test_one_that_is_nowhere_is_gone(places: Places) -> None:
    places.now = places.known
    async with aiohttp.ClientSession() as session:
        stored = StoredPhotos(cast(HaystackClient, places), session, UrlSigner(b"s" * 32))
        with pytest.raises(NeedleNotFound):
            await stored.copy(FID, [ORIGINAL], Visibility.PUBLIC)
