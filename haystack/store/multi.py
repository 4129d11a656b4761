"""Several needles of one volume in one upload: a photo and its renditions, all or nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import msgpack

from haystack.errors import InvalidRequest
from haystack.fid import Fid
from haystack.http.connection import HttpConnection
from haystack.http.pages import respond_json
from haystack.http.request import Request
from haystack.store.answers import PAIR_NAME
from haystack.store.catalog import ServedVolume
from haystack.store.names import clean_name
from haystack.store.photo_types import photo_type
from haystack.store.sinks import BufferedSink
from haystack.store.uploads import HEAD_BYTES
from haystack.store.writes import MAX_PAIRS, Writer, answer, now_ms, requested_ttl
from haystack.ttl import parse_ttl
from haystack.volume.layout import MAX_BATCH_NEEDLES, Flags, NeedleMeta
from haystack.volume.operations import NewNeedle, Put

INLINE_BYTES = 64 * 1024
"""Smaller bodies are unpacked on the event loop."""

_FIELDS = frozenset(("fid", "data", "name", "mime", "pairs", "signed", "ttl"))


class MultiSink(BufferedSink):
    """A msgpack list of maps, each with ``fid`` and ``data``, and optionally what ``_FIELDS`` has."""

    def __init__(self, writer: Writer, connection: HttpConnection, request: Request, served: ServedVolume) -> None:
        super().__init__(connection, served, writer.memory, writer.tally)
        self._writer = writer
        self._ttl_seconds = requested_ttl(request)

    @property
    def max_bytes(self) -> int:
        return self._writer.max_photo_bytes

    async def _store(self) -> None:
        if self._body.size_bytes <= INLINE_BYTES:
            await self._commit(*self._unpack())
            return
        # Unpacking copies the data, which no upload memory is counted for: so a few at a time.
        async with self._writer.unpacking:
            loop = asyncio.get_running_loop()
            await self._commit(*await loop.run_in_executor(self._served.lane.spillers, self._unpack))

    async def _commit(self, fids: list[Fid], needles: list[NewNeedle], names: list[str]) -> None:
        stored = await self._writer.put(self._served, Put(tuple(needles)), self._ended)
        answers = [answer(*one) for one in zip(fids, names, stored, strict=True)]
        respond_json(self._connection, 201, {"needles": answers})

    def _unpack(self) -> tuple[list[Fid], list[NewNeedle], list[str]]:
        raw = b"".join(self._body.data())
        try:
            items = msgpack.unpackb(raw, raw=False, max_array_len=MAX_BATCH_NEEDLES, max_map_len=MAX_PAIRS)
            if not isinstance(items, list):
                raise TypeError(f"it is a {type(items).__name__}")
            moment_ms = now_ms()
            parsed = [self._parse_item(item, moment_ms) for item in items]
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise InvalidRequest(
                f"the body must be a msgpack list of at most {MAX_BATCH_NEEDLES} maps with fid and data, and "
                f"optionally name, mime, signed, ttl and pairs (at most {MAX_PAIRS}): {error or type(error).__name__}"
            ) from error
        return [one[0] for one in parsed], [one[1] for one in parsed], [one[2] for one in parsed]

    def _parse_item(self, item: object, moment_ms: int) -> tuple[Fid, NewNeedle, str]:
        """One needle. Raises TypeError or ValueError, and InvalidFid or InvalidRequest with a message of their own."""
        if not isinstance(item, dict):
            raise TypeError(f"an item is a {type(item).__name__}")
        unknown = [str(name) for name in item.keys() - _FIELDS]
        if unknown:
            raise ValueError(f"an item has an unknown field {unknown[0][:40]!r}")
        fid = Fid.parse(_text(item, "fid"))
        if fid.volume != self._served.number:
            raise InvalidRequest(
                f"{fid} is of another volume than {self._served.number}, to which the request was sent"
            )
        data = item.get("data")
        if not isinstance(data, bytes):
            raise TypeError("data must be bytes")
        name = clean_name(_text(item, "name"))
        kind = photo_type(_text(item, "mime"), name, data[:HEAD_BYTES])
        meta = NeedleMeta(name, kind, _pairs(item.get("pairs", {})))
        ttl_seconds = parse_ttl(_text(item, "ttl")) if "ttl" in item else self._ttl_seconds
        expires = self._writer.expires(fid.key, fid.cookie, ttl_seconds, moment_ms)
        signed = item.get("signed", False)
        if not isinstance(signed, bool):
            raise TypeError("signed must be true or false")
        flags = int(Flags.SIGNED) if signed else 0
        needle = NewNeedle(fid.key, fid.cookie, (data,), moment_ms, fid.alternate, meta.pack(), expires, flags)
        return fid, needle, name


def _text(item: dict[Any, Any], field: str) -> str:
    value = item.get(field, "")
    if not isinstance(value, str):
        raise TypeError(f"{field} must be a text")
    return value


def _pairs(pairs: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(pairs, dict) or not all(isinstance(text, str) for one in pairs.items() for text in one):
        raise TypeError("pairs must be a map of texts to texts")
    for name in pairs:
        if PAIR_NAME.fullmatch(name) is None:
            raise ValueError(f"pair name {name[:40]!r} cannot be a part of a header's name")
    return tuple((name.lower(), value) for name, value in pairs.items())
