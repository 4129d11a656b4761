"""Copies that come and go: what is lost, and what the real repair plan then orders, for repair and for moves."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from directory.decisions import failure
from directory.decisions.repair import plan_repair
from directory.decisions.repair_views import Action, MoveView, Plan, Rules, Snapshot, Step
from directory.simulation.clock import Clock, Timer
from directory.simulation.parts import Disk, Machine, Volume
from directory.simulation.pipe import Pipe
from directory.simulation.world import World
from directory.storage.tables import VolumeRecord

MAX_NEXT = 16
"""Volumes that are planned anew for each copy that has ended."""

GO_ON_SECONDS = 60.0
"""Copies that end within this time are followed up together: far less than a copy takes, and many plans fewer."""

REST_SECONDS = 60.0
"""Time for which a copy that failed is not tried again."""


@dataclass(frozen=True, slots=True)
class _Job:
    step: Step
    target: Disk
    size_bytes: int


@dataclass(slots=True)
class Totals:
    """What copies came to."""

    repaired_bytes: int = 0
    moved_bytes: int = 0
    repaired_copies: int = 0
    moved_copies: int = 0
    failed_copies: int = 0
    lost_volumes: int = 0
    lost_bytes: int = 0


class Repairs:
    """Carries memberships, repair and moves out."""

    def __init__(self, world: World, clock: Clock) -> None:
        scenario = world.scenario
        self.totals = Totals()
        self.moves: dict[int, MoveView] = {}
        self._world = world
        self._clock = clock
        self._rules = Rules(
            delay_seconds=scenario.repair_delay_seconds,
            copies=scenario.repair_copies,
            copies_per_store=2,
            max_volume_bytes=scenario.volume_bytes,
            moves=scenario.rebalance_moves,
            moves_per_store=1,
        )
        self._pipe = Pipe(clock, scenario.repair_bytes_per_second, scenario.copy_bytes_per_second, self._copied)
        self._running: dict[int, _Job] = {}
        self._next: deque[int] = deque()
        self._resting: dict[tuple[int, str], float] = {}
        self._held: dict[int, int] = {}
        self._ended: list[int] = []
        self._timer: Timer | None = None
        self._due_seconds = float("inf")

    # -- loss

    def lose_machine(self, machine: Machine) -> None:
        """A machine is dead for good."""
        self._lose(machine.id, self._world.remove_machine(machine))

    def lose_disk(self, disk: Disk) -> None:
        """A disk is dead for good; its machine goes on without it."""
        self._lose(disk.machine.id, self._world.remove_disk(disk))

    def _lose(self, store_id: str, volumes: Collection[Volume]) -> None:
        world, now_ms = self._world, self._clock.now_ms
        for number, job in list(self._running.items()):
            gone = job.target.machine.disks.get(job.target.folder) is not job.target
            if gone or job.step.target not in world.machines or job.step.source not in world.volumes[number].disks:
                self._pipe.cancel(number)
                del self._running[number]
        for volume in volumes:
            record = failure.without(
                volume.record,
                {store_id},
                ready=world.machines.__contains__ if store_id not in world.machines else volume.disks.__contains__,
                tails=dict.fromkeys(volume.disks, volume.size_bytes),
                led=world.led,
                now_ms=now_ms,
            )
            if record is not volume.record:
                world.put_record(volume, record)
            elif store_id in record.in_sync:
                self._lost_for_good(volume)
            else:
                world.put_record(volume, failure.forgotten(record, store_id))
        self.look()

    def _lost_for_good(self, volume: Volume) -> None:
        """The last copy in sync is gone. What a move had not compared yet does not count."""
        for store_id in list(volume.disks):
            disk = volume.disks.pop(store_id)
            disk.volumes.discard(volume.number)
            self._world.free(disk, volume.size_bytes)
        self._world.lose_volume(volume)
        self.moves.pop(volume.number, None)
        self.totals.lost_volumes += 1
        self.totals.lost_bytes += volume.size_bytes

    # -- moves

    def order(self, moves: Mapping[int, MoveView], after: Mapping[int, int]) -> None:
        """Have copies moved; ``after`` names, by volume, the one whose move must be done first."""
        self.moves.update(moves)
        self._held.update(after)
        self.look()

    def drop_orders(self) -> None:
        """Forget the moves that have not begun: a new plan knows better."""
        for number, move in list(self.moves.items()):
            volume = self._world.volumes[number]
            if number not in self._running and move.source in volume.record.in_sync and not move.began:
                del self.moves[number]
        self._held = {number: other for number, other in self._held.items() if number in self.moves}

    # -- planning

    def look(self) -> None:
        """Plan everything anew and begin what can begin."""
        self._next.clear()
        self._plan(sorted(self._world.untidy | self.moves.keys()))

    def _plan(self, numbers: Collection[int]) -> None:
        """Plan these volumes, and what follows for those whose steps take no time."""
        while numbers:
            plan = plan_repair(self._snapshot(numbers), self._rules)
            for number in plan.moved:
                self._end_move(number)
            self._next.extend(plan.next_volumes)
            self._wake_for(plan)
            numbers = [step.volume for step in plan.steps if self._begin(step)]

    def _snapshot(self, numbers: Collection[int]) -> Snapshot:
        world, now_seconds = self._world, self._clock.now_seconds
        if self._resting:
            self._resting = {key: until for key, until in self._resting.items() if until > now_seconds}
        moves = {
            number: replace(move, held="the other one of the swap goes first")
            if self._held.get(number) in self.moves
            else move
            for number in numbers
            if (move := self.moves.get(number)) is not None
        }
        return Snapshot(
            volumes=[world.view(world.volumes[number]) for number in numbers if number in world.volumes],
            stores=world.stores,
            spaces=world.room(),
            settled=True,
            now_ms=self._clock.now_ms,
            running=[job.step for job in self._running.values()],
            resting=dict.fromkeys(self._resting, "it has just failed"),
            moves=moves,
        )

    def _wake_for(self, plan: Plan) -> None:
        """Look again when the first of those that wait has waited long enough."""
        waits = [waiting.seconds for waiting in plan.waiting if waiting.seconds is not None]
        if self._resting:
            waits.append(REST_SECONDS)
        if not waits:
            return
        due_seconds = self._clock.now_seconds + max(1.0, min(waits))
        if self._timer is None or due_seconds < self._due_seconds:
            if self._timer is not None:
                self._timer.cancelled = True
            self._due_seconds = due_seconds
            self._timer = self._clock.at(due_seconds, self._woken)

    def _woken(self) -> None:
        self._timer = None
        self.look()

    # -- doing

    def _begin(self, step: Step) -> bool:
        """Begin a step; returns whether it is done at once."""
        volume = self._world.volumes[step.volume]
        if step.action.copies_bytes:
            machine = self._world.machines[step.target]
            folder = step.folder or max(machine.disks.values(), key=lambda disk: disk.free_bytes).folder
            job = _Job(replace(step, folder=folder), machine.disks[folder], volume.size_bytes)
            self._running[step.volume] = job
            if step.move:
                self.moves[step.volume] = replace(self.moves[step.volume], began=True)
            self._pipe.begin(step.volume, volume.size_bytes)
            return False
        record, now_ms = volume.record, self._clock.now_ms
        if step.action is Action.GIVE_UP:
            tails = dict.fromkeys(record.in_sync, volume.size_bytes)
            given_up = failure.given_up(record, step.target, tails=tails, led=self._world.led, now_ms=now_ms)
            self._world.put_record(volume, given_up)
        else:
            if step.action is not Action.FORGET:
                self._world.remove_copy(volume, step.target)
            self._world.put_record(volume, failure.forgotten(record, step.target))
        return True

    def _copied(self, number: int) -> None:
        """A copy has come to its end: it counts from now on."""
        job = self._running.pop(number)
        volume = self._world.volumes[number]
        if job.target.free_bytes < volume.size_bytes:
            self.totals.failed_copies += 1
            self._resting[number, job.step.target] = self._clock.now_seconds + REST_SECONDS
        else:
            self._world.put_copy(volume, job.target)
            self._world.put_record(volume, self._admitted(volume, job.step.target))
            if job.step.move:
                self.totals.moved_copies += 1
                self.totals.moved_bytes += job.size_bytes
            else:
                self.totals.repaired_copies += 1
                self.totals.repaired_bytes += job.size_bytes
        if not self._ended:
            self._clock.after(GO_ON_SECONDS if self._pipe else 1.0, self._go_on)
        self._ended.append(number)

    def _go_on(self) -> None:
        """Plan what follows for copies that have ended, and what has waited for a free hand."""
        waited = min(MAX_NEXT * len(self._ended), len(self._next))
        batch = dict.fromkeys([*self._ended, *(self._next.popleft() for _ in range(waited))])
        self._ended.clear()
        self._plan([one for one in batch if one in self._world.untidy or one in self.moves])

    def _admitted(self, volume: Volume, store_id: str) -> VolumeRecord:
        record = volume.record
        gone = {member for member in record.stale if member not in volume.disks}
        return failure.admitted(record, store_id, gone=gone, now_ms=self._clock.now_ms)

    def _end_move(self, number: int) -> None:
        self.moves.pop(number, None)
        self._held.pop(number, None)
        if volume := self._world.volumes.get(number):
            volume.moved_seconds = self._clock.now_seconds
        waiting = [other for other, first in self._held.items() if first == number]
        self._next.extendleft(waiting)
