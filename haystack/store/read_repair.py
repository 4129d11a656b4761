"""Answering a client although our copy of a photo is damaged, from another copy; and telling the supervisor of it.

A worker that meets wrong bytes, or a disk that does not give them, asks the other in-sync copies for the same range of
the volume, one after the other, on a thread. What comes is verified as if it were ours. The copy that is asked gives
bytes as they are, so nobody asks further.
"""

from __future__ import annotations

import asyncio
import http.client
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from haystack.errors import DamagedNeedle, DiskError, HaystackError, VolumeUnavailable
from haystack.security import AUTH_HEADER, sign
from haystack.store.catalog import ServedVolume
from haystack.store.control_cells import Counter, Slot, pack_damaged
from haystack.store.replication.members_file import read_members
from haystack.store.replication.membership import Member
from haystack.store.tally import Tally
from haystack.units import MIB

_log = logging.getLogger(__name__)

THREADS = 2
"""Photos that a worker fetches at the same time."""

MAX_WAITING = 32
"""Requests that may wait for that; others are answered with what is wrong with our copy."""

CALL_BYTES = 64 * MIB
"""Most that one call gives."""

TIMEOUT_SECONDS = 5.0

REPAIRABLE = (DamagedNeedle, DiskError)
"""Errors after which another copy may have what ours has lost."""


@dataclass(frozen=True, slots=True)
class Range:
    """A needle's place in the volume: byte offset and bytes."""

    offset: int
    total_bytes: int


class ReadRepair:
    """Of one worker, on its event loop.

    Parameters
    ----------
    store_id: of this Store, which is not asked.
    secret: of the cluster, None for unsigned calls.
    """

    def __init__(self, tally: Tally, store_id: str, secret: bytes | None) -> None:
        self._tally = tally
        self._store_id = store_id
        self._secret = secret
        self._threads = ThreadPoolExecutor(THREADS, "repair")
        self._waiting = 0
        self._reports = 0

    def report(self, served: ServedVolume, place: Range) -> None:
        """Have the supervisor look at a needle, and mend it."""
        self._reports += 1
        self._tally.set(Counter.DAMAGED, pack_damaged(self._reports, served.slot, place.offset))
        served.control.ring()

    @staticmethod
    def possible(served: ServedVolume) -> bool:
        """Whether there may be another copy to ask."""
        return bool(served.control.cells[served.control.slot_cell(served.slot, Slot.STANDING)])

    async def fetch(self, served: ServedVolume, place: Range, problem: HaystackError) -> bytes:
        """The needle's bytes as another copy has them, verified.

        Parameters
        ----------
        problem: what is wrong with ours; raised when no copy can help.
        """
        if self._waiting >= MAX_WAITING:
            raise problem
        self._waiting += 1
        served.pin()
        try:
            loop = asyncio.get_running_loop()
            raw = await loop.run_in_executor(self._threads, self._fetch_any, served, place)
        finally:
            served.unpin()
            self._waiting -= 1
        if raw is None:
            raise problem
        self._tally.add(Counter.REPAIRED_READS)
        return raw

    def close(self) -> None:
        """Stop the threads."""
        self._threads.shutdown(cancel_futures=True)

    def _fetch_any(self, served: ServedVolume, place: Range) -> bytes | None:
        membership = read_members(Path(served.volume.file.path))
        if membership is None:
            return None
        others = [member for member in membership.in_sync if member.store_id != self._store_id]
        for member in others:
            try:
                raw = fetch_range(member, served.number, place, self._secret, served.generation)
                served.volume.parse(place.offset, raw)
            except (HaystackError, OSError, http.client.HTTPException) as error:
                _log.warning("volume %d: no help from Store %s: %s", served.number, member.admin_url, error)
                continue
            return raw
        return None


def fetch_range(member: Member, volume: int, place: Range, secret: bytes | None, generation: int) -> bytes:
    """Bytes of another copy, below its durable tail. Blocks. Raises VolumeUnavailable, OSError, HTTPException."""
    path = f"/admin/volumes/{volume}/bytes"
    end = place.offset + place.total_bytes
    return b"".join(
        _call(member, f"{path}?from={start}&to={min(start + CALL_BYTES, end)}&generation={generation}", secret)
        for start in range(place.offset, end, CALL_BYTES)
    )


def _call(member: Member, target: str, secret: bytes | None) -> bytes:
    headers = {} if secret is None else {AUTH_HEADER: sign(secret, "GET", target, b"", now=time.time())}
    connection = http.client.HTTPConnection(member.admin_url, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", target, headers=headers)
        answer = connection.getresponse()
        if answer.status != 200:
            raise VolumeUnavailable(f"it answers {answer.status}: {answer.read(300).decode(errors='replace')}")
        return answer.read()
    finally:
        connection.close()
