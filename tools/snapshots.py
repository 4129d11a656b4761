"""Snapshots of the cluster as the Directory tells of them, and fetching its storage: for commands."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import xxhash
from yarl import URL

from haystack.client.errors import UnexpectedAnswer, Unreachable, WrongContent, error_for
from haystack.errors import InvalidRequest
from haystack.json_calls import in_words, read_limited, reason_given, signed_headers
from tools.control import Control
from tools.volume_source import MAX_ERROR_BYTES, SILENT_SECONDS, Extent

PATH = "/cluster/snapshots"
PIECE_BYTES = 1024 * 1024
TAKE_SILENCE_SECONDS = 3600.0
"""How long the Directory may be silent while it takes a snapshot: it copies its storage."""


@dataclass(frozen=True, slots=True)
class SnapshotView:
    """One snapshot.

    Parameters
    ----------
    lost: volumes that were compacted without regard to it.
    volumes: by id; empty in lists.
    """

    name: str
    created_ms: int
    expires_ms: int
    directory_bytes: int
    checksum: str
    volume_count: int
    volume_bytes: int
    lost: tuple[int, ...]
    volumes: Mapping[int, Extent]


def parse_snapshot(document: Mapping[str, Any]) -> SnapshotView:
    """Read one. Raises UnexpectedAnswer."""
    try:
        volumes = {
            int(one["volume"]): Extent(int(one["volume"]), str(one["uuid"]), int(one["generation"]), int(one["end"]))
            for one in document.get("held", ())
        }
        return SnapshotView(
            str(document["name"]),
            int(document["createdMs"]),
            int(document["expiresMs"]),
            int(document["directoryBytes"]),
            str(document.get("checksum", "")),
            int(document["volumes"]),
            int(document["volumeBytes"]),
            tuple(int(volume) for volume in document["lost"]),
            volumes,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UnexpectedAnswer(f"{PATH}: the answer is not understood ({type(error).__name__}: {error})") from error


async def list_snapshots(control: Control) -> list[SnapshotView]:
    """Return all, the oldest first."""
    document = await control.directory("GET", PATH)
    return [parse_snapshot(one) for one in document.get("snapshots", ())]


async def take_snapshot(control: Control, name: str, hold_seconds: int | None = None) -> SnapshotView:
    """Have one taken. Raises as Control does."""
    order = {"name": name} if hold_seconds is None else {"name": name, "holdSeconds": hold_seconds}
    return parse_snapshot(await control.directory("POST", PATH, document=order, signed=True))


async def show_snapshot(control: Control, name: str) -> SnapshotView:
    """Return one with its volumes. Raises InvalidRequest when there is none."""
    return parse_snapshot(await control.directory("GET", _path(name)))


async def delete_snapshot(control: Control, name: str) -> None:
    """Give one up. Raises InvalidRequest when there is none."""
    await control.directory("DELETE", _path(name), signed=True)


async def fetch_storage(
    session: aiohttp.ClientSession, directory_url: str, secret: bytes | None, snapshot: SnapshotView, path: Path
) -> None:
    """Write the Directory's storage of a snapshot into a file, durably, whole or not at all.

    Raises Unreachable, WrongContent, HaystackError as the Directory says, OSError.
    """
    url = URL(f"{directory_url}/internal/snapshots/{quote(snapshot.name)}", encoded=True)
    part = path.with_name(f"{path.name}.part")
    try:
        async with session.get(url, headers=signed_headers(secret, "GET", url, b""), allow_redirects=False) as response:
            if response.status != 200:
                reason = reason_given(await read_limited(response, MAX_ERROR_BYTES), response.status)
                raise error_for(response.status, f"GET {url}: {reason}", not_found=InvalidRequest)
            digest = xxhash.xxh3_64()
            with part.open("wb") as file:
                async for piece in response.content.iter_chunked(PIECE_BYTES):
                    digest.update(piece)
                    await asyncio.to_thread(file.write, piece)
                file.flush()
                await asyncio.to_thread(os.fsync, file.fileno())
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Unreachable(f"GET {url}: {in_words(error, SILENT_SECONDS)}") from error
    if digest.hexdigest() != snapshot.checksum or part.stat().st_size != snapshot.directory_bytes:
        part.unlink()
        raise WrongContent(f"GET {url}: what came is not what the snapshot says; nothing was kept, try again")
    part.rename(path)


def _path(name: str) -> str:
    return f"{PATH}/{quote(name, safe='')}"
