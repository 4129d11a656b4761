"""What a primary's supervisor does for its copies: brings them to its own end, and takes on learners.

Workers send what they append. What remains is the rest: after a start, under a new epoch, and when something was
appended that no worker could bring to all copies. Until then nothing waits for it: each acknowledgement is about the
bytes of its own append. But the committed tail, which the Directory is told of, has no holes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from haystack.errors import HaystackError, VolumeUnavailable
from haystack.store.folder import DataFolder
from haystack.store.replication import rules
from haystack.store.replication.catching_up import Place, patience_seconds, send_between
from haystack.store.replication.committed import CommittedTails, raise_base
from haystack.store.replication.copying import Report
from haystack.store.replication.membership import Member
from haystack.store.replication.memberships import Granted, Memberships, NewerEpoch
from haystack.store.replication.peers import PeerFailed, Peers
from haystack.store.replication.rules import LEADING, Next, Verdict
from haystack.store.store_volume import StoreVolume
from haystack.store.volumes import StoreVolumes
from haystack.volume import Volume
from haystack.volume.layout import SUPERBLOCK_BYTES

_log = logging.getLogger(__name__)

CATCH_UP_SECONDS = 600.0
"""Longest time to bring one copy to the end; it is tried again."""

PASSES = 8
"""Times that a learner is sent what was appended meanwhile, before appends have to wait for it."""


class Reached(NamedTuple):
    """How far a copy has come.

    Parameters
    ----------
    problem: why it did not come to the end, empty when it did.
    suspect: the Directory should hear of that.
    """

    problem: str = ""
    suspect: bool = False


class Outgoing:
    """Brings copies up; on the supervisor's event loop, the work on threads of the data folders.

    Parameters
    ----------
    report: has the Directory decide about a copy that fails.
    on_committed: called with a volume of which the Directory can be told more.
    """

    def __init__(
        self,
        volumes: StoreVolumes,
        memberships: Memberships,
        peers: Peers,
        committed: Mapping[DataFolder, CommittedTails],
        report: Callable[[Report], None],
        on_committed: Callable[[StoreVolume], None],
    ) -> None:
        self._volumes = volumes
        self._memberships = memberships
        self._peers = peers
        self._committed = committed
        self._report = report
        self._on_committed = on_committed
        self._busy: set[int] = set()
        self._stuck: dict[int, int] = {}

    # -- bringing up

    async def look(self) -> None:
        """Bring up what stays behind; to be called about once a second."""
        stuck: dict[int, int] = {}
        for entry in self._volumes:
            if entry.membership is None or entry.duty not in LEADING or entry.volume is None:
                continue
            committed = self._volumes.control.committed_tail(entry.slot)
            if entry.stat is not None and committed < entry.stat.size_bytes:
                stuck[entry.id] = committed
        # One that has just been written to is not stuck; one of which nothing is known was never looked at.
        waiting = [
            volume for volume, committed in stuck.items() if not committed or self._stuck.get(volume) == committed
        ]
        self._stuck = stuck
        await asyncio.gather(*(self.bring_up(self._volumes.get(volume)) for volume in waiting))

    async def save(self) -> None:
        """Write down how far all copies are equal."""
        await asyncio.gather(*(tails.save() for tails in self._committed.values()))

    async def bring_up(self, entry: StoreVolume) -> None:
        """Bring all copies to this one's end, and compare what was not known to be equal; failures are reported."""
        membership = entry.membership
        if entry.id in self._busy or membership is None or entry.duty not in LEADING or entry.volume is None:
            return
        self._busy.add(entry.id)
        try:
            await self._committed[entry.folder].load(entry)
            tail = await entry.run(_durable_tail)
            followers = membership.followers(self._memberships.store_id)
            committed = self._volumes.control.committed_tail(entry.slot)
            reached = await asyncio.gather(
                *(self._bring(entry, membership.epoch, one, tail, committed) for one in followers)
            )
            if entry.membership is not membership:
                return  # who was brought up may not be who counts now
            if not any(one.problem for one in reached):
                raise_base(self._volumes, entry, tail)
                self._on_committed(entry)
            self._tell(entry, membership.epoch, dict(zip(followers, reached, strict=True)))
        except HaystackError as error:
            _log.warning("volume %d: its copies cannot be brought up now: %s", entry.id, error)
        finally:
            self._busy.discard(entry.id)

    async def _bring(self, entry: StoreVolume, epoch: int, member: Member, tail: int, equal_to: int) -> Reached:
        generation = entry.require_open().superblock.generation
        place = Place(member.url, entry.id, epoch, self._volumes.control.committed_tail(entry.slot), generation)
        try:
            return await entry.run(_bring, self._peers, place, equal_to, tail)
        except PeerFailed as error:
            return Reached(str(error), True)

    def _tell(self, entry: StoreVolume, epoch: int, reached: Mapping[Member, Reached]) -> None:
        for member, one in reached.items():
            if one.problem:
                _log.warning("volume %d: the copy on %s is not at the end: %s", entry.id, member.url, one.problem)
        suspects = tuple(sorted(member.store_id for member, one in reached.items() if one.suspect))
        if suspects:
            reason = "; ".join(one.problem for one in reached.values() if one.suspect)
            self._report(Report(entry.id, epoch, suspects, reason[:500]))

    # -- learners

    async def admit(self, entry: StoreVolume, epoch: int, member: Member) -> Granted:
        """Take on a copy that has followed: from the answer on, every acknowledgement waits for it.

        Raises NewerEpoch, VolumeUnavailable when it does not come to the end, DiskError, OutOfSpace.
        """
        known = entry.membership
        if known is None or not rules.may_admit(known, self._memberships.store_id, epoch):
            raise NewerEpoch(entry.id, known.epoch if known is not None else entry.epoch)
        for _ in range(PASSES):
            tail = await entry.run(Volume.tail)
            await self._bring_learner(entry, epoch, member, tail)
            if await entry.run(Volume.tail) == tail:
                break
        granted = await self._memberships.add_learner(entry, epoch, member)
        try:
            await self._bring_learner(entry, epoch, member, granted.tail)
        except VolumeUnavailable as error:
            # Everybody waits for it now: only a new epoch takes that back.
            self._report(Report(entry.id, epoch, (member.store_id,), str(error)[:500]))
            raise
        return granted

    async def _bring_learner(self, entry: StoreVolume, epoch: int, member: Member, tail: int) -> None:
        # All that it has was compared when it followed.
        reached = await self._bring(entry, epoch, member, tail, tail)
        if reached.problem:
            raise VolumeUnavailable(f"volume {entry.id}: {member.url} does not come to the end: {reached.problem}")


def _durable_tail(volume: Volume) -> int:
    with volume.index.lock():
        tail = volume.tail()
    volume.sync(tail)
    return tail


def _bring(volume: Volume, peers: Peers, place: Place, equal_to: int, tail: int) -> Reached:
    """Send a copy what it misses, and what is not known to be equal, up to ``tail``. Raises PeerFailed.

    Parameters
    ----------
    equal_to: what the copy has below this is known to be equal.
    """
    began = time.monotonic()
    answer = peers.call(place.url, place.target(tail), [], began + patience_seconds(0))
    if answer.status != 200 and answer.reason != Verdict.GAP.value:
        return _refused(answer.reason)
    if answer.tail is None:
        return Reached("it did not say where it ends", True)
    if rules.judge_answer(volume.tail(), tail, answer.tail) is Next.SUSPECT:
        return Reached(f"it ends at {answer.tail}, behind this one's end", True)
    start = max(SUPERBLOCK_BYTES, min(answer.tail, equal_to))
    sent = send_between(peers, volume, place, start, tail, began + CATCH_UP_SECONDS)
    return Reached() if sent is None or sent.status == 200 else _refused(sent.reason)


def _refused(reason: str) -> Reached:
    """One that was not told yet, or was told more, is no suspect: the Directory is on its way to both."""
    return Reached(reason, reason not in (Verdict.BEHIND.value, Verdict.EPOCH.value))
