"""The answer that is a whole needle, header to footer, as it lies in the volume: for Caches, which verify it.

Asked for with ``Accept: application/vnd.haystack.needle`` and nothing else in that field, on any path of a photo.
Conditions and ranges are left aside. A needle says nothing that whoever knows its cookie may not know; its checksum can
be verified only by those who know the volume's uuid, which the Directory tells the cluster's own members.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from haystack.http.answering import Buffer
from haystack.http.request import RequestHeaders
from haystack.store.answers import etag
from haystack.volume.layout import FOOTER, FOOTER_MAGIC, NEEDLE_TYPE, padding_bytes
from haystack.volume.reading import Needle

_HEADERS: Final = b"Content-Type: %s\r\nCache-Control: no-store\r\nETag: %s\r\n"


def wants_needle(headers: RequestHeaders) -> bool:
    """Whether a GET or HEAD asks for the needle and not for the photo in it."""
    return headers.accept == NEEDLE_TYPE


def needle_headers(checksum: int) -> bytes:
    """Header lines of the answer. No other cache on the way may keep it, for it has the photo's URL."""
    return _HEADERS % (NEEDLE_TYPE.encode(), etag(checksum).encode())


def around(needle: Needle, seed: int) -> tuple[bytes, bytes]:
    """The bytes before and behind the photo's in its needle, which follow from what was read of it.

    Parameters
    ----------
    seed: of the volume's checks.
    """
    header = needle.header
    behind = bytes(padding_bytes(header.meta_bytes, header.data_bytes))
    return header.pack(seed) + needle.raw_meta, behind + FOOTER.pack(FOOTER_MAGIC, 0, needle.checksum)


async def enclosed(before: bytes, pieces: AsyncIterator[bytes], behind: bytes) -> AsyncIterator[Buffer]:
    """The pieces of a photo with what is before and behind it in its needle."""
    yield before
    async for piece in pieces:
        yield piece
    yield behind
