"""A photo as it goes into memory, made from its needle."""

from __future__ import annotations

from cache.answers import VIA
from cache.memory import NewPhoto
from cache.signatures import SIGNED
from haystack.store.answers import photo_head
from haystack.volume.layout import NeedleHeader


def new_photo(
    volume: int, header: NeedleHeader, meta: bytes, checksum: int, *, stored_ms: int, verified_ns: int
) -> NewPhoto:
    """The photo of a needle.

    Parameters
    ----------
    checksum: of the Stores' needle.
    stored_ms: when a Store gave it, milliseconds since 1970.
    verified_ns: up to when it is known to be in force, by :mod:`cache.clock`.
    """
    head = b""  # what is for signed URLs alone has none that is right for everybody
    if not header.is_signed:
        head = photo_head(meta, checksum, header.time_ms, header.data_bytes) + VIA
    return NewPhoto(
        volume=volume,
        key=header.key,
        cookie=header.cookie,
        alternate=header.alternate,
        checksum=checksum,
        time_ms=header.time_ms,
        expires=header.expires,
        stored_ms=stored_ms,
        verified_ns=verified_ns,
        head=head,
        meta=meta,
        data_bytes=header.data_bytes,
        flags=header.flags & SIGNED,
    )
