"""The Store beside the intake: one multi-write a photo, and the question whether one is there."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import aiohttp
import msgpack

from frontend.images.renditions import ORIGINAL, UNTOUCHED, Encoded
from frontend.records import RECORD, RECORD_MIME, Record, dump
from frontend.visibility import Visibility
from haystack.errors import HaystackError
from haystack.fid import Fid
from haystack.json_calls import CONNECTION_ERRORS, in_words, read_limited, reason_given
from haystack.signed_urls import UrlSigner

_MAX_ANSWER_BYTES = 256 * 1024
_QUESTION_SECONDS = 60
_READY_TIMEOUT = aiohttp.ClientTimeout(total=2)


class NotStored(HaystackError):
    """The Store did not take the photo; the client may come again, with another ticket when the text says so."""

    http_status = 503


class MaybeStored(HaystackError):
    """The Store was not heard of again: it has the photo, or it has not."""

    http_status = 503


@dataclass(frozen=True, slots=True)
class Needle:
    """One needle of a photo.

    Parameters
    ----------
    signed: whether only signed URLs give it.
    """

    alternate: int
    mime: str
    name: str
    data: bytes
    signed: bool


def needles_of(record: Record, pictures: Sequence[Encoded]) -> list[Needle]:
    """What is stored of a photo: its pictures, and its record."""
    hidden = record.visibility != Visibility.PUBLIC
    found = [
        Needle(
            picture.alternate,
            picture.mime,
            record.name if picture.alternate in (ORIGINAL, UNTOUCHED) else "",
            picture.data,
            hidden or picture.alternate == UNTOUCHED,
        )
        for picture in pictures
    ]
    return [*found, record_needle(record)]


def record_needle(record: Record) -> Needle:
    """The needle of a photo's record, which may say where it was taken: never for everybody."""
    return Needle(RECORD, RECORD_MIME, "", dump(record).encode(), True)


class StoreWriter:
    """Writes photos into a Store.

    Parameters
    ----------
    session: for the calls.
    address: ``host:port``, or with http:// before it.
    signer: asks for what is signed.
    timeout_seconds: for one call.
    """

    def __init__(
        self, session: aiohttp.ClientSession, address: str, signer: UrlSigner, *, timeout_seconds: float = 30.0
    ) -> None:
        self._session = session
        self._base = address.rstrip("/") if "://" in address else f"http://{address}"
        self._signer = signer
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)

    async def write(self, fid: Fid, needles: Sequence[Needle]) -> None:
        """Store all needles of a photo, or none.

        Raises
        ------
        NotStored: the Store has refused.
        MaybeStored: it was not heard of again.
        """
        items = [
            {
                "fid": str(replace(fid, alternate=needle.alternate)),
                "data": needle.data,
                "mime": needle.mime,
                "name": needle.name,
                "signed": needle.signed,
            }
            for needle in needles
        ]
        body = io.BytesIO(msgpack.packb(items))  # a file is written in pieces; bytes would hold up the loop
        try:
            async with self._session.post(
                f"{self._base}/{fid.volume}/multi",
                data=body,
                headers={"Content-Type": "application/msgpack"},
                timeout=self._timeout,
            ) as response:
                raw = await read_limited(response, _MAX_ANSWER_BYTES)
        except CONNECTION_ERRORS as error:
            raise MaybeStored(f"the Store was not heard of: {in_words(error)}; try again") from error
        if response.status == 201:
            return
        reason = reason_given(raw, response.status)
        if response.status == 507 or response.status < 500:
            raise NotStored(f"the Store did not take the photo: {reason}; ask the front end for another ticket")
        # A Store that waited for other copies in vain has written its own.
        raise MaybeStored(f"the Store did not say that it has the photo: {reason}; try again")

    async def ready(self) -> bool:
        """Whether the Store takes requests."""
        try:
            async with self._session.get(f"{self._base}/readyz", timeout=_READY_TIMEOUT) as response:
                return response.status == 200
        except CONNECTION_ERRORS:
            return False

    async def has(self, fid: Fid) -> bool:
        """Whether the photo's record is there, and so all of the photo. Raises MaybeStored when nobody says."""
        wanted = replace(fid, alternate=RECORD)
        query = self._signer.query(wanted, int(time.time()) + _QUESTION_SECONDS)
        try:
            async with self._session.head(f"{self._base}/{wanted}?{query}", timeout=self._timeout) as response:
                status = response.status
        except CONNECTION_ERRORS as error:
            raise MaybeStored(f"the Store was not heard of: {in_words(error)}") from error
        if status in (200, 404):
            return status == 200
        raise MaybeStored(f"the Store answers {status}")
