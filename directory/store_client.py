"""Calls of the Directory to the admin API of Stores."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import aiohttp
from yarl import URL

from directory.messages import StoreDocument, VolumeDocument, parse_json, parse_volume
from directory.settings import GROW_TIMEOUT_SECONDS
from directory.tables import VolumeRecord
from haystack.errors import HaystackError, InvalidRequest, VolumeUnavailable
from haystack.internal_http import signed_headers

MAX_ANSWER_BYTES = 1024 * 1024
MAX_ERROR_CHARS = 500


class StoreClient:
    """Signed calls to Stores. Make it inside the event loop, end it with :meth:`close`.

    Parameters
    ----------
    secret: the cluster's secret; None sends unsigned calls.
    wall_clock: unix seconds, for the signatures.
    """

    def __init__(self, secret: bytes | None, wall_clock: Callable[[], float] = time.time) -> None:
        self._secret = secret
        self._wall_clock = wall_clock
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=GROW_TIMEOUT_SECONDS))

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def make_volume(self, store: StoreDocument, folder: str, record: VolumeRecord) -> VolumeDocument:
        """Have a volume made, and return it as the Store describes it.

        Raises
        ------
        VolumeUnavailable: the Store did not make it, cannot be reached, or answered something else.
        """
        answer = await self._post(
            store,
            "/admin/volumes",
            {
                "volume": record.volume,
                "uuid": record.uuid,
                "replication": record.replication,
                "createdMs": record.created_ms,
                "epoch": record.epoch,
                "maxBytes": record.max_bytes,
                "folder": folder,
            },
        )
        try:
            document = parse_volume(answer)
        except InvalidRequest as error:
            raise VolumeUnavailable(f"Store {store.url} answered strangely: {error}") from error
        if (document.volume, document.uuid) != (record.volume, record.uuid):
            raise VolumeUnavailable(
                f"Store {store.url} was to make volume {record.volume} ({record.uuid}), and answered with "
                f"{document.volume} ({document.uuid})"
            )
        return document

    async def _post(self, store: StoreDocument, path: str, document: dict[str, Any]) -> Any:
        body = json.dumps(document).encode()
        url = f"http://{store.admin_url}{path}"
        signature = signed_headers(self._secret, "POST", URL(url), body, now=self._wall_clock)
        headers = {"Content-Type": "application/json", **signature}
        try:
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as response:
                answer = await _read(response)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise VolumeUnavailable(f"Store {store.url} cannot be reached at {url}: {_in_words(error)}") from error
        if response.status not in (200, 201):
            raise VolumeUnavailable(f"Store {store.url} refused with {response.status}: {_error_of(answer)}")
        try:
            return parse_json(answer, url)
        except InvalidRequest as error:
            raise VolumeUnavailable(str(error)) from error


async def _read(response: aiohttp.ClientResponse) -> bytes:
    answer = bytearray()
    async for chunk in response.content.iter_any():
        answer += chunk
        if len(answer) > MAX_ANSWER_BYTES:
            raise aiohttp.ClientPayloadError(f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
    return bytes(answer)


def _in_words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {GROW_TIMEOUT_SECONDS:g} s"
    return str(error) or type(error).__name__


def _error_of(answer: bytes) -> str:
    try:
        text = str(parse_json(answer, "answer")["error"])
    except (HaystackError, KeyError, TypeError):
        text = answer.decode("utf-8", "replace")  # not our JSON: what it says is still the best explanation
    return text[:MAX_ERROR_CHARS]
