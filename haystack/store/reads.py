"""Reads of photos that go through the strict parser: everything that :mod:`haystack.store.fast_reads` leaves.

Locators, names, alternates, ranges, conditions, HEAD of anything; photos that are not in the page cache (read by
another thread, so that a slow disk never stalls the loop) or too large to be verified on the event loop; all errors.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial

from haystack.errors import (
    DamagedNeedle,
    DiskError,
    HaystackError,
    IndexDamaged,
    NeedleNotFound,
    VolumeUnavailable,
    WrongNeedle,
)
from haystack.http.connection import HttpConnection
from haystack.http.handler import DEFERRED, Outcome
from haystack.http.request import Request
from haystack.signed_urls import UrlSigner
from haystack.store.answer_plan import AnswerPlan, PhotoFacts, plan_answer, unsatisfiable
from haystack.store.catalog import Catalog, ServedVolume
from haystack.store.cold_reads import HELD_BYTES, ColdRead, ColdReads, note_problem
from haystack.store.control_cells import Counter, Histogram, VolumeCell
from haystack.store.fast_reads import INLINE_BYTES
from haystack.store.needle_answers import around, enclosed, needle_headers, wants_needle
from haystack.store.read_repair import REPAIRABLE, Range, ReadRepair
from haystack.store.read_threads import thread_buffer
from haystack.store.replication.rules import Duty
from haystack.store.sampling import ReadSampler
from haystack.store.tally import Tally
from haystack.store.targets import Target, not_here
from haystack.volume.index_records import IndexEntry
from haystack.volume.layout import HEADER_BYTES
from haystack.volume.reading import Needle

_log = logging.getLogger(__name__)

Clock = Callable[[], float]

STREAM_BYTES = 8 * 2**20
"""Larger photos are verified by a thread in bounded memory, without being held as a whole."""

SHARED_BYTES = 64 * 1024
"""Photos from this size on that had to be read from disk are sent out of the page cache."""

_UNCERTAIN = (Duty.STALE, Duty.FOLLOWER, Duty.UNTOLD)

MAX_REPORTED = 1024
"""Problems that are remembered as logged, so that a client that asks again and again does not fill the log."""


class Reader:
    """Answers GET and HEAD for needles.

    Parameters
    ----------
    ways: decides which way a photo is read that is not in the page cache.
    repair: asks other copies for what is damaged here.
    signer: checks the signatures of URLs.
    clock: seconds since 1970.
    """

    def __init__(
        self,
        catalog: Catalog,
        tally: Tally,
        sampler: ReadSampler,
        ways: ColdReads,
        repair: ReadRepair,
        signer: UrlSigner,
        *,
        clock: Clock = time.time,
    ) -> None:
        self._catalog = catalog
        self._signer = signer
        self._clock = clock
        self._tally = tally
        self._sampler = sampler
        self._ways = ways
        self._repair = repair
        self._reported: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, connection: HttpConnection, request: Request, target: Target) -> Outcome:
        """Answer at once when the photo is in the page cache, otherwise when it was read.

        Raises NeedleNotFound, VolumeNotFound, VolumeUnavailable, DamagedNeedle, DiskError.
        """
        started = time.perf_counter()
        served = self._catalog.get(target.fid.volume)
        if request.query:
            target = self._with_signature(request, target)
        entry: IndexEntry | None = None
        try:
            entry = served.find(target.fid.key, target.fid.alternate)
            if entry is not None and entry.deleted:
                raise not_here(target.fid)
            needle = self._resident(served, target, entry) if entry is not None else None
        except HaystackError as error:
            self._note(served, error)
            if entry is None or not isinstance(error, REPAIRABLE):
                raise _if_certain(served, error) from None
            return self._answer_from_elsewhere(ColdRead(connection, request, served, target, entry, started), error)
        if needle is None:
            self._tally.add(Counter.COLD_READS)
            cold = ColdRead(connection, request, served, target, entry, started)
            return DEFERRED if self._read_directly(cold) else self._read_by_thread(cold)
        self._count(served, target, self._respond(connection, request, served, needle), started)
        return None

    def _with_signature(self, request: Request, target: Target) -> Target:
        expires, signature = request.query_value("e"), request.query_value("s")
        if expires is None or signature is None:
            return target
        return replace(target, signed_until=self._signer.valid_until(target.fid, expires, signature))

    def _resident(self, served: ServedVolume, target: Target, entry: IndexEntry) -> Needle | None:
        """The needle when it is in the page cache and small enough to be verified on the event loop."""
        if entry.data_bytes > INLINE_BYTES:
            return None
        raw = served.map.view(entry.offset, entry.total_bytes)
        return None if raw is None else _verified(served, target, entry, raw, self._clock)

    def _read_directly(self, cold: ColdRead) -> bool:
        """Have the kernel read it past the page cache, unless that is impossible or it is better kept there."""
        entry, served = cold.entry, cold.served
        if entry is None:
            return False
        direct = self._ways.directly(served, entry.offset, entry.data_bytes, entry.total_bytes)
        if direct is None:
            return False
        served.pin()
        fd = served.volume.file.direct_fd()
        direct.read(fd, entry.offset, entry.total_bytes, partial(self._was_read, cold, entry))
        return True

    def _was_read(self, cold: ColdRead, entry: IndexEntry, raw: memoryview | None, problem: int) -> None:
        served = cold.served
        try:
            needle = None if raw is None else _verified(served, cold.target, entry, raw, self._clock)
        except NeedleNotFound as error:
            served.unpin()
            cold.connection.finish_deferred(_if_certain(served, error))
            return
        except (DamagedNeedle, WrongNeedle):
            needle = None
        if needle is None:
            note_problem(served, problem)
            self.read_again(cold)
            return
        served.unpin()
        self._count(served, cold.target, self._respond(cold.connection, cold.request, served, needle), cold.started)
        cold.connection.finish_deferred()

    def read_again(self, cold: ColdRead) -> None:
        """Read by a thread what could not be read directly, and answer: a thread may wait, and says what is wrong.

        The volume is pinned already, and is unpinned here. ``cold.connection`` has promised an answer.
        """
        task = asyncio.get_running_loop().create_task(self._read_again(cold))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _read_again(self, cold: ColdRead) -> None:
        try:
            await self._read_by_thread(cold)
        except Exception as error:
            cold.connection.finish_deferred(error)
        else:
            cold.connection.finish_deferred()
        finally:
            cold.served.unpin()

    async def _read_by_thread(self, cold: ColdRead) -> None:
        served = cold.served
        served.pin()
        try:
            needle = await served.lane.readers.run(_read, served, cold.target, cold.entry, self._clock)
            needle = _shared(served, needle)
            if len(needle.data) == needle.header.data_bytes:
                sent_bytes = self._respond(cold.connection, cold.request, served, needle)
            else:
                sent_bytes = await self._respond_in_pieces(cold.connection, cold.request, served, needle)
        except HaystackError as error:
            self._note(served, error)
            sent_bytes = await self._read_elsewhere(cold, error)
        finally:
            served.unpin()
        self._count(served, cold.target, sent_bytes, cold.started)

    async def _answer_from_elsewhere(self, cold: ColdRead, problem: HaystackError) -> None:
        self._count(cold.served, cold.target, await self._read_elsewhere(cold, problem), cold.started)

    async def _read_elsewhere(self, cold: ColdRead, problem: HaystackError) -> int:
        """Answer from another copy; returns the bytes of the body. Raises ``problem`` when none can help."""
        served, entry = cold.served, cold.entry
        if entry is None or not isinstance(problem, REPAIRABLE):
            raise _if_certain(served, problem)
        place = Range(entry.offset, entry.total_bytes)
        self._repair.report(served, place)
        if not self._repair.possible(served):
            raise problem
        raw = await self._repair.fetch(served, place, problem)
        needle = _verified(served, cold.target, entry, memoryview(raw), self._clock)
        return self._respond(cold.connection, cold.request, served, needle)

    def _respond(self, connection: HttpConnection, request: Request, served: ServedVolume, needle: Needle) -> int:
        """Answer with a needle that is at hand; returns the bytes of the body."""
        if wants_needle(request.headers):
            before, behind = around(needle, served.volume.seed)
            connection.respond_gathered(200, needle_headers(needle.checksum), (before, needle.data, behind))
            return 0 if connection.head_only else needle.header.total_bytes
        plan = _plan(request, needle, self._clock)
        if plan.status == 416:
            connection.respond_error(416, unsatisfiable(needle.header.data_bytes), plan.headers)
        else:
            connection.respond(plan.status, plan.headers, needle.data[plan.start : plan.end])
        return 0 if connection.head_only else plan.end - plan.start

    async def _respond_in_pieces(
        self, connection: HttpConnection, request: Request, served: ServedVolume, needle: Needle
    ) -> int:
        """Answer with a needle of which only the header is at hand; returns the bytes of the body."""
        first = needle.offset + HEADER_BYTES + needle.header.meta_bytes
        if wants_needle(request.headers):
            before, behind = around(needle, served.volume.seed)
            total_bytes = needle.header.total_bytes
            pieces = enclosed(before, _pieces(served, first, first + needle.header.data_bytes), behind)
            await connection.respond_stream(200, needle_headers(needle.checksum), total_bytes, pieces)
            return 0 if connection.head_only else total_bytes
        plan = _plan(request, needle, self._clock)
        if plan.status in (304, 416):
            return self._respond(connection, request, served, needle)
        pieces = _pieces(served, first + plan.start, first + plan.end)
        await connection.respond_stream(plan.status, plan.headers, plan.end - plan.start, pieces)
        return 0 if connection.head_only else plan.end - plan.start

    def _count(self, served: ServedVolume, target: Target, sent_bytes: int, started: float) -> None:
        seconds = time.perf_counter() - started
        served.reads += 1
        served.bytes_read += sent_bytes
        served.busy_seconds += seconds
        self._tally.add(Counter.BYTES_OUT, sent_bytes)
        self._tally.took(Histogram.READ, seconds)
        self._sampler.count(target.fid.key, target.fid.alternate)

    def _note(self, served: ServedVolume, error: HaystackError) -> None:
        """Count and log what is wrong with the volume, not what is wrong with a request."""
        if isinstance(error, DamagedNeedle | WrongNeedle):
            self._tally.add(Counter.DAMAGED_READS)
        elif isinstance(error, DiskError | IndexDamaged):
            self._tally.add(Counter.DISK_ERRORS)
        else:
            return
        served.count(VolumeCell.ERRORS)
        text = str(error)
        if text not in self._reported:
            if len(self._reported) >= MAX_REPORTED:
                self._reported.clear()
            self._reported.add(text)
            _log.error("volume %d: a read failed: %s", served.number, text)


def _read(served: ServedVolume, target: Target, entry: IndexEntry | None, clock: Clock) -> Needle:
    """Read and verify a photo, on a thread; a large one comes back without its data."""
    fid = target.fid
    if entry is None:
        if target.offset is None:
            raise not_here(target.fid)
        try:
            needle = served.volume.get_at(target.offset, fid.key, fid.cookie, alternate=fid.alternate)
            _require_current(target, needle, clock)
            return needle
        except NeedleNotFound:
            raise not_here(target.fid) from None
    if entry.data_bytes > STREAM_BYTES:
        needle = served.volume.verify(entry)
        _require_named(served, target, entry, needle)
        _require_current(target, needle, clock)
        return needle
    raw = thread_buffer(entry.total_bytes)
    served.volume.file.pread_into(raw, entry.offset)
    needle = _verified(served, target, entry, raw, clock)
    shared = entry.data_bytes >= SHARED_BYTES and served.map.covers(entry.offset + entry.total_bytes)
    if shared or entry.data_bytes > HELD_BYTES:
        return replace(needle, data=memoryview(b""))  # it is in the page cache now, and is sent out of that
    return replace(needle, data=memoryview(bytes(needle.data)))


async def _pieces(served: ServedVolume, start: int, end: int) -> AsyncIterator[bytes]:
    for offset in range(start, end, HELD_BYTES):
        count = min(HELD_BYTES, end - offset)
        yield await served.lane.readers.run(served.volume.file.pread, count, offset)


def _plan(request: Request, needle: Needle, clock: Clock) -> AnswerPlan:
    header = needle.header
    private_until = int(request.query_value("e") or 0) if header.is_signed else 0
    facts = PhotoFacts(
        needle.raw_meta, needle.checksum, header.time_ms, header.expires, header.data_bytes, private_until
    )
    return plan_answer(request, facts, clock())


def _shared(served: ServedVolume, needle: Needle) -> Needle:
    """The needle with its data in the page cache, where a thread has just read it, if it still is there.

    In a buffer of ours, slow clients would hold a whole photo each of our memory.
    """
    if len(needle.data) == needle.header.data_bytes:
        return needle
    data_bytes = needle.header.data_bytes
    view = served.map.view(needle.offset + HEADER_BYTES + needle.header.meta_bytes, data_bytes)
    return needle if view is None else replace(needle, data=view)


def _verified(served: ServedVolume, target: Target, entry: IndexEntry, raw: memoryview, clock: Clock) -> Needle:
    """The needle in these bytes. Raises DamagedNeedle, WrongNeedle, NeedleNotFound (wrong cookie, or expired)."""
    needle = served.volume.parse(entry.offset, raw)
    _require_named(served, target, entry, needle)
    _require_current(target, needle, clock)
    return needle


def _require_named(served: ServedVolume, target: Target, entry: IndexEntry, needle: Needle) -> None:
    fid, header = target.fid, needle.header
    found = (header.key, header.alternate, header.data_bytes, header.meta_bytes)
    if found != (fid.key, fid.alternate, entry.data_bytes, entry.meta_bytes) or header.is_marker:
        problem = f"holds photo {header.key:x}, alternate {header.alternate}; the index says {fid.key:x} or other sizes"
        raise WrongNeedle(served.volume.file.path, needle.offset, problem)
    if header.cookie != fid.cookie:
        raise not_here(target.fid)


def _require_current(target: Target, needle: Needle, clock: Clock) -> None:
    header = needle.header
    if header.expires and header.expired(clock()):
        raise not_here(target.fid)
    if header.is_signed and clock() >= target.signed_until:
        raise not_here(target.fid)


def _if_certain(served: ServedVolume, error: HaystackError) -> HaystackError:
    """The error, unless it says that a photo is not here while this copy may lack photos that others have."""
    if isinstance(error, NeedleNotFound) and served.membership.standing.duty in _UNCERTAIN:
        return VolumeUnavailable(f"volume {served.number} is not up to date here; ask another Store that has it")
    return error
