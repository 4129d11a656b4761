"""Style, script and icons: read once, and served under names that hold a hash of what is in them, for ever."""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

FOLDER = Path(__file__).parent / "static"
PREFIX = "/static/"
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_HASH_LETTERS = 12
_FOREVER = "public, max-age=31536000, immutable"
_IMPORT = re.compile(rb'from "\./([a-z]+\.js)"')


@dataclass(frozen=True, slots=True)
class Asset:
    """A file that pages ask for.

    Parameters
    ----------
    url: where; it changes with what is in the file.
    mime: its type.
    plain, packed: its bytes, and the same compressed by gzip.
    """

    url: str
    mime: str
    plain: bytes
    packed: bytes


class Assets:
    """All files of a folder. Raises KeyError for a type of file that is not served."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder
        self._by_name: dict[str, Asset] = {}
        for path in sorted(folder.iterdir()):
            self._load(path.name)
        self._by_url = {asset.url: asset for asset in self._by_name.values()}

    def url(self, name: str) -> str:
        """Where a file is served. Raises KeyError when there is none of this name."""
        return self._by_name[name].url

    async def serve(self, request: web.Request) -> web.Response:
        """Answer a request for one of the files."""
        asset = self._by_url.get(request.path)
        if asset is None:
            raise web.HTTPNotFound(text="there is no such file")
        headers = {
            "Cache-Control": _FOREVER,
            "Vary": "Accept-Encoding",
            # An icon that is opened by itself is a document: it may do nothing.
            "Content-Security-Policy": "default-src 'none'; sandbox",
        }
        body = asset.plain
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"] = "gzip"
            body = asset.packed
        return web.Response(body=body, content_type=asset.mime, charset="utf-8", headers=headers)

    def _load(self, name: str) -> Asset:
        known = self._by_name.get(name)
        if known is not None:
            return known
        path = self._folder / name
        # What a script imports is named by its hash as well, so this one's hash changes with it.
        plain = _IMPORT.sub(lambda match: f'from "{self._load(match[1].decode()).url}"'.encode(), path.read_bytes())
        digest = hashlib.sha256(plain).hexdigest()[:_HASH_LETTERS]
        url = f"{PREFIX}{path.stem}.{digest}{path.suffix}"
        asset = Asset(url, _TYPES[path.suffix], plain, gzip.compress(plain, 9, mtime=0))
        self._by_name[name] = asset
        return asset
