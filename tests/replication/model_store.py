"""A Store of the model: carries bytes between disk and network, and leaves every decision to the real rules.

The rules are looked up in their module at each call, so that a test can take one of them away.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass
from typing import Any

from model_history import UNIT, History
from model_messages import (
    DIRECTORY,
    Admit,
    Answer,
    Batch,
    DeleteCopy,
    Follow,
    PutMembership,
    ReadBytes,
    Report,
    Suspect,
    Write,
)
from model_world import LogFile, Lost, Network, Party

from haystack.store.replication import membership as memberships
from haystack.store.replication import rules
from haystack.store.replication.membership import Membership
from haystack.store.replication.rules import Confirmation, Duty, Kind, Push, Standing, Verdict

BATCH_SECONDS = 1.5
WAIT_SECONDS = 25.0
"""How long a write waits; longer than in earnest, so that it meets more changes of membership."""

LAZY_SECONDS = (0.0, 0.0, 0.0, 0.02, 9.0)
COMMITTED_WRITTEN = 0.1
"""How often the committed tail is written down when it moves."""

GAP_SECONDS = 0.1
HEARTBEAT_SECONDS = 0.5
SYNC_SECONDS = (0.001, 0.03)
RESENDS = 20


@dataclass(slots=True)
class Disk:
    """What a Store keeps over its deaths. ``log`` is None where there is no copy; ``committed`` lags behind."""

    log: LogFile | None = None
    members: Membership | None = None
    committed: int = 0


class ModelStore(Party):
    """One Store, from a start to its death; another object goes on with the same disk.

    Parameters
    ----------
    promised: copies that the volume's superblock promises.
    """

    def __init__(
        self,
        name: str,
        disk: Disk,
        *,
        promised: int,
        uuid: str,
        network: Network,
        history: History,
        dice: random.Random,
        failures: list[BaseException],
    ) -> None:
        super().__init__(name, failures)
        self.disk = disk
        self._promised = promised
        self._uuid = uuid
        self._network = network
        self._history = history
        self._dice = dice
        self._lock = asyncio.Lock()
        self.changed = asyncio.Event()
        self.committed = min(disk.committed, disk.log.tail if disk.log is not None else 0)
        self._acknowledged: dict[int, int] = {}
        self._following: dict[int, str] = {}
        self._reporting: dict[tuple[int, str], asyncio.Task[Membership | None]] = {}
        self._reign = 0
        self._stuck_at = -1
        self._followed_epoch = 0
        self._set_standing()
        network.attach(self)
        self.spawn(self._heartbeats())
        if self.standing.duty in rules.LEADING and disk.members is not None:
            self.spawn(self._bring_all_up())

    async def handle(self, sender: str, message: Any) -> Answer:
        match message:
            case Batch():
                return await self._batch(message)
            case Write():
                return await self._write(message)
            case PutMembership(pushed):
                return await self._put_membership(pushed)
            case Follow():
                return self._follow(message)
            case Admit():
                return await self._admit(message)
            case ReadBytes(start):
                return self._read_bytes(start)
            case DeleteCopy(epoch):
                return await self._delete(epoch)
        raise TypeError(message)

    @property
    def log(self) -> LogFile:
        assert self.disk.log is not None
        return self.disk.log

    # -- memberships

    def _set_standing(self) -> None:
        known = self.disk.members
        epoch = known.epoch if known else 0
        duty = rules.duty_of(
            known, self.name, promised=self._promised, followed=bool(known) and self._followed_epoch == epoch
        )
        before = getattr(self, "standing", Standing(0, Duty.UNTOLD)).duty
        self._reign = rules.next_reign(self._reign, before, duty, epoch)
        self.standing = Standing(epoch, duty)
        self.wake()

    async def _take(self, pushed: Membership) -> Push:
        """Take over a membership if it is newer, durably, while no append is under way."""
        async with self._lock:
            push = rules.supersedes(pushed, self.disk.members)
            if push is Push.TAKE:
                await asyncio.sleep(self._dice.uniform(*SYNC_SECONDS))
                self.disk.members = pushed
                self._set_standing()
                self._history.note(
                    f"{self.name} takes epoch {pushed.epoch} {[one.store_id for one in pushed.in_sync]} led by "
                    f"{pushed.primary}, and is {self.standing.duty.name} with tail {self.disk.log and self.log.tail}"
                )
                if self.standing.duty in rules.LEADING:
                    self.spawn(self._bring_all_up())
        return push

    async def _put_membership(self, pushed: Membership) -> Answer:
        if self.disk.log is None:
            return Answer(404)
        if await self._take(pushed) is Push.OLDER:
            assert self.disk.members is not None
            return Answer(409, epoch=self.disk.members.epoch)
        return Answer(200, epoch=pushed.epoch, tail=self.log.tail if self.disk.log else 0)

    async def _heartbeats(self) -> None:
        while True:
            known, log = self.disk.members, self.disk.log
            report = Report(
                self.name,
                known.epoch if known else 0,
                log.tail if log is not None else None,
                known.primary if known else None,
                known is not None and known.counts(self.name),
                known.copies if known else self._promised,
                tuple(one.store_id for one in known.in_sync) if known else (),
            )
            self.spawn(self._report(report))
            await asyncio.sleep(HEARTBEAT_SECONDS)
            self._close_holes()

    def _close_holes(self) -> None:
        """Send again what was never confirmed by all, when the committed tail does not come past it by itself."""
        if self.disk.log is not None and self.standing.duty in rules.LEADING and self.committed < self.log.tail:
            if self.committed == self._stuck_at:
                self.spawn(self._bring_all_up())
            self._stuck_at = self.committed

    async def _report(self, report: Report) -> None:
        with contextlib.suppress(Lost):  # the next one says the same
            await self._network.call(self.name, DIRECTORY, report, 2.0)

    # -- writing as the primary

    async def _write(self, write: Write) -> Answer:
        async with self._lock:
            if self.disk.log is None or not rules.may_append(self.standing, write.kind):
                return Answer(503, f"{self.name} is {self.standing.duty.name}")
            if write.kind is Kind.UPLOAD and not self._history.first_upload(write.key):
                return Answer(409, "a request that came twice: no client repeats one under the same name")
            start = self.log.tail
            needle = UNIT.pack(write.key, int(write.kind is Kind.DELETE), self._dice.getrandbits(64))
            self.log.append(needle)
            waiting = rules.Waiting(write.kind, start, self.log.tail, self._reign)
        copies = Copies(self, waiting)
        copies.send()
        await durable_here(self.log, self._dice.uniform(*SYNC_SECONDS))
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                return await self._acknowledge(waiting, copies, needle)
        except TimeoutError:
            return Answer(503, "no answer in time")

    async def _acknowledge(self, waiting: rules.Waiting, copies: Copies, needle: bytes) -> Answer:
        while True:
            now = self.disk.members
            if now is None:
                return Answer(503, "the copy is gone")
            may = rules.may_acknowledge(now, self.name, self._reign, copies.confirmed, waiting)
            if may is rules.May.YES:
                self._history.acknowledge(self.name, now.epoch, waiting.start, needle)
                self._commit(waiting.start, waiting.end)
                return Answer(201)
            if may is rules.May.NEVER:
                return Answer(503, "not under this membership")
            copies.send()
            await self.changed.wait()
            # Nobody promises that a thread sees every membership: it may sleep over several.
            await asyncio.sleep(self._dice.choice(LAZY_SECONDS))

    def _commit(self, start: int, end: int) -> None:
        """All copies have these bytes: move the committed tail as far as there is no hole."""
        self._acknowledged[start] = end
        while self.committed in self._acknowledged:
            self.committed = rules.committed_by(self.committed, self.committed, self._acknowledged.pop(self.committed))
        if self._dice.random() < COMMITTED_WRITTEN:
            self.disk.committed = self.committed

    async def send(self, store: str, epoch: int, start: int, end: int) -> Confirmation | None:
        """Send a follower bytes of the volume. Returns what it confirms; if nothing, it was reported."""
        for _ in range(RESENDS):
            if self.standing.epoch != epoch or self.standing.duty not in rules.LEADING or self.disk.log is None:
                return None
            batch = Batch(epoch, start, bytes(self.log.content[start:end]), self.committed)
            try:
                answer: Answer = await self._network.call(self.name, store, batch, BATCH_SECONDS)
            except Lost:
                self._suspect(store, epoch)
                return None
            if self.standing.epoch != epoch or self.disk.log is None:
                return None
            if answer.status == 200 or answer.reason == "gap":
                judged = rules.judge_answer(self.log.tail, end, answer.tail)
                if answer.status == 200 and judged is rules.Next.COUNT:
                    self.wake()
                    return rules.confirms(epoch, start, end, answer.tail)
                if judged is rules.Next.SUSPECT:
                    self._suspect(store, epoch)
                    return None
                start = min(answer.tail, start)
            elif answer.reason == "behind":
                await asyncio.sleep(GAP_SECONDS)
            elif answer.reason == "epoch":
                self._suspect(None, epoch)
                return None
            else:
                self._suspect(store, epoch)
                return None
        self._suspect(store, epoch)
        return None

    async def _bring_all_up(self) -> None:
        """Under a new epoch, or after a start: send what is not sure to be equal everywhere."""
        known = self.disk.members
        if known is None or self.disk.log is None:
            return
        start, end, reign = min(self.committed, self.log.tail), self.log.tail, self._reign
        sends = [self.send(one.store_id, known.epoch, start, end) for one in known.followers(self.name)]
        confirmed = await asyncio.gather(*sends)
        if None not in confirmed and self.standing.epoch == known.epoch and self._reign == reign:
            self._commit(start, end)

    def wake(self) -> None:
        """Let all who wait look again."""
        self.changed.set()
        self.changed = asyncio.Event()

    def _suspect(self, store: str | None, epoch: int) -> None:
        """Report a follower to the Directory, or ask for the membership in force."""
        key = (epoch, store or "")
        if key not in self._reporting or self._reporting[key].done():
            suspects = (store,) if store else ()
            self._reporting[key] = self.spawn(self._ask_directory(Suspect(self.name, epoch, suspects)))

    async def _ask_directory(self, message: Suspect) -> None:
        try:
            answer: Answer = await self._network.call(self.name, DIRECTORY, message, BATCH_SECONDS)
        except Lost:
            return
        if answer.membership is not None:
            await self._take(answer.membership)

    # -- as a replica

    async def _batch(self, batch: Batch) -> Answer:
        deadline = asyncio.get_running_loop().time() + GAP_SECONDS
        while True:
            async with self._lock:
                if self.disk.log is None:
                    return Answer(409, "epoch", epoch=self.standing.epoch)
                end = batch.start + len(batch.data)
                judged = rules.judge_batch(self.standing, self.log.tail, batch.epoch, batch.start, end)
                verdict = judged.verdict
                if verdict is Verdict.APPEND:
                    mine = bytes(self.log.content[batch.start : judged.shared_to])
                    verdict = rules.judge_overlap(mine, batch.data[: judged.shared_to - batch.start])
                if verdict is Verdict.APPEND:
                    self.log.append(batch.data[judged.shared_to - batch.start :])
                    self.committed = max(self.committed, min(batch.committed, end))
                tail = self.log.tail
            if verdict is not Verdict.GAP or asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(GAP_SECONDS / 4)
        if verdict is not Verdict.APPEND:
            return Answer(409, verdict.value, tail=tail, epoch=self.standing.epoch)
        await durable_there(self.log, self._dice.uniform(*SYNC_SECONDS))
        return Answer(200, tail=tail)

    def _read_bytes(self, start: int) -> Answer:
        if self.disk.log is None:
            return Answer(404)
        return Answer(200, tail=self.log.durable, data=bytes(self.log.content[start : self.log.durable]))

    # -- following, and the end of a copy

    def _follow(self, order: Follow) -> Answer:
        """Begin to follow, or tell how far it is."""
        state = self._following.get(order.epoch, "")
        if state == "done" and self._followed_epoch != order.epoch:
            state = ""
        if state in ("", "failed"):
            if not rules.may_follow(self.disk.members, self.name, order.epoch):
                return Answer(409, epoch=self.standing.epoch)
            self._following[order.epoch] = "running"
            self.spawn(self._run_follow(order))
            state = "running"
        return Answer(202, state)

    async def _run_follow(self, order: Follow) -> None:
        state = "failed"
        try:
            if await self._followed(order):
                state = "done"
        except Lost:
            pass
        self._following[order.epoch] = state

    async def _followed(self, order: Follow) -> bool:
        source = order.source.store_id
        async with self._lock:
            known = self.disk.members
            if not rules.may_follow(known, self.name, order.epoch):
                return False
            self.committed, self.disk.committed = 0, 0
            if known is None or known.epoch != order.epoch:
                await asyncio.sleep(self._dice.uniform(*SYNC_SECONDS))
                self.disk.members = memberships.following(self._uuid, order.epoch, order.source, order.copies)
            self._followed_epoch = 0
            self._set_standing()
        answer: Answer = await self._network.call(self.name, source, ReadBytes(0), BATCH_SECONDS)
        if answer.status != 200:
            return False
        async with self._lock:
            # Time has passed: what the Directory has said meanwhile comes first.
            if not rules.may_follow(self.disk.members, self.name, order.epoch):
                return False
            log = self.disk.log or LogFile(UNIT.size)
            shared = shared_bytes(log.content, answer.data)
            self._history.note(f"{self.name} follows {source}: cuts {log.tail} to {shared}, has {len(answer.data)}")
            log.truncate(shared)
            log.append(answer.data[shared:])
            await log.sync(self._dice.uniform(*SYNC_SECONDS))
            self.disk.log = log
            self._followed_epoch = order.epoch
            self._set_standing()
            self._history.check()
        return True

    async def _admit(self, order: Admit) -> Answer:
        if self.disk.log is None or not rules.may_admit(self.disk.members, self.name, order.epoch):
            return Answer(409, epoch=self.standing.epoch)
        if not await self.send(order.member.store_id, order.epoch, self.log.tail, self.log.tail):
            return Answer(503)
        async with self._lock:
            known = self.disk.members
            if known is None or not rules.may_admit(known, self.name, order.epoch):
                return Answer(409, epoch=self.standing.epoch)
            await asyncio.sleep(self._dice.uniform(*SYNC_SECONDS))
            self.disk.members = known.with_learner(order.member)
            tail = self.log.tail
        if not await self.send(order.member.store_id, order.epoch, min(self.committed, tail), tail):
            return Answer(503)
        return Answer(200, epoch=order.epoch, tail=tail)

    async def _delete(self, epoch: int) -> Answer:
        async with self._lock:
            if self.disk.log is None:
                return Answer(404)
            if not rules.may_delete(self.disk.members, self.name, epoch, 1):
                return Answer(409, epoch=self.standing.epoch)
            self._history.note(f"{self.name} deletes its copy under epoch {epoch}")
            self.disk.log, self.disk.members = None, None
            self._set_standing()
            self._history.check()
        return Answer(200)


class Copies:
    """The copies of one append: sent to every follower under each membership, until all have confirmed it.

    Parameters
    ----------
    store: the primary.
    """

    def __init__(self, store: ModelStore, waiting: rules.Waiting) -> None:
        self.confirmed: dict[str, Confirmation] = {}
        self._store = store
        self._waiting = waiting
        self._sent: set[tuple[str, int]] = set()

    def send(self) -> None:
        """Send it to those who have not got it under the membership in force."""
        known = self._store.disk.members
        if known is None or self._store.standing.duty not in rules.LEADING:
            return
        for one in known.followers(self._store.name):
            if (one.store_id, known.epoch) not in self._sent:
                self._sent.add((one.store_id, known.epoch))
                self._store.spawn(self._send_to(one.store_id, known.epoch))

    async def _send_to(self, store: str, epoch: int) -> None:
        confirmation = await self._store.send(store, epoch, self._waiting.start, self._waiting.end)
        if confirmation is not None:
            self.confirmed[store] = confirmation
            self._store.wake()


async def durable_here(log: LogFile, seconds: float) -> None:
    """A primary makes an append durable before it asks whether it may acknowledge it."""
    await log.sync(seconds)


async def durable_there(log: LogFile, seconds: float) -> None:
    """A replica makes a batch durable before it answers."""
    await log.sync(seconds)


def shared_bytes(mine: bytes | bytearray, theirs: bytes) -> int:
    """Return how many bytes from the start are equal, in whole needles."""
    size = UNIT.size
    shared = 0
    while shared < min(len(mine), len(theirs)) and mine[shared : shared + size] == theirs[shared : shared + size]:
        shared += size
    return shared
