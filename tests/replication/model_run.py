"""One run of the model: a seed decides who dies, what is lost, and when; at the end all must be well again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace

from model_directory import DirectoryDisk, ModelDirectory, Where
from model_history import UNIT, Copy, History, Violated
from model_messages import DIRECTORY, Admit, Answer, Batch, DeleteCopy, Follow, PutMembership, Write
from model_store import Disk, ModelStore
from model_world import CALM, LogFile, Lost, Network, Weather, simulate

from directory.decisions.failure import tidy
from directory.storage.tables import VolumeRecord
from haystack.store.replication.rules import Kind

UUID = "00000000-0000-4000-8000-000000000001"
CLIENTS = 5
WRITE_PATIENCE_SECONDS = 5.0
REST_SECONDS = 90.0
POLL_SECONDS = 0.5
FIRST_EPOCH = 2
SHOWN_LINES = 60

MIXED = (
    *("store", "store", "blink", "cut", "cut", "heal", "heal", "weather", "hold", "release", "release"),
    *("directory", "calm", "calm", "calm"),
)
"""What may happen next; everything as likely as it is often here."""

LATE = (
    *("stray order",) * 6,
    *("stray batch",) * 3,
    "late",
    "late",
    "store",
    "store",
    "calm",
    "calm",
    "directory",
    "blink",
    "cut",
)
"""Old orders and batches arrive when the world has moved on."""

ISOLATED = ("isolate", "isolate", "store", "store", "calm but isolated", "calm but isolated", "calm")
"""Primaries that hear clients and replicas, but not the Directory."""

CRASHES = ("blink", "blink", "blink", "blink lead", "blink lead", "store", "calm", "calm", "weather")
"""Machines that lose what they had not synced, and are back before anybody has noticed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What kind of run it is.

    Parameters
    ----------
    chaos_seconds: virtual time in which things go wrong.
    astray: share of the clients' requests that go to any Store.
    events: what may happen, each as likely as it is often there.
    """

    seed: int
    stores: int = 4
    replication: str = "002"
    chaos_seconds: float = 45.0
    client_pause_seconds: float = 0.06
    astray: float = 0.1
    events: tuple[str, ...] = ()

    @property
    def promised(self) -> int:
        return 1 + sum(int(digit) for digit in self.replication)


@dataclass(slots=True)
class Outcome:
    """What a run came to."""

    plan: Plan
    history: History
    faults: int = 0
    problem: str = ""

    def told(self) -> str:
        """Return the problem with the end of the history, to be replayed by its seed."""
        lines = self.history.log[-SHOWN_LINES:]
        return f"{self.plan}: {self.problem}\n" + "\n".join(lines)


class Run:
    """The parties of one run, and what happens to them."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.dice = random.Random(plan.seed)
        self.network = Network(self.dice)
        self.failures: list[BaseException] = []
        self.names = tuple(f"store{number}" for number in range(1, plan.stores + 1))
        first = self.names[: plan.promised]
        self.disks = {name: Disk(LogFile(UNIT.size) if name in first else None) for name in self.names}
        record = VolumeRecord(
            1, UUID, plan.replication, FIRST_EPOCH, first[0], first, "writable", 0, None, members=first
        )
        self.directory_disk = DirectoryDisk(tidy(record, 0))
        self.stores: dict[str, ModelStore] = {}
        self.directory: ModelDirectory | None = None
        loop = asyncio.get_running_loop()
        self.history = History(self._counted, self._all_copies, loop.time, plan.promised)
        self.outcome = Outcome(plan, self.history)
        self.acknowledged: list[int] = []
        self._next_key = 0

    def _counted(self) -> Iterable[Copy]:
        return [Copy(name, self.disks[name].log) for name in self.directory_disk.record.in_sync]

    def _all_copies(self) -> Iterable[Copy]:
        return [Copy(name, disk.log) for name, disk in self.disks.items()]

    # -- life and death

    def start_store(self, name: str) -> None:
        self.stores[name] = ModelStore(
            name,
            self.disks[name],
            promised=self.plan.promised,
            uuid=UUID,
            network=self.network,
            history=self.history,
            dice=self.dice,
            failures=self.failures,
        )

    def kill_store(self, name: str, *, machine: bool) -> None:
        self.history.note(f"{name} dies{', and its machine' if machine else ''}")
        self.network.detach(name)
        self.network.release(name)
        self.stores.pop(name).kill()
        log = self.disks[name].log
        if log is not None:
            if machine:
                log.crash(self.dice)
            log.durable = log.tail  # recovery makes durable what it finds
            self.history.check()

    def start_directory(self) -> None:
        self.directory = ModelDirectory(
            self.directory_disk, self.names, network=self.network, history=self.history, failures=self.failures
        )

    def kill_directory(self) -> None:
        self.history.note("the Directory dies")
        self.network.detach(DIRECTORY)
        if self.directory is not None:
            self.directory.kill()
        self.directory = None

    # -- what happens

    async def go(self, script: Script | None = None) -> Outcome:
        """Let things happen by chance, or as a script says; then repair everything, and look whether all is well."""
        self.start_directory()
        for name in self.names:
            self.start_store(name)
        clients: list[asyncio.Task[None]] = []
        try:
            if script is None:
                clients += [asyncio.create_task(self._client(number)) for number in range(CLIENTS)]
                await self._chaos()
            else:
                await script(self)
            for client in clients:
                client.cancel()
            await self._rest()
        except Violated as violated:
            self.outcome.problem = str(violated)
        finally:
            for client in clients:
                client.cancel()
        return self.outcome

    async def _chaos(self) -> None:
        deadline = self.history.now() + self.plan.chaos_seconds
        while self.history.now() < deadline:
            await asyncio.sleep(self.dice.choice((0.05, 0.3, 1.0, 4.0)) * self.dice.random())
            self._raise_failures()
            self._one_event()
            self.outcome.faults += 1

    def _one_event(self) -> None:
        dice, name = self.dice, self.dice.choice(self.names)
        match dice.choice(self.plan.events):
            case "store":
                if name in self.stores:
                    self.kill_store(name, machine=dice.random() < 0.6)
                else:
                    self.start_store(name)
            case "blink" if name in self.stores:
                # Back before anybody has noticed, and perhaps without the last bytes that it has sent to others.
                self.kill_store(name, machine=True)
                self.start_store(name)
            case "cut":
                other = dice.choice((*self.names, DIRECTORY))
                self.history.note(f"{name} and {other} are cut off from each other")
                self.network.cut(name, other, both=dice.random() < 0.7)
            case "heal":
                self.network.heal()
            case "calm":
                self.network.heal()
                for one in self.names:
                    self.network.release(one)
                    if one not in self.stores and dice.random() < 0.7:
                        self.start_store(one)
            case "weather":
                self.network.weather = dice.choice(
                    (CALM, Weather(lost=0.1), Weather(late=0.2), Weather(0.03, 0.05, 0.3), Weather(late=0.4, doubled=1))
                )
            case "hold":
                self.history.note(f"{name} is frozen")
                self.network.hold(name)
            case "release":
                self.network.release(name)
            case "late":
                self.network.weather = Weather(late=0.3, doubled=0.3)
            case "stray order":
                self.network.repeat(lambda message: isinstance(message, (Follow, Admit, DeleteCopy, PutMembership)))
            case "stray batch":
                self.network.repeat(lambda message: isinstance(message, Batch))
            case "isolate":
                lead = self.directory_disk.record.primary
                self.history.note(f"{lead} does not hear the Directory any more")
                self.network.cut(lead, DIRECTORY)
            case "calm but isolated":
                for one in self.names:
                    if one not in self.stores:
                        self.start_store(one)
            case "blink lead" if (lead := self.directory_disk.record.primary) in self.stores:
                self.kill_store(lead, machine=True)
                self.start_store(lead)
            case "directory":
                if self.directory is None:
                    self.start_directory()
                elif dice.random() < 0.5:
                    self.kill_directory()

    async def _rest(self) -> None:
        """Repair everything from outside; the cluster has to do the rest by itself."""
        self.history.note("everything is repaired")
        self.network.heal()
        if self.directory is None:
            self.start_directory()
        for name in self.names:
            self.network.release(name)
            if name not in self.stores:
                self.start_store(name)
        deadline = self.history.now() + REST_SECONDS
        while not await self._is_well():
            self._raise_failures()
            if self.history.now() > deadline:
                record = self.directory_disk.record
                raise Violated(f"not at full strength {REST_SECONDS:g} s after everything was repaired: {record}")
            await asyncio.sleep(POLL_SECONDS)
        self._raise_failures()
        self.history.check_rest((name, disk.log) for name, disk in self.disks.items() if disk.log is not None)

    async def _is_well(self) -> bool:
        record = self.directory_disk.record
        holders = {name for name, disk in self.disks.items() if disk.log is not None}
        if len(record.in_sync) != record.promised or set(record.in_sync) != holders or record.stale:
            return False
        if any(self.stores[name].standing.epoch != record.epoch for name in holders):
            return False
        if not await self.upload(record.primary):
            return False
        return len({bytes(disk.log.content) for disk in self.disks.values() if disk.log is not None}) == 1

    def _raise_failures(self) -> None:
        for failure in self.failures:
            raise failure

    # -- clients

    async def _client(self, number: int) -> None:
        dice = random.Random(self.plan.seed * 100 + number)
        while True:
            await asyncio.sleep(dice.random() * self.plan.client_pause_seconds)
            try:
                store: str = await self.network.call(f"client{number}", DIRECTORY, Where(), 0.3)
            except Lost:
                store = dice.choice(self.names)
            if dice.random() < self.plan.astray:
                store = dice.choice(self.names)
            if self.acknowledged and dice.random() < 0.25:
                await self.write(store, Write(Kind.DELETE, dice.choice(self.acknowledged)), f"client{number}")
            else:
                await self.upload(store, f"client{number}")

    async def upload(self, store: str, client: str = "client") -> bool:
        self._next_key += 1
        key = self._next_key
        if await self.write(store, Write(Kind.UPLOAD, key), client):
            self.acknowledged.append(key)
            return True
        return False

    async def write(self, store: str, write: Write, client: str) -> bool:
        try:
            answer: Answer = await self.network.call(client, store, write, WRITE_PATIENCE_SECONDS)
        except Lost:
            return False
        return answer.status == 201


Script = Callable[[Run], Awaitable[None]]
"""What happens in a run, one thing after the other."""


def run(plan: Plan, script: Script | None = None) -> Outcome:
    """Run the model once."""

    async def main() -> Outcome:
        return await Run(plan).go(script)

    outcome: Outcome = simulate(main())
    return outcome


def plan_of(seed: int) -> Plan:
    """Return the plan of a seed: two copies on three Stores or three on four; the emphasis changes."""
    stores, replication = ((3, "001"), (4, "002"))[seed % 2]
    plan = Plan(seed, stores, replication, events=MIXED)
    match seed // 2 % 4:
        case 1:
            return replace(plan, events=LATE, client_pause_seconds=0.5)
        case 2:
            return replace(plan, events=ISOLATED, client_pause_seconds=15.0, astray=0.6, chaos_seconds=120.0)
        case 3:
            return replace(plan, events=CRASHES, client_pause_seconds=0.03)
    return plan
