"""A small world for protocols: virtual time, a network that misbehaves, disks that lose what was not synced.

Everything random comes from one seed and time passes only when all have said what they wait for, so the same seed gives
the same run, down to the last message.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

MESSAGE_SECONDS = (0.0005, 0.02)
"""Usual time of a message, shortest and longest."""

LATE_MESSAGE_SECONDS = (0.2, 14.0)
"""Time of a message that is held up: some arrive long after their sender has given up and the epoch has changed."""

CLIENT = "client"
"""Names of clients begin so. What they send comes late or twice like all else, but never after the run has gone on."""

MAX_TURNS = 3_000_000


class Lost(Exception):
    """No answer came in time; whether the call was done is not known."""


class _Clock(selectors.SelectSelector):
    """A selector that never waits: where others would, time is moved forward."""

    def __init__(self) -> None:
        super().__init__()
        self.now_seconds = 0.0
        self.turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.turns += 1
        if timeout is None:
            raise RuntimeError("everybody waits for somebody else: nothing will ever happen again")
        if self.turns > MAX_TURNS:
            raise RuntimeError("the model goes round in circles")
        self.now_seconds += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which an hour takes as long as what happens in it."""

    def __init__(self) -> None:
        self._virtual = _Clock()
        super().__init__(self._virtual)
        # Timers of the same moment run in the order in which they were made only if rounding cannot merge moments.
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._virtual.now_seconds


def simulate(main: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in virtual time."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


@dataclass(frozen=True, slots=True)
class Weather:
    """How bad the network is; shares of all messages."""

    lost: float = 0.0
    late: float = 0.0
    doubled: float = 0.0


CALM = Weather()


class Party(ABC):
    """Somebody with a name on the network, who stops doing anything when it is killed.

    Parameters
    ----------
    failures: exceptions of its work; nothing in the model may raise one.
    """

    def __init__(self, name: str, failures: list[BaseException]) -> None:
        self.name = name
        self._failures = failures
        self._tasks: set[asyncio.Task[Any]] = set()

    @abstractmethod
    async def handle(self, sender: str, message: Any) -> Any:
        """Answer a message."""

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def kill(self) -> None:
        """Stop all work where it is."""
        for task in self._tasks:
            task.cancel()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._failures.append(failure)


class Network:
    """Calls between named parties. Each direction of a call may be lost, late, or come twice.

    Parameters
    ----------
    dice: the run's source of randomness.
    """

    def __init__(self, dice: random.Random) -> None:
        self.weather = CALM
        self.counts: Counter[str] = Counter()
        self._dice = dice
        self._parties: dict[str, Party] = {}
        self._cut: set[tuple[str, str]] = set()
        self._held: dict[str, list[Callable[[], None]]] = {}
        self._sent: list[tuple[str, str, Any]] = []

    def attach(self, party: Party) -> None:
        """The party is up: it gets what is sent to its name."""
        self._parties[party.name] = party

    def detach(self, name: str) -> None:
        """The party is down: what arrives is lost."""
        self._parties.pop(name, None)

    def hold(self, name: str) -> None:
        """The party is frozen: what is sent to it, and by it, waits."""
        self._held.setdefault(name, [])

    def release(self, name: str) -> None:
        for deliver in self._held.pop(name, []):
            asyncio.get_running_loop().call_later(self._dice.uniform(*MESSAGE_SECONDS), deliver)

    def cut(self, one: str, other: str, *, both: bool = True) -> None:
        """Let no message through any more."""
        self._cut.add((one, other))
        if both:
            self._cut.add((other, one))

    def heal(self) -> None:
        self._cut.clear()
        self.weather = CALM

    async def call(self, sender: str, receiver: str, message: Any, timeout_seconds: float) -> Any:
        """Send a message and return the answer. Raises Lost when none comes in time."""
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if not sender.startswith(CLIENT):
            self._sent.append((sender, receiver, message))

        def deliver_answer(answer: Any) -> None:
            if not answered.done():
                answered.set_result(answer)

        def arrive() -> None:
            party = self._parties.get(receiver)
            if party is None:
                self.counts["to a party that is down"] += 1
            else:
                party.spawn(work(party))

        async def work(party: Party) -> None:
            answer = await party.handle(sender, message)
            self._send(receiver, sender, lambda: deliver_answer(answer))

        self._send(sender, receiver, arrive)
        try:
            async with asyncio.timeout(timeout_seconds):
                return await answered
        except TimeoutError:
            raise Lost(f"{sender} to {receiver}: no answer") from None

    def repeat(self, wanted: Callable[[Any], bool]) -> None:
        """Deliver a message of the past once more, as if it had been held up until now; the answer is lost."""
        sent = [one for one in self._sent if wanted(one[2])]
        if sent:
            sender, receiver, message = self._dice.choice(sent)
            party = self._parties.get(receiver)
            if party is not None and receiver not in self._held:
                party.spawn(party.handle(sender, message))

    def _send(self, sender: str, receiver: str, deliver: Callable[[], None]) -> None:
        self.counts["messages"] += 1
        weather = self.weather
        if (sender, receiver) in self._cut or self._dice.random() < weather.lost:
            self.counts["lost"] += 1
            return
        copies = 2 if self._dice.random() < weather.doubled else 1
        self.counts["doubled"] += copies - 1
        for _ in range(copies):
            late = self._dice.random() < weather.late
            self.counts["late"] += late
            seconds = self._dice.uniform(*(LATE_MESSAGE_SECONDS if late else MESSAGE_SECONDS))
            asyncio.get_running_loop().call_later(seconds, self._arrive, sender, receiver, deliver)

    def _arrive(self, sender: str, receiver: str, deliver: Callable[[], None]) -> None:
        for party in (receiver, sender):
            if party in self._held:
                self._held[party].append(lambda: self._arrive(sender, receiver, deliver))
                return
        deliver()


class LogFile:
    """The bytes of one copy of a volume. What was written after the last sync began may be lost in a crash.

    Parameters
    ----------
    unit_bytes: size of a needle; recovery keeps whole ones only.
    """

    def __init__(self, unit_bytes: int) -> None:
        self.content = bytearray()
        self.durable = 0
        self._unit_bytes = unit_bytes

    @property
    def tail(self) -> int:
        return len(self.content)

    def append(self, data: bytes) -> None:
        self.content += data

    def truncate(self, tail: int) -> None:
        """Cut the end off, durably."""
        del self.content[tail:]
        self.durable = min(self.durable, tail)

    async def sync(self, seconds: float) -> None:
        """Make durable what is there now."""
        begun = self.tail
        await asyncio.sleep(seconds)
        self.durable = max(self.durable, min(begun, self.tail))

    def crash(self, dice: random.Random) -> None:
        """Lose the unsynced end, or a part of it."""
        unsynced = (self.tail - self.durable) // self._unit_bytes
        self.truncate(self.durable + dice.randint(0, unsynced) * self._unit_bytes)
        self.durable = self.tail
