"""Uploads: tickets for clients who upload straight to a storage machine, and passing on what others send us."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import aiohttp
from sqlalchemy import Connection, delete
from sqlalchemy.exc import IntegrityError

from frontend.database import photos, uploads
from frontend.database.engine import Database
from frontend.database.people import User
from frontend.database.photos import Photo
from frontend.database.tables import uploads as uploads_table
from frontend.images.renditions import ALTERNATES
from frontend.records import Record, load
from frontend.services.errors import Busy, Conflict, Invalid, UploadRefused
from frontend.services.limits import UPLOAD, Limits
from frontend.services.names import clean_caption, clean_line, clean_tags, clean_title, parse_visibility
from frontend.services.photos import Photos
from frontend.services.pictures import INTAKE
from frontend.tickets import Ticket, TicketOffice
from haystack.client import HaystackClient
from haystack.client.locations import with_scheme
from haystack.errors import InvalidRequest
from haystack.json_calls import CONNECTION_ERRORS, in_words, parsed, read_limited, reason_given

TICKET_SECONDS = 3600
MAX_FILE_NAME = 200
_KEY = re.compile(r"[!-~]{1,100}")
_MAX_ANSWER_BYTES = 256 * 1024
_PASS_ON_TIMEOUT = aiohttp.ClientTimeout(total=120, sock_connect=3)
_BUSY_STATUSES = (423, 502, 503, 504)
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants to upload.

    Parameters
    ----------
    size_bytes: of the file, exactly.
    name: of the file.
    keep_place: whether the place in its EXIF may be kept.
    content_hash: SHA-256 of the file as hex, when it is known; "" when not.
    """

    size_bytes: int
    name: str = ""
    title: str = ""
    caption: str = ""
    tags: tuple[str, ...] = ()
    visibility: str = "public"
    keep_place: bool = True
    content_hash: str = ""


@dataclass(frozen=True, slots=True)
class Offer:
    """Where and how to upload.

    Parameters
    ----------
    upload_url: takes the file in one request; tus_url: takes it in pieces, by tus 1.0.
    ticket: the right to it, for the header ``Authorization: Bearer``.
    expires: seconds since 1970.
    """

    photo_id: int
    upload_url: str
    tus_url: str
    ticket: str
    expires: int


class Uploads:
    """What concerns uploads.

    Parameters
    ----------
    client: of the cluster, with public addresses.
    max_bytes: of a file.
    keep_untouched: whether uploads are kept as they came.
    now_ms: milliseconds since 1970.
    """

    def __init__(
        self,
        database: Database,
        client: HaystackClient,
        session: aiohttp.ClientSession,
        office: TicketOffice,
        published: Photos,
        limits: Limits,
        *,
        max_bytes: int,
        keep_untouched: bool,
        now_ms: Callable[[], int],
    ) -> None:
        self._database = database
        self._client = client
        self._session = session
        self._office = office
        self._photos = published
        self._limits = limits
        self.max_bytes = max_bytes
        self._keep_untouched = keep_untouched
        self._now_ms = now_ms

    async def offer(self, user: User, wish: Wish, key: str | None = None) -> Offer:
        """A ticket for one upload.

        Parameters
        ----------
        key: the client's idempotency key: asked again with it, the answer is the same.

        Raises
        ------
        Invalid: a value is not as it has to be. Conflict: the key was used for something else.
        TooMany; Busy, Unreachable, VolumeUnavailable: there is no place for a photo now.
        """
        wish = self._checked(wish)
        if key is None:
            self._limits.take(UPLOAD, str(user.id))
            return await self._offer(user, wish)
        if _KEY.fullmatch(key) is None:
            raise Invalid("Idempotency-Key", "an idempotency key has 1 to 100 printable ASCII characters and no blanks")
        asked = hashlib.sha256(json.dumps(asdict(wish), sort_keys=True).encode()).digest()
        known = await self._database.write(_known, user.id, key, asked, self._now_ms())
        if known is not None:
            return known
        self._limits.take(UPLOAD, str(user.id))
        made = await self._offer(user, wish)
        return await self._database.write(_remember, user.id, key, asked, made, self._now_ms())

    async def pass_on(self, offer: Offer, body: Callable[[], AsyncIterator[bytes]], size_bytes: int) -> Record:
        """Send a file to the intake, and publish what it stored.

        Parameters
        ----------
        body: gives the file, from its beginning at each call.

        Raises
        ------
        UploadRefused: the intake does not take this file. Busy: it does not answer.
        """
        problem = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                await asyncio.sleep(0.5 * attempt)
            try:
                status, raw = await self._send(offer, body(), size_bytes)
            except CONNECTION_ERRORS as error:
                problem = in_words(error)
                continue
            if status in (200, 201):
                record = _record_in(raw)
                await self._photos.publish(record)
                return record
            problem = reason_given(raw, status)
            if status not in _BUSY_STATUSES:
                raise UploadRefused(status if status in (400, 413, 415, 422) else 422, problem)
        raise Busy(f"the upload could not be passed on: {problem}")

    async def _send(self, offer: Offer, body: AsyncIterator[bytes], size_bytes: int) -> tuple[int, bytes]:
        async with self._session.post(
            offer.upload_url,
            data=body,
            headers={
                "Authorization": f"Bearer {offer.ticket}",
                "Content-Type": "application/octet-stream",
                "Content-Length": str(size_bytes),
            },
            timeout=_PASS_ON_TIMEOUT,
        ) as response:
            return response.status, await read_limited(response, _MAX_ANSWER_BYTES)

    async def _offer(self, user: User, wish: Wish) -> Offer:
        assignment = await self._client.assign(ALTERNATES)
        address = assignment.services.get(INTAKE)
        if address is None:
            raise Busy(
                "the storage machine with room for a photo has no intake; "
                "its Store has to be given --service intake=host:port"
            )
        base = with_scheme(address)
        expires = self._now_ms() // 1000 + TICKET_SECONDS
        ticket = Ticket(
            id=secrets.token_bytes(16),
            fid=str(assignment.fid),
            owner_id=user.id,
            owner_name=user.username,
            owner_shown=user.name,
            size_bytes=wish.size_bytes,
            expires=expires,
            name=wish.name,
            title=wish.title,
            caption=wish.caption,
            tags=wish.tags,
            visibility=int(parse_visibility(wish.visibility)),
            keep_place=wish.keep_place,
            keep_untouched=self._keep_untouched,
        )
        photo_id = assignment.fid.key
        return Offer(photo_id, f"{base}/upload", f"{base}/files", self._office.issue(ticket), expires)

    def _checked(self, wish: Wish) -> Wish:
        if not 1 <= wish.size_bytes <= self.max_bytes:
            problem = "an empty file is no photo" if wish.size_bytes < 1 else f"at most {self.max_bytes:,} bytes"
            raise Invalid("size", problem)
        parse_visibility(wish.visibility)
        return replace(
            wish,
            name=clean_line(wish.name, "name", MAX_FILE_NAME * 10)[-MAX_FILE_NAME:],
            title=clean_title(wish.title),
            caption=clean_caption(wish.caption),
            tags=clean_tags(wish.tags),
        )


def _record_in(raw: bytes) -> Record:
    document = parsed(raw)
    try:
        return load(json.dumps(document["record"]))
    except (TypeError, KeyError, InvalidRequest) as error:
        raise Busy(f"the intake answers with something that is no photo; is it of this release? {error}") from error


def _known(connection: Connection, user_id: int, key: str, asked: bytes, now_ms: int) -> Offer | None:
    """What was answered to this key, unless nothing can be done with it any more."""
    before = uploads.asked_before(connection, user_id, key, now_ms)
    if before is None:
        return None
    if before.request_hash != asked:
        raise Conflict("this idempotency key was used for another upload; use another key")
    offer = _offer_of(before.answer)
    if offer.expires * 1000 <= now_ms and _photo(connection, offer.photo_id, user_id) is None:
        connection.execute(
            delete(uploads_table).where(uploads_table.c.owner_id == user_id, uploads_table.c.idempotency_key == key)
        )
        return None
    return offer


def _remember(connection: Connection, user_id: int, key: str, asked: bytes, made: Offer, now_ms: int) -> Offer:
    known = _known(connection, user_id, key, asked, now_ms)
    if known is not None:
        return known  # the same was asked at the same moment
    answer = json.dumps(asdict(made))
    try:
        with connection.begin_nested():
            uploads.remember(connection, user_id, key, uploads.Asked(asked, made.photo_id, answer), now_ms)
    except IntegrityError:  # another connection was faster, and has been committed since
        return _known(connection, user_id, key, asked, now_ms) or made
    return made


def _photo(connection: Connection, photo_id: int, user_id: int) -> Photo | None:
    return photos.by_id(connection, photo_id, user_id)


def _offer_of(answer: str) -> Offer:
    found: dict[str, Any] = json.loads(answer)
    return Offer(**found)
