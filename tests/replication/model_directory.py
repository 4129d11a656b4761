"""The Directory of the model: remembers one volume, hears Stores, and leaves its decisions to the real ones."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from model_history import History
from model_messages import (
    DIRECTORY,
    Admit,
    Answer,
    DeleteCopy,
    Follow,
    PutMembership,
    Report,
    Suspect,
    member_of,
)
from model_world import Lost, Network, Party

from directory.decisions import failure, liveness, repair, repair_facts
from directory.decisions import membership as admission
from directory.decisions.liveness import Liveness
from directory.decisions.repair_views import Action, CopyView, Rules, Snapshot, Step, StoreView, VolumeView
from directory.decisions.replication import Site
from directory.decisions.spaces import FolderSpace
from directory.messages import VolumeDocument
from directory.storage.tables import VolumeRecord
from haystack.store.replication.membership import Membership

DEAD_AFTER_SECONDS = 3.0
TICK_SECONDS = 0.25
REPAIR_RULES = Rules(delay_seconds=5.0, copies=4, copies_per_store=2)
FOLDER = "folder"
PUSH_SECONDS = 1.0
FOLLOW_POLL_SECONDS = 0.1
FOLLOW_SECONDS = 10.0
ADMIT_SECONDS = 6.0
WRITE_SECONDS = 0.002


@dataclass(slots=True)
class DirectoryDisk:
    """What the Directory keeps over its deaths."""

    record: VolumeRecord


@dataclass(frozen=True, slots=True)
class Where:
    """A client's question: who leads the volume?"""


class ModelDirectory(Party):
    """One Directory, from a start to its death."""

    def __init__(
        self,
        disk: DirectoryDisk,
        stores: tuple[str, ...],
        *,
        network: Network,
        history: History,
        failures: list[BaseException],
    ) -> None:
        super().__init__(DIRECTORY, failures)
        self.disk = disk
        self._stores = stores
        self._network = network
        self._history = history
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._seen: dict[str, float] = {}
        self._reports: dict[str, Report] = {}
        self._pushing: dict[str, asyncio.Task[None]] = {}
        self._known_epochs: dict[str, int] = {}
        self._jobs: dict[Step, asyncio.Task[None]] = {}
        network.attach(self)
        self.spawn(self._ticks())

    @property
    def record(self) -> VolumeRecord:
        return self.disk.record

    async def handle(self, sender: str, message: object) -> object:
        match message:
            case Report():
                self._hear(message)
                return Answer(200)
            case Suspect():
                return await self._suspected(message)
            case Where():
                return self.record.primary
        raise TypeError(message)

    # -- records

    def _write(self, record: VolumeRecord, why: str) -> None:
        """Write a record down, and tell the Stores of it."""
        old, self.disk.record = self.record, record
        if record.epoch != old.epoch:
            self._history.note(
                f"the Directory grants epoch {record.epoch}: {list(record.in_sync)} led by {record.primary}, "
                f"members {list(record.members)} ({why})"
            )
            self._history.check()
            losers = [store for store in old.in_sync if store not in record.in_sync or store == old.primary]
            for store in (*losers, *(store for store in record.members if store not in losers)):
                self._push(store)

    def _membership(self) -> Membership:
        record = self.record
        return Membership(
            record.uuid,
            record.epoch,
            record.primary,
            record.promised,
            tuple(member_of(store) for store in record.in_sync),
        )

    def _push(self, store: str) -> None:
        if store not in self._pushing or self._pushing[store].done():
            self._pushing[store] = self.spawn(self._push_until_known(store))

    async def _push_until_known(self, store: str) -> None:
        while self._known_epochs.get(store) != self.record.epoch and self._alive(store):
            pushed = self._membership()
            try:
                answer: Answer = await self._network.call(DIRECTORY, store, PutMembership(pushed), PUSH_SECONDS)
            except Lost:
                continue
            if answer.status == 200:
                self._known_epochs[store] = pushed.epoch
            elif answer.status == 409 and pushed.epoch == self.record.epoch:
                self._write(failure.raised(self.record, answer.epoch), f"{store} knows epoch {answer.epoch}")
            elif answer.status == 404:
                if store in self.record.in_sync:
                    self._without({store}, f"{store} has no copy")
                return

    # -- what is heard

    def _hear(self, report: Report) -> None:
        now = self._loop.time()
        self._seen[report.store], self._reports[report.store] = now, report
        if report.tail is None:
            if report.store in self.record.in_sync:
                self._without({report.store}, f"{report.store} has lost its copy")
            return
        verdict = admission.admit(
            self.record, self._document(report), report.store, abandoned=False, now_ms=int(now * 1000)
        )
        if verdict.record.epoch != self.record.epoch or verdict.record.members != self.record.members:
            self._write(verdict.record, f"report of {report.store}")
        if report.epoch != self.record.epoch:
            self._known_epochs.pop(report.store, None)
            self._push(report.store)

    def _document(self, report: Report) -> VolumeDocument:
        return VolumeDocument(
            volume=1,
            uuid=self.record.uuid,
            generation=0,
            epoch=report.epoch,
            folder="",
            state="writable",
            reason="",
            size_bytes=report.tail or 0,
            max_bytes=2**30,
            live_count=0,
            live_bytes=0,
            deleted_count=0,
            deleted_bytes=0,
            max_key=0,
            reads=0,
            writes=0,
            replication=self.record.replication,
            last_append_ms=0,
            primary=report.primary,
            in_sync=report.in_sync,
            stale=not report.counts,
        )

    async def _suspected(self, message: Suspect) -> Answer:
        now_ms = int(self._loop.time() * 1000)
        if message.suspects:
            changed = failure.suspected(self.record, message.store, message.epoch, set(message.suspects), now_ms)
            if changed != self.record:
                self._write(changed, f"{message.store} suspects {list(message.suspects)}")
        await asyncio.sleep(WRITE_SECONDS)
        return Answer(200, membership=self._membership())

    def _without(self, lost: set[str], why: str) -> None:
        tails = {store: report.tail or 0 for store, report in self._reports.items()}
        changed = failure.without(
            self.record, lost, ready=self._alive, tails=tails, led={}, now_ms=int(self._loop.time() * 1000)
        )
        if changed != self.record:
            self._write(changed, why)

    def _alive(self, store: str) -> bool:
        return self._liveness(store) is Liveness.ALIVE

    # -- healing

    async def _ticks(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            if self._loop.time() - self._started <= DEAD_AFTER_SECONDS:
                continue
            silent = {store for store in self.record.in_sync if not self._alive(store)}
            if silent:
                self._without(silent, f"silent: {sorted(silent)}")
            self._heal()

    def _heal(self) -> None:
        for step in repair.plan_repair(self._snapshot(), REPAIR_RULES).steps:
            match step.action:
                case Action.REJOIN | Action.COPY:
                    work = self._take_in(step.target)
                case Action.GIVE_UP:
                    work = self._give_up(step.target)
                case Action.DELETE:
                    work = self._remove(step.target)
                case Action.FORGET:
                    work = self._forget(step.target)
            self._jobs[step] = self.spawn(work)

    def _snapshot(self) -> Snapshot:
        now = self._loop.time()
        settled = now - self._started > DEAD_AFTER_SECONDS
        copies = {
            store: CopyView(report.tail, FOLDER)
            for store, report in self._reports.items()
            if report.tail is not None and store in self.record.members
        }
        stores = {
            store: StoreView(Site(store, "dc", "rack"), f"{store}:1", self._liveness(store)) for store in self._stores
        }
        return Snapshot(
            volumes=[VolumeView(self.record, copies)],
            stores=stores,
            spaces=[self._space(store) for store in self._stores],
            settled=settled,
            now_ms=int(now * 1000),
            running=[step for step, job in self._jobs.items() if not job.done()],
        )

    def _liveness(self, store: str) -> Liveness:
        return liveness.judge(self._seen.get(store), self._started, self._loop.time(), DEAD_AFTER_SECONDS)

    def _space(self, store: str) -> FolderSpace:
        return FolderSpace(
            store,
            f"{store}:1",
            "dc",
            "rack",
            FOLDER,
            "/data",
            alive=self._alive(store),
            state="ok",
            free_bytes=2**40,
            total_bytes=2**40,
            volumes=0,
            writable=0,
        )

    async def _take_in(self, store: str) -> None:
        """Let a stale or a new copy follow the primary, be admitted by it, and count."""
        record = self.record
        source, epoch = member_of(record.primary), record.epoch
        try:
            async with asyncio.timeout(FOLLOW_SECONDS):
                state = "running"
                while state == "running":
                    order = Follow(epoch, source, record.promised)
                    answer: Answer = await self._network.call(DIRECTORY, store, order, PUSH_SECONDS)
                    state = answer.reason if answer.status == 202 else "failed"
                    await asyncio.sleep(FOLLOW_POLL_SECONDS)
        except (Lost, TimeoutError):
            return
        if state != "done" or self.record.epoch != epoch:
            return
        if store not in self.record.members:
            self._write(replace(self.record, members=(*self.record.members, store)), f"{store} has a copy")
        try:
            answer = await self._network.call(DIRECTORY, record.primary, Admit(epoch, member_of(store)), ADMIT_SECONDS)
        except Lost:
            return
        if is_admitted(answer) and self.record.epoch == epoch:
            gone = [member for member in self.record.members if not self._alive(member)]
            changed = failure.admitted(self.record, store, gone=gone, now_ms=int(self._loop.time() * 1000))
            self._write(changed, f"{store} is admitted")

    async def _give_up(self, store: str) -> None:
        """Let a copy not count any more."""
        sites = {one: Site(one, "dc", "rack") for one in self._stores}
        alive = [one for one in self._stores if self._alive(one)]
        if repair_facts.may_give_up(self.record, store, sites, alive):
            now_ms = int(self._loop.time() * 1000)
            changed = failure.given_up(self.record, store, tails={}, led={}, now_ms=now_ms)
            self._write(changed, f"{store} is one too many")

    async def _forget(self, store: str) -> None:
        self._write(failure.forgotten(self.record, store), f"{store} is forgotten")

    async def _remove(self, store: str) -> None:
        """Delete a copy that is not needed, and forget it."""
        try:
            answer: Answer = await self._network.call(DIRECTORY, store, DeleteCopy(self.record.epoch), PUSH_SECONDS)
        except Lost:
            return
        if answer.status in (200, 404):
            self._write(failure.forgotten(self.record, store), f"{store} has given up its copy")


def is_admitted(answer: Answer) -> bool:
    """A copy counts only after the primary has promised to wait for it, and has sent it all it lacked."""
    return answer.status == 200
