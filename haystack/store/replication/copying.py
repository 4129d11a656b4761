"""What a primary's worker appends, on its way to the other copies.

A wave of the committer is sent as a whole: every batch to every copy, each on a connection of its own; then this Store
makes its own bytes durable; then all answers are waited for together. What is known of a batch is kept in a
:class:`Copying`, so that one that could not be decided can be tried again under a later membership.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from haystack.errors import HaystackError, VolumeUnavailable
from haystack.store.control_cells import Counter
from haystack.store.replication import rules
from haystack.store.replication.catching_up import Place, patience_seconds, send_between
from haystack.store.replication.membership import Member
from haystack.store.replication.peers import PeerConnection, PeerFailed, Peers
from haystack.store.replication.rules import Confirmation, Kind, May, Next, Verdict, Waiting
from haystack.store.replication.served import Now
from haystack.store.replication.suspects import Suspects
from haystack.store.replication.wire import Answer
from haystack.volume.commit import Undecided
from haystack.volume.layout import Buffer
from haystack.volume.operations import Outcome, Written

if TYPE_CHECKING:
    from haystack.store.catalog import ServedVolume
    from haystack.store.tally import Tally

MAX_ROUNDS = 4
"""Times that a batch is sent because the membership changed under it, before its clients are told to try again."""


class Report(NamedTuple):
    """What the supervisor, and through it the Directory, is told: who failed. Nobody: what membership is in force?"""

    volume: int
    epoch: int
    suspects: tuple[str, ...]
    reason: str


@dataclass(slots=True, eq=False)
class Copying:
    """One append, and what is known of its copies.

    Parameters
    ----------
    start, end, pieces: what was appended.
    reign: under which it was.
    now: the membership under which it was sent last.
    """

    served: ServedVolume
    start: int
    end: int
    pieces: list[Buffer]
    reign: int
    now: Now
    confirmed: dict[str, Confirmation] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    outdated: bool = False

    def may(self, kind: Kind, me: str) -> May:
        """Whether operations of this kind may be acknowledged under ``now``."""
        if not self.applies:
            return May.NEVER
        waiting = Waiting(kind, self.start, self.end, self.reign)
        return rules.may_acknowledge(self.now.membership, me, self.now.reign, self.confirmed, waiting)

    @property
    def applies(self) -> bool:
        """Whether its offsets mean something under ``now``: they do not after a compaction of all copies."""
        return self.now.membership.suits(self.served.generation)

    def commit(self) -> None:
        """All copies have it."""
        self.served.commit(self.start, self.end)

    def missing(self, me: str) -> list[Member]:
        """Who has not confirmed it under ``now``."""
        membership = self.now.membership
        return [
            member
            for member in membership.followers(me)
            if not rules.has_confirmed(membership, self.confirmed.get(member.store_id), self.start, self.end)
        ]


class Unconfirmed(Undecided):
    """Not all copies have it. A delete may still count when the Directory has decided who has to have it."""

    def __init__(self, copying: Copying) -> None:
        reasons = "; ".join(copying.failed.values()) or "its membership is changing"
        super().__init__(
            f"volume {copying.served.number}: not all copies have it ({reasons}); "
            "get a new fid from /dir/assign, or try a delete again"
        )
        self.copying = copying

    def about(self, outcome: Outcome | None) -> Unconfirmed:
        """The same for one operation."""
        one = Unconfirmed(self.copying)
        one.outcome = outcome
        return one


@dataclass(slots=True, eq=False)
class _Shipment:
    """A batch on its way to one copy."""

    copying: Copying
    member: Member
    connection: PeerConnection
    place: Place
    again: bool
    """It may be that only the connection was dead."""


class Copies:
    """Sends batches; for the threads of the committers of one worker.

    Parameters
    ----------
    me: id of this Store.
    report: tells the supervisor; never blocks.
    """

    def __init__(self, peers: Peers, me: str, tally: Tally, report: Callable[[Report], None]) -> None:
        self.me = me
        self.suspects = Suspects()
        self._peers = peers
        self._tally = tally
        self._report = report

    def begin(self, served: ServedVolume, written: Sequence[Written], reign: int) -> Copying | None:
        """What has to be copied; None when there are no copies. Raises VolumeUnavailable.

        Parameters
        ----------
        reign: under which it was appended.
        """
        now = served.membership.now()
        if now is None or not written:
            return None
        start, pieces = written[0].offset, [piece for one in written for piece in one.pieces]
        end = written[-1].offset + sum(len(piece) for piece in written[-1].pieces)
        if sum(len(piece) for piece in pieces) != end - start:  # another process has appended in between
            pieces = [served.volume.file.pread(end - start, start)]
        return Copying(served, start, end, pieces, reign, now)

    def hopeless(self, now: Now) -> str:
        """Why an upload need not even be appended now; empty when it may be."""
        for member in now.membership.followers(self.me):
            if self.suspects.has(member.url, now.changed_ms):
                return f"Store {member.url} does not answer"
        return ""

    def ship(self, copyings: Iterable[Copying]) -> Shipping:
        """Send to all who have not confirmed; returns when all is on its way."""
        shipping = Shipping(self, time.monotonic())
        for copying in copyings:
            if copying.applies and rules.leads(copying.now.membership, self.me):
                for member in copying.missing(self.me):
                    shipping.add(copying, member)
        shipping.push()
        return shipping

    def decide(self, copying: Copying) -> None:
        """Look what membership is in force now, and send again while that changes.

        Afterwards ``copying.may`` says what is to be done. Raises VolumeUnavailable.
        """
        for _ in range(MAX_ROUNDS):
            now = copying.served.membership.now()
            if now is None:
                raise VolumeUnavailable(f"volume {copying.served.number}: its membership was taken away")
            if now.version == copying.now.version:
                return
            copying.now, copying.failed, copying.outdated = now, {}, False
            self.ship([copying]).finish()

    def retry(self, copying: Copying) -> None:
        """Send once more to those who have not confirmed. Raises VolumeUnavailable."""
        copying.failed, copying.outdated = {}, False
        self.ship([copying]).finish()
        self.decide(copying)

    def report(self, copying: Copying) -> None:
        """Have the Directory decide about those who failed."""
        if copying.failed or copying.outdated:
            self._tally.add(Counter.COPY_FAILURES, max(1, len(copying.failed)))
            reason = "; ".join(copying.failed.values()) or "a copy knows a newer epoch"
            self._report(
                Report(copying.served.number, copying.now.membership.epoch, tuple(sorted(copying.failed)), reason[:500])
            )

    def borrow(self, url: str, deadline: float, *, fresh: bool = False) -> PeerConnection:
        """See ``Peers.borrow``."""
        return self._peers.borrow(url, deadline, fresh=fresh)

    def give_back(self, connection: PeerConnection) -> None:
        """See ``Peers.give_back``."""
        self._peers.give_back(connection)

    def catch_up(self, shipment: _Shipment, tail: int, deadline: float) -> Answer | None:
        """Send what the copy misses before the batch. Raises PeerFailed."""
        volume = shipment.copying.served.volume
        return send_between(self._peers, volume, shipment.place, tail, shipment.copying.start, deadline)

    def count(self, size_bytes: int) -> None:
        """A batch was sent."""
        self._tally.add(Counter.BATCHES_SENT)
        self._tally.add(Counter.BATCH_BYTES_SENT, size_bytes)

    def waited(self, seconds: float) -> None:
        """Answers were waited for."""
        self._tally.add(Counter.COPY_WAIT_MICROSECONDS, int(seconds * 1e6))


class Shipping:
    """The batches of one wave on their way."""

    def __init__(self, copies: Copies, began: float) -> None:
        self._copies = copies
        self._began = began
        self._size_bytes = 0
        self._open: dict[int, _Shipment] = {}

    def add(self, copying: Copying, member: Member) -> None:
        """Begin to send a batch to one copy."""
        if self._copies.suspects.has(member.url, copying.now.changed_ms):
            copying.failed[member.store_id] = f"Store {member.url} did not answer lately"
            return
        membership, served = copying.now.membership, copying.served
        place = Place(member.url, served.number, membership.epoch, served.membership.committed, served.generation)
        self._size_bytes += copying.end - copying.start
        self._begin(copying, member, place, fresh=False)

    def _begin(self, copying: Copying, member: Member, place: Place, *, fresh: bool) -> None:
        connection = None
        try:
            connection = self._copies.borrow(member.url, self._deadline, fresh=fresh)
            shipment = _Shipment(copying, member, connection, place, not connection.fresh)
            self._open[connection.fileno()] = shipment
            connection.begin(place.target(copying.start), copying.pieces)
            self._copies.count(copying.end - copying.start)
        except PeerFailed as error:
            if connection is None:
                self._lost(copying, member, str(error))
            else:
                self._broken(shipment, error)

    def push(self) -> None:
        """Send until all is on its way, so that the others work while this Store syncs."""
        while any(one.connection.sending for one in self._open.values()):
            if not self._poll(lambda one: one.connection.sending):
                return

    def finish(self) -> None:
        """Wait for all answers."""
        began = time.monotonic()
        while self._open and self._poll(lambda one: True):
            pass
        for shipment in list(self._open.values()):
            self._give_up(shipment, f"Store {shipment.member.url} did not answer in time")
        self._copies.waited(time.monotonic() - began)

    @property
    def _deadline(self) -> float:
        return self._began + patience_seconds(self._size_bytes)

    def _poll(self, chosen: Callable[[_Shipment], bool]) -> bool:
        """Go on with those that can; False when the time is over."""
        poll = select.poll()
        for fd, shipment in self._open.items():
            if chosen(shipment):
                poll.register(fd, select.POLLIN | (select.POLLOUT if shipment.connection.sending else 0))
        left_ms = (self._deadline - time.monotonic()) * 1000
        ready = poll.poll(left_ms) if left_ms > 0 else []
        for fd, _ in ready:
            self._go_on(self._open[fd], fd)
        return bool(ready)

    def _go_on(self, shipment: _Shipment, fd: int) -> None:
        try:
            shipment.connection.go_on()
            answer = shipment.connection.take()
        except PeerFailed as error:
            self._broken(shipment, error)
            return
        if answer is None:
            return
        del self._open[fd]
        if answer.status == 401 and shipment.again:
            shipment.connection.close()
            self._begin(shipment.copying, shipment.member, shipment.place, fresh=True)
            return
        self._copies.give_back(shipment.connection)
        self._copies.suspects.clear(shipment.member.url)
        self._answered(shipment, answer)

    def _answered(self, shipment: _Shipment, answer: Answer) -> None:
        copying, member, tail = shipment.copying, shipment.member, answer.tail
        epoch = shipment.place.epoch
        if answer.status == 200 and tail is not None:
            following = rules.judge_answer(copying.served.volume.tail(), copying.end, tail)
            if following is Next.COUNT:
                copying.confirmed[member.store_id] = rules.confirms(epoch, copying.start, copying.end, tail)
                return
        elif answer.reason == Verdict.GAP.value and tail is not None and tail < copying.start:
            self._fill_gap(shipment, tail)
            return
        elif answer.reason == Verdict.EPOCH.value:
            copying.outdated = True
            return
        copying.failed[member.store_id] = f"Store {member.url}: {answer.reason}"

    def _fill_gap(self, shipment: _Shipment, tail: int) -> None:
        copying, member = shipment.copying, shipment.member
        try:
            answer = self._copies.catch_up(shipment, tail, self._deadline)
        except PeerFailed as error:
            self._lost(copying, member, str(error))
            return
        except HaystackError as error:
            copying.failed[member.store_id] = str(error)
            return
        if answer is not None and answer.status != 200:
            copying.failed[member.store_id] = f"Store {member.url}: {answer.reason}"
            return
        self._begin(copying, member, shipment.place, fresh=False)

    def _broken(self, shipment: _Shipment, error: PeerFailed) -> None:
        if shipment.again and time.monotonic() < self._deadline:
            self._forget(shipment)
            self._begin(shipment.copying, shipment.member, shipment.place, fresh=True)
        else:
            self._give_up(shipment, str(error))

    def _give_up(self, shipment: _Shipment, reason: str) -> None:
        self._forget(shipment)
        self._lost(shipment.copying, shipment.member, reason)

    def _forget(self, shipment: _Shipment) -> None:
        for fd, one in list(self._open.items()):
            if one is shipment:
                del self._open[fd]
        shipment.connection.close()

    def _lost(self, copying: Copying, member: Member, reason: str) -> None:
        self._copies.suspects.add(member.url)
        copying.failed[member.store_id] = reason
