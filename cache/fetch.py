"""Fetching one photo: from one Store after the other, straight into the memory, verified as a Store verifies it.

The second level, where there is one, is looked into first.

What has come stays when a Store breaks its answer off: the needle is the same at all of them, so the next one's answer
is skipped up to there. The checksum at the end covers what was kept, whoever it is from.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cache import clock
from cache.levels import Levels
from cache.memory import Filling
from cache.needle_taker import NeedleTaker
from cache.new_photo import new_photo
from cache.places import Place, Places
from cache.signatures import own_path
from cache.store_connection import StoreSilent
from cache.upstream import Upstreams
from haystack.errors import HaystackError, NeedleNotFound, TooLarge, VolumeNotFound, VolumeUnavailable
from haystack.fid import Fid
from haystack.signed_urls import UrlSigner
from haystack.volume.layout import NEEDLE_TYPE, NeedleHeader

STREAM_BYTES = 256 * 1024
"""Photos from this size on are sent to clients while they are still being fetched."""

ROOM_PAUSE_SECONDS = 0.01
ROOM_ATTEMPTS = 3
"""How often, and how soon, a photo is asked for again that found no room because all of it was still in use."""

MAX_ROUNDS = 3
"""Fetches of a photo that is deleted or replaced whenever it has come."""


class End(enum.Enum):
    """How a fetch ended."""

    KEPT = enum.auto()
    PASS = enum.auto()
    """Not to be kept: pass it through."""
    GONE = enum.auto()
    """404."""
    FAILED = enum.auto()
    """503."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a fetch came to.

    Parameters
    ----------
    entry, generation: of a photo that is kept.
    here: it was on the second level; whether it may be given out is not looked at yet.
    addresses: of its Stores, when it is to be passed through.
    message: why there is nothing.
    """

    end: End
    entry: int = 0
    generation: int = 0
    here: bool = False
    addresses: tuple[str, ...] = ()
    message: str = ""


class FetchNotes(Protocol):
    """Is told what happens during a fetch."""

    def growing(self, fetch: Fetch) -> None:
        """Its first bytes are there, and it is large enough to be sent while it comes."""

    def grew(self, fetch: Fetch) -> None:
        """More is there, or it has come to its end."""

    def failed_over(self) -> None:
        """A Store did not answer, and another one is asked."""


Admits = Callable[[Place], bool]


class _PassThrough(HaystackError):
    """The photo is not to be kept."""


class _NoRoom(HaystackError):
    """There is no room for the photo now."""


class Fetch:
    """One photo that is being fetched.

    Parameters
    ----------
    signer: signs what Stores are asked for.
    admits: whether what is of a volume is to be kept.
    notes: is told what happens.
    """

    def __init__(
        self,
        fid: Fid,
        places: Places,
        upstreams: Upstreams,
        levels: Levels,
        signer: UrlSigner,
        admits: Admits,
        notes: FetchNotes,
    ) -> None:
        self.fid = fid
        self.filling: Filling | None = None
        self.entry = 0
        """Of the last filling."""
        self.streams = False
        """Whether its bytes are sent while they come."""
        self.told_bytes = 0
        """Up to where those were told who send it on."""
        self.received_bytes = 0
        self.mixed = False
        """What was wrong came from several Stores: the last one may be right."""
        self._places = places
        self._upstreams = upstreams
        self._memory = levels.memory
        self._second = levels.second
        self._signer = signer
        self._admits = admits
        self._notes = notes
        self._tainted = False
        self._doubted = False
        self._began_ns = 0

    def taint(self) -> None:
        """The photo was deleted or replaced meanwhile: what comes is not to be kept, nor given to anybody else."""
        self._tainted = True

    def doubt(self) -> None:
        """Other Stores have the volume now: what comes is good for those who wait, and asked for again after that."""
        self._doubted = True

    async def run(self) -> Result:
        """Fetch it. Never raises a HaystackError."""
        try:
            found = await self._from_second()
            if found is not None:
                return found
            for _ in range(MAX_ROUNDS):
                result = await self._round()
                if result is not None:
                    return result
        except (NeedleNotFound, VolumeNotFound) as error:
            return Result(End.GONE, message=str(error))
        except HaystackError as error:
            return Result(End.FAILED, message=str(error))
        finally:
            self.give_up()
        return Result(End.FAILED, message=f"{self.fid} is replaced all the time")

    async def _from_second(self) -> Result | None:
        """Take it from the second level into memory; None when it is not there, or there is no room."""
        photo = None if self._second is None else await self._second.read(self.fid)
        if self._second is None or photo is None or photo.header.expired(time.time()):
            return None
        located = photo.located
        for _ in range(ROOM_ATTEMPTS):
            verified_ns = 0 if self._doubted else located.verified_ns
            filling = self._memory.begin(
                new_photo(
                    located.volume,
                    photo.header,
                    photo.meta,
                    located.checksum,
                    stored_ms=located.stored_ms,
                    verified_ns=verified_ns,
                )
            )
            if filling is not None:
                filling.write(photo.data)
                self._second.gave(photo)
                return Result(End.KEPT, filling.entry, filling.generation, here=True) if filling.finish() else None
            await asyncio.sleep(ROOM_PAUSE_SECONDS)
            self._memory.reclaim()
            if not self._second.still(located):
                break  # deleted meanwhile, for instance
        return None

    async def _round(self) -> Result | None:
        """Fetch it once; None when it was deleted or replaced meanwhile."""
        self._tainted = self._doubted = False
        self._began_ns = clock.now_ns()
        place = await self._places.locate(self.fid.volume)
        if not self._admits(place):
            return Result(End.PASS, addresses=tuple(self._places.for_reading(place)))
        for attempt in range(ROOM_ATTEMPTS):
            try:
                await self._any(place)
            except _NoRoom:
                if attempt == ROOM_ATTEMPTS - 1 or not self._memory.waiting_bytes:
                    return Result(End.PASS, addresses=tuple(self._places.for_reading(place)))
                await asyncio.sleep(ROOM_PAUSE_SECONDS)
                self._memory.reclaim()
            except (_PassThrough, TooLarge):
                return Result(End.PASS, addresses=tuple(self._places.for_reading(place)))
            else:
                return self._finish()
        raise AssertionError("the last attempt returns")

    async def _any(self, place: Place) -> None:
        """Fetch from one Store after the other. Raises what counts when all of them failed."""
        tried: set[str] = set()
        problem: HaystackError | None = None
        missing: NeedleNotFound | None = None
        while True:
            addresses = [address for address in self._places.for_reading(place) if address not in tried]
            if not addresses:
                if missing is None or problem is not None:
                    break
                newer = await self._places.look_again(place)
                if newer is place or tried.issuperset(newer.addresses):
                    break
                place = newer
                continue
            tried.add(addresses[0])
            try:
                await self._attempt(addresses[0], place.seed)
            except NeedleNotFound as error:
                missing = error
            except (StoreSilent, VolumeUnavailable) as error:
                problem = error
                if self.mixed:
                    self.mixed = False
                    tried.discard(addresses[0])
                self._notes.failed_over()
            else:
                return
        # As long as one cannot be asked, nobody knows that a photo is gone.
        raise problem or missing or VolumeUnavailable(f"volume {self.fid.volume} is on no Store at the moment")

    async def _attempt(self, address: str, seed: int) -> None:
        taker = NeedleTaker(self, address, seed)
        path = own_path(self._signer, self.fid, time.time())
        call = self._upstreams.ask(address, "GET", path, taker, {"Accept": NEEDLE_TYPE})
        try:
            await taker.done
        except StoreSilent:
            self._places.failed(address)
            raise
        finally:
            call.cancel()
        self._places.worked(address)

    def _finish(self) -> Result | None:
        filling = self.filling
        assert filling is not None
        self.filling = None
        if self._tainted:
            filling.dropped = True
        kept = filling.finish()
        if self._second is not None:
            self._second.came(self.fid, filling.photo.checksum)
        if kept and self._doubted:
            self._memory.set_verified(filling.entry, filling.generation, 0)
        if self.streams:
            self._notes.grew(self)
        self.streams = False
        return Result(End.KEPT, filling.entry, filling.generation) if kept else None

    def give_up(self) -> None:
        """Nothing of what has come is to be used."""
        filling, self.filling = self.filling, None
        if filling is not None:
            filling.abandon()
            if self.streams:
                self._notes.grew(self)

    # What the taker asks.

    def begin_filling(self, header: NeedleHeader, meta: bytes, checksum: int) -> Filling:
        """Room for the photo. Raises _NoRoom, _PassThrough, TooLarge."""
        if self.filling is not None:
            photo = self.filling.photo
            if (photo.checksum, photo.meta, photo.data_bytes) != (checksum, meta, header.data_bytes):
                raise StoreSilent("Stores have different needles of one name; what was begun is not gone on with")
            return self.filling
        if header.data_bytes > self._memory.plan.max_photo_bytes:
            raise _PassThrough("too large to be kept")
        stored_ms = time.time_ns() // 1_000_000
        self.filling = self._memory.begin(
            new_photo(self.fid.volume, header, meta, checksum, stored_ms=stored_ms, verified_ns=self._began_ns)
        )
        if self.filling is None:
            raise _NoRoom("no room now")
        self.entry = self.filling.entry
        self.told_bytes = 0
        if header.data_bytes >= STREAM_BYTES:
            self.streams = True
            self._notes.growing(self)
        return self.filling

    def grew(self) -> None:
        """More of the photo is there."""
        if self.streams:
            self._notes.grew(self)
