"""``haystack import DIR --as USERNAME``: a folder becomes somebody's photos on the photo service."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import click

from haystack.client import FileSource
from haystack.errors import ConfigError
from tools.importer import Uploader
from tools.manifest import Entry, Head, Manifest
from tools.output import Output
from tools.report import iso_time
from tools.site import NotYou, PhotoSite, Wish, upload_key
from tools.site_titles import title_of
from tools.walk import Found

TOKEN_VARIABLE = "HAYSTACK_API_TOKEN"  # noqa: S105 - a variable's name
DEFAULT_SITE_URL = "http://127.0.0.1:8000"
SITE_JOBS = 4
"""Files at a time: pictures are worked on for each, a hundred milliseconds and more."""
TAKEN_TYPES = frozenset(
    ("image/jpeg", "image/png", "image/webp", "image/avif", "image/gif", "image/tiff", "image/heic", "image/heif")
)
_MAX_TOKEN_BYTES = 4096


@dataclass(frozen=True, slots=True)
class SiteOptions:
    """How the photos are to stand on the site.

    Parameters
    ----------
    username: whose they become.
    token_file: with the API token; None for the environment, or a prompt.
    drop_place: whether to forget the places of their EXIF.
    """

    username: str
    url: str
    token_file: Path | None
    tags: tuple[str, ...]
    visibility: str
    drop_place: bool

    def wish(self, found: Found, size_bytes: int) -> Wish:
        """What to ask for one file."""
        name = found.path.rpartition("/")[2].encode("utf-8", "replace").decode()
        return Wish(size_bytes, name[-200:], title_of(name), self.tags, self.visibility, not self.drop_place)


def read_token(options: SiteOptions, output: Output) -> str:
    """The API token: of a file, of the environment, or asked for on the terminal. Never of the command line.

    Raises
    ------
    ConfigError: there is none.
    """
    if options.token_file is not None:
        try:
            text = options.token_file.read_bytes()[:_MAX_TOKEN_BYTES].decode("ascii").strip()
        except (OSError, ValueError) as error:
            raise ConfigError(f"--token-file {options.token_file}: cannot be read: {error}") from error
    else:
        text = os.environ.get(TOKEN_VARIABLE, "").strip()
        if not text and sys.stdin.isatty():
            text = str(click.prompt(f"API token of {options.username}", hide_input=True, err=True)).strip()
    if not text.isascii() or not text.isprintable() or not text:
        raise ConfigError(
            f"an API token of {options.username} is needed: in {TOKEN_VARIABLE}, or in a file with --token-file FILE; "
            "its owner makes one on the page for settings"
        )
    return text


@asynccontextmanager
async def site_manifest(
    output: Output, options: SiteOptions, token: str, root: Path, path: Path
) -> AsyncIterator[tuple[Manifest, Uploader]]:
    """The manifest of an import, and what uploads one file and writes it down there.

    Raises
    ------
    NotYou: the token is not the user's. ManifestError: the manifest belongs to something else.
    """
    slowed = _Slowed(output)
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        site = PhotoSite(session, options.url, token, slowed=slowed.say)
        username = await site.username()
        if username != options.username.lower():
            raise NotYou(f"the API token is of {username}, not of {options.username}")
        async with Manifest(path, site_head(root, options)) as manifest:
            yield manifest, _uploader(site, options, manifest)


def site_head(root: Path, options: SiteOptions) -> Head:
    """What the manifest of an import to a site belongs to."""
    return Head(str(root), f"{options.url.rstrip('/')}/@{options.username.lower()}")


def _uploader(site: PhotoSite, options: SiteOptions, manifest: Manifest) -> Uploader:
    async def upload(found: Found, source: FileSource) -> None:
        wish = options.wish(found, source.stamp.size_bytes)
        published = await site.upload(source, wish, upload_key(found.path, wish, source.stamp.mtime_ns))
        if source.digest is None:  # it was there already, and nothing was sent
            async for _ in source.pieces():
                continue
        assert source.digest is not None
        await manifest.add(
            Entry(
                path=found.path,
                size_bytes=source.stamp.size_bytes,
                mtime_ns=source.stamp.mtime_ns,
                xxh3=source.digest,
                fid=published.fid,
                etag="",
                url=f"{site.url}/photos/{published.id}",
                time=iso_time(time.time()),
            )
        )

    return upload


class _Slowed:
    """Says once that the site's limit of uploads is what takes so long."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._said = False

    def say(self, reason: str, wait_seconds: float) -> None:
        if not self._said:
            self._said = True
            self._output.note(f"haystack: the site takes no more for now and is waited for: {reason}")
