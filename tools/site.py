"""A photo service as a client of its API sees it: who one is there, and uploads straight to its storage machines."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from haystack.client import FileSource, UnexpectedAnswer, Unreachable
from haystack.errors import HaystackError
from haystack.json_calls import CONNECTION_ERRORS, in_words, read_limited

PREFIX = "/api/v1"
TRIES = 6
"""Of one call or upload, when nobody answers or is too busy: half a minute in all."""
FIRST_WAIT_SECONDS = 1.0
MAX_WAIT_SECONDS = 60.0
"""However long somebody says to come again after."""
_MAX_ANSWER_BYTES = 256 * 1024
_CALL_TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=5)
_UPLOAD_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=120)
_BUSY = (423, 500, 502, 503, 504)
_TOO_MANY = 429


class NotYou(HaystackError):
    """The API token is none, or somebody else's than was said."""

    http_status = 401


class NotTaken(HaystackError):
    """The photo service does not take this file, and says why."""

    http_status = 422


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of the photo service for one file, as ``POST /uploads`` has it."""

    size: int
    name: str
    title: str
    tags: tuple[str, ...]
    visibility: str
    keepPlace: bool


@dataclass(frozen=True, slots=True)
class Published:
    """A photo that the service has. ``fid`` is that of its original in the store."""

    id: str
    fid: str


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    document: Any
    headers: Mapping[str, str]

    @property
    def reason(self) -> str:
        """What the service says went wrong."""
        found = self.document if isinstance(self.document, dict) else {}
        wrong = [f"{one.get('field')}: {one.get('problem')}" for one in found.get("errors") or ()]
        said = found.get("detail") or found.get("error") or f"it answers {self.status}"
        return "; ".join([str(said), *wrong])

    @property
    def wait_seconds(self) -> float | None:
        """After how long to come again, if it says so."""
        text = self.headers.get("Retry-After", "")
        return min(MAX_WAIT_SECONDS, float(text)) if text.isdecimal() else None


class PhotoSite:
    """Somebody's view of a photo service.

    Parameters
    ----------
    session: without cookies.
    url: of a front end.
    token: API token.
    slowed: called when the service takes no more for now, with the reason and for how many seconds.
    """

    def __init__(
        self, session: aiohttp.ClientSession, url: str, token: str, *, slowed: Callable[[str, float], None]
    ) -> None:
        self._session = session
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"}
        self._slowed = slowed

    async def username(self) -> str:
        """Whose token it is. Raises NotYou, Unreachable, UnexpectedAnswer."""
        answer = await self._call("GET", "/me")
        if answer.status == 401:
            raise NotYou(f"{self.url}: this is no API token; make one on the page for settings, or with POST /tokens")
        name = answer.document.get("username") if isinstance(answer.document, dict) else None
        if answer.status != 200 or not isinstance(name, str):
            raise UnexpectedAnswer(f"{self.url}: {answer.reason}; is it a photo service?")
        return name

    async def upload(self, source: FileSource, wish: Wish, key: str) -> Published:
        """Bring a file to the storage machine that the front end names.

        Parameters
        ----------
        key: idempotency key: with the same one there is one photo, however often it is tried.

        Raises
        ------
        NotTaken, NotYou, Unreachable, UnexpectedAnswer; as ``source`` does when it cannot be read.
        """
        answer = await self._call("POST", "/uploads", asdict(wish), {"Idempotency-Key": key})
        if answer.status == 401:
            raise NotYou(f"{self.url}: the API token is not valid any more")
        if answer.status in (409, 413, 422):
            raise NotTaken(answer.reason)
        if answer.status != 201:
            raise UnexpectedAnswer(f"{self.url}: {answer.reason}")
        offer = answer.document
        stored = await self._send(source, str(offer["uploadUrl"]), str(offer["ticket"]))
        if stored.status in (200, 201):
            return Published(str(stored.document["photo"]), str(stored.document["record"]["fid"]))
        if stored.status == 403:
            return await self._published(str(offer["photo"]), stored)
        raise NotTaken(stored.reason)

    async def _published(self, photo: str, refused: _Answer) -> Published:
        """The photo of a ticket that has ended: an earlier run has used it, and could not note that any more."""
        answer = await self._call("GET", f"/photos/{photo}")
        if answer.status != 200:
            raise NotTaken(refused.reason)
        original = next(one["url"] for one in answer.document["pictures"] if one["size"] == "original")
        return Published(photo, urlsplit(original).path.rpartition("/")[2])

    async def _call(
        self, method: str, path: str, document: object = None, headers: Mapping[str, str] | None = None
    ) -> _Answer:
        return await self._patiently(
            lambda: self._session.request(
                method,
                f"{self.url}{PREFIX}{path}",
                json=document,
                headers={**self._headers, **(headers or {})},
                timeout=_CALL_TIMEOUT,
                allow_redirects=False,
            ),
            self.url,
        )

    async def _send(self, source: FileSource, url: str, ticket: str) -> _Answer:
        async def pieces() -> AsyncIterator[bytes]:
            async for piece in source.pieces():
                yield bytes(piece)

        return await self._patiently(
            lambda: self._session.post(
                url,
                data=pieces(),
                headers={
                    "Authorization": f"Bearer {ticket}",
                    "Content-Type": "application/octet-stream",
                    "Content-Length": str(source.stamp.size_bytes),
                },
                timeout=_UPLOAD_TIMEOUT,
            ),
            url,
        )

    async def _patiently(self, request: Callable[[], Any], whom: str) -> _Answer:
        wait_seconds, problem = FIRST_WAIT_SECONDS, ""
        tries = 0
        while tries < TRIES:
            tries += 1
            try:
                async with request() as response:
                    raw = await read_limited(response, _MAX_ANSWER_BYTES)
                    answer = _Answer(response.status, _parsed(raw), response.headers)
            except CONNECTION_ERRORS as error:
                problem = in_words(error)
            else:
                if answer.status == _TOO_MANY:
                    tries -= 1  # it works, and says when it goes on
                    self._slowed(answer.reason, answer.wait_seconds or wait_seconds)
                elif answer.status not in _BUSY:
                    return answer
                problem = answer.reason
                if answer.wait_seconds is not None:
                    wait_seconds = answer.wait_seconds
            if tries < TRIES:
                await asyncio.sleep(wait_seconds)
                wait_seconds = min(MAX_WAIT_SECONDS, 2 * wait_seconds)
        raise Unreachable(f"{whom}: {problem}")


def upload_key(path: str, wish: Wish, mtime_ns: int) -> str:
    """The idempotency key of a file: the same in each run, as long as nothing of it has changed."""
    said = json.dumps([path, mtime_ns, asdict(wish)], sort_keys=True)
    return "import-" + hashlib.sha256(said.encode("utf-8", "surrogateescape")).hexdigest()[:40]


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None
