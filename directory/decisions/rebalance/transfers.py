"""Bringing load from machines that have too much to machines that have little, for as few bytes as possible.

From the hottest machine on, each takes the step that wins most for each byte until it is at the aim: a copy moves to a
lightly used machine; when none could carry what is read of it there, that machine gets a temporary copy with as much of
the load as it can carry; when the lightly used machine is full, a cool volume comes back in exchange. A target never
comes above the aim, so no step makes the worst machine worse, and nothing has to move on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from directory.decisions.rebalance.linked import Links
from directory.decisions.rebalance.ranking import Ranking
from directory.decisions.rebalance.state import State, percents_of
from directory.decisions.rebalance.views import Step, StepKind
from directory.decisions.rebalance.weights import LARGE_GROUP, clear, clearable, relieve_group

HOT_SHARE = 0.25
"""Load that one copy of a volume carries, as a multiple of the mean, from which on it may get a temporary one."""

LEAST_PORTION = 0.05
"""The least load that a temporary copy takes over, as a multiple of the mean."""

LEAST_EXCESS = 0.005
"""Load above the aim that no byte is copied for, as a multiple of the mean."""

MAX_TRIED = 100
"""Volumes for which no target is found, before a machine is left as it is for this time."""

MAX_SWAPS_TRIED = 500
"""Pairs of volumes that are looked at for one swap."""

MAX_FULL_TARGETS = 8
"""Full machines that are looked at for one swap."""

COOLEST = 50
"""Volumes of each that may come back."""


@dataclass(frozen=True, slots=True)
class Taste:
    """What is preferred among steps; which is best depends on the snapshot.

    Parameters
    ----------
    copy_worth: what the gain of a temporary copy counts for: it takes up space.
    tight: a copy goes to the hottest machine that can carry it, not to the coldest: that keeps room for larger ones.
    """

    copy_worth: float = 0.8
    tight: bool = False


@dataclass(frozen=True, slots=True)
class _Choice:
    """A possible step. ``score``: gain for each byte; ``moved``: load that the target gets."""

    kind: StepKind
    v: int
    source: int
    target: int
    gain: float
    moved: float
    score: float
    other: int = -1


class Transfers:
    """Plans the steps of one round."""

    def __init__(self, state: State, taste: Taste) -> None:
        self._state = state
        self._taste = taste
        self._links = Links(state)
        self._smallest_bytes = min((size for size in state.sizes if size), default=0)
        roomy = [m for m, takes in enumerate(state.takes) if takes and state.has_room(m, self._smallest_bytes)]
        self._cold = Ranking(roomy, state.level)
        self._steps_since: Counter[int] = Counter()
        self._room_made: dict[int, float] = {}
        self.obstacles: Counter[str] = Counter()
        """Why machines above the aim could not be relieved, and how often that was."""

    def plan(self) -> list[Step]:
        """Return the steps, and carry them out in the state."""
        state = self._state
        steps: list[Step] = []
        hot = [(-level, m) for m, level in enumerate(state.level) if self._is_hot(m)]
        heapify(hot)
        queues: dict[int, list[int]] = {}
        while hot:
            level, m = heappop(hot)
            if not self._is_hot(m):
                continue
            if -level != state.level[m]:
                heappush(hot, (-state.level[m], m))
                continue
            if m not in queues:
                queues[m] = self._densest_first(m)
            choice = self._best(m, queues[m]) or self._best_swap(m, queues[m])
            if choice is None:
                continue
            if choice.kind is StepKind.ADD and (made := self._make_room(choice)):
                steps += made
                choice = self._transfer(choice.v, m, self._links.excess(m)) or choice
            steps.append(self._take(choice))
            steps += self._pass_on(m)
            heappush(hot, (-state.level[m], m))
        return steps

    def _is_hot(self, m: int) -> bool:
        return self._state.excess(m) > LEAST_EXCESS * self._state.mean * self._state.capacity[m]

    def _make_room(self, choice: _Choice) -> list[Step]:
        """Let other copies take over what the target of a temporary copy has, as far as it is to have more."""
        state, target = self._state, choice.target
        wanted = min(self._links.excess(choice.source), self._movable(choice.v, choice.source)) - state.slack(target)
        steps = clear(state, target, wanted) if wanted > state.least and self._clearable(target) > state.least else []
        if steps:
            self._rank_again()
        return steps

    def _clearable(self, m: int) -> float:
        """What other copies could take over from a machine; estimated anew after each step."""
        if m not in self._room_made:
            self._room_made[m] = clearable(self._state, m)
        return self._room_made[m]

    def _rank_again(self) -> None:
        for one, level in enumerate(self._state.level):
            self._cold.put(one, level)
        self._room_made.clear()

    def _pass_on(self, m: int) -> list[Step]:
        """Let those that are linked with a machine make use of what it got rid of."""
        group = self._links.group(m)
        if len(group) == 1:
            return []
        key = group[0]
        self._steps_since[key] += 1
        if len(group) >= LARGE_GROUP and self._steps_since[key] * 4 < len(group):  # it takes long for many
            return []
        self._steps_since[key] = 0
        steps = relieve_group(self._state, group)
        if steps:
            self._rank_again()
        return steps

    # -- choosing

    def _densest_first(self, m: int) -> list[int]:
        """The volumes of a machine that may move, those first that carry most load a byte."""
        state = self._state
        found = [v for v in state.on[m] if m in state.holders[v] and state.loads[v] > state.least]
        movable = [v for v in found if v not in state.fixed]
        if len(movable) < len(found):
            self.obstacles["volumes are busy otherwise"] += 1
        movable.sort(key=lambda v: (-state.loads[v] / max(1, state.sizes[v]), v))
        return movable

    def _best(self, m: int, queue: list[int]) -> _Choice | None:
        state = self._state
        excess = self._links.excess(m)
        best: _Choice | None = None
        failed = 0
        for v in queue:
            # All that a step can win is what the volume carries anywhere.
            if best is not None and state.loads[v] / max(1, state.sizes[v]) < best.score * (1 - 1e-9):
                break
            if m not in state.holders[v] or state.share(v, m) < state.least:
                continue
            choice = self._transfer(v, m, excess)
            if choice is None:
                failed += 1
                if failed > MAX_TRIED:
                    break
            elif _is_better(choice, best):
                best = choice
        return best

    def _transfer(self, v: int, m: int, excess: float) -> _Choice | None:
        """Return the best move or temporary copy of one volume."""
        state, size_bytes = self._state, max(1, self._state.sizes[v])
        if size_bytes > state.left_bytes:
            self.obstacles["the plan's budget of bytes is used up"] += 1
            return None
        if v in state.resting:
            self.obstacles["volumes were moved lately"] += 1
            return self._temporary(v, m, excess)
        for source in self._sources(v, m):
            target = self._target(v, source, state.share(v, source))
            if target is not None:
                moved = max(state.share(v, source), min(state.slack(target), self._movable(v, m), excess))
                gain = min(moved, excess)
                return self._worthwhile(_Choice(StepKind.MOVE, v, source, target, gain, moved, gain / size_bytes))
        return self._temporary(v, m, excess)

    def _sources(self, v: int, m: int) -> list[int]:
        """Which copy may go: the one here, or one on a machine that is linked, the hottest first."""
        holders = self._state.holders[v]
        if len(holders) == 1:
            return holders
        group = self._links.group(m)
        return [m, *sorted((h for h in holders if h != m and h in group), key=lambda h: (-self._state.level[h], h))]

    def _movable(self, v: int, m: int) -> float:
        """Load of a volume on a machine and those that are linked with it."""
        state = self._state
        if len(state.holders[v]) == 1:
            return state.loads[v]
        group = self._links.group(m)
        return sum(s for h, s in zip(state.holders[v], state.shares[v], strict=True) if h in group)

    def _temporary(self, v: int, m: int, excess: float) -> _Choice | None:
        state, size_bytes = self._state, max(1, self._state.sizes[v])
        if state.share(v, m) < HOT_SHARE * state.mean * state.capacity[m]:
            self.obstacles["no machine that is used less could take one of its volumes"] += 1
            return None
        if len(state.holders[v]) >= state.settings.max_copies:
            self.obstacles[f"a volume is too hot for the {state.settings.max_copies} copies that it may have"] += 1
            return None
        target = self._target(v, None, 0.0)
        if target is None:
            self.obstacles["no machine that is used less could take one of its volumes"] += 1
            return None
        gain = min(state.slack(target) + self._clearable(target), excess, self._movable(v, m))
        if gain < LEAST_PORTION * state.mean:
            return None
        score = self._taste.copy_worth * gain / size_bytes
        return self._worthwhile(_Choice(StepKind.ADD, v, m, target, gain, gain, score))

    def _worthwhile(self, choice: _Choice) -> _Choice | None:
        """Return the step if it wins more than it costs."""
        state, settings = self._state, self._state.settings
        size_bytes = state.sizes[choice.v] + (state.sizes[choice.other] if choice.other >= 0 else 0)
        if choice.gain * settings.payback_seconds >= 2 * size_bytes / settings.bytes_per_load:
            return choice
        self.obstacles["what a move would win is less than what it costs"] += 1
        return None

    def _target(self, v: int, source: int | None, load: float) -> int | None:
        """Return the machine that gets a copy, and can carry so much load; ``source`` None: a temporary one."""
        state, size_bytes = self._state, self._state.sizes[v]
        fitting: dict[tuple[str, str], bool] = {}
        found: int | None = None
        for m in self._cold:
            if state.slack(m) < max(load, state.least):
                break
            if not state.may_get(v, m) or not state.has_room(m, size_bytes):
                continue
            home = state.homes[m]
            if source is not None and home not in fitting:
                fitting[home] = state.keeps_promise(v, source, m)
            if source is None or (fitting[home] and not state.shares_host(v, source, m)):
                found = m
                if not self._taste.tight or source is None:
                    break
        return found

    # -- exchanging

    def _best_swap(self, m: int, queue: list[int]) -> _Choice | None:
        """Return an exchange with a lightly used machine that is too full for a copy."""
        state = self._state
        excess, tried = state.excess(m), 0
        best: _Choice | None = None
        full = [t for t in self._full_machines() if t != m]
        for v in queue if full else ():
            if state.stays(v) or m not in state.holders[v] or tried > MAX_SWAPS_TRIED:
                continue
            share = state.share(v, m)
            for t in full:
                if not (state.may_get(v, t) and state.keeps_promise(v, m, t)) or state.shares_host(v, m, t):
                    continue
                for other in self._coolest_first(t):
                    tried += 1
                    choice = self._swap(v, m, t, other, share, excess)
                    if choice is not None and _is_better(choice, best):
                        best = choice
                    if choice is not None or tried > MAX_SWAPS_TRIED:
                        break
        return best

    def _full_machines(self) -> list[int]:
        """Machines with little load and no room, the coldest first."""
        state = self._state
        found = [
            m
            for m, level in enumerate(state.level)
            if level < state.aim and state.takes[m] and not state.has_room(m, self._smallest_bytes)
        ]
        return sorted(found, key=lambda m: (state.level[m], m))[:MAX_FULL_TARGETS]

    def _coolest_first(self, m: int) -> list[int]:
        state = self._state
        found = [v for v in state.on[m] if m in state.holders[v] and not state.stays(v)]
        return sorted(found, key=lambda v: (state.share(v, m), -state.sizes[v], v))[:COOLEST]

    def _swap(self, v: int, m: int, t: int, other: int, share: float, excess: float) -> _Choice | None:
        state = self._state
        size_bytes, other_bytes = state.sizes[v], state.sizes[other]
        back = state.share(other, t)
        gain = min(share - back, excess)
        fits = (
            gain > state.least
            and state.may_get(other, m)
            and state.slack(t) >= share - back
            and size_bytes + other_bytes <= state.left_bytes
            and size_bytes <= state.room[t]
            and _still_fits(state, t, size_bytes - other_bytes)
            and _still_fits(state, m, other_bytes - size_bytes)
            and state.keeps_promise(other, t, m)
            and not state.shares_host(other, t, m)
        )
        if not fits:
            return None
        score = gain / max(1, size_bytes + other_bytes)
        return self._worthwhile(_Choice(StepKind.SWAP, v, m, t, gain, share - back, score, other))

    # -- doing

    def _take(self, choice: _Choice) -> Step:
        state = self._state
        worst_before, source_before = state.worst(), state.times(choice.source)
        v, m, t = choice.v, choice.source, choice.target
        touched = {*state.holders[v], t}
        state.put(v, *self._shared_out(choice))
        size_bytes = state.sizes[v]
        if choice.kind is StepKind.SWAP:
            holders = [m if holder == t else holder for holder in state.holders[choice.other]]
            state.put(choice.other, holders, list(state.shares[choice.other]))
            size_bytes += state.sizes[choice.other]
            state.resting.add(choice.other)
        state.resting.add(v)
        state.left_bytes -= size_bytes
        for one in touched:
            self._cold.put(one, state.level[one])
            self._room_made.pop(one, None)
        if not state.has_room(t, self._smallest_bytes):
            self._cold.remove(t)
        return Step(
            choice.kind,
            state.volumes[v].id,
            source=state.machines[m].id,
            target=state.machines[t].id,
            other=state.volumes[choice.other].id if choice.other >= 0 else 0,
            size_bytes=size_bytes,
            weights=state.weights(v),
            other_weights=state.weights(choice.other) if choice.other >= 0 else (),
            reason=self._reason(choice, source_before),
            gain=choice.gain,
            worst_before=worst_before,
            worst_after=state.worst(),
        )

    def _shared_out(self, choice: _Choice) -> tuple[list[int], Sequence[float]]:
        """Return who has the volume after a step, and the load that each has of it."""
        state, m, t = self._state, choice.source, choice.target
        holders, shares = list(state.holders[choice.v]), list(state.shares[choice.v])
        place = holders.index(m)
        if choice.kind is StepKind.SWAP:
            holders[place] = t
            return holders, shares
        left = min(choice.moved, state.slack(t))
        if choice.kind is StepKind.MOVE:
            left = max(0.0, left - shares[place])
        # The target takes it from the hottest copies first. Those that are not linked have no excess, and keep theirs.
        group = self._links.group(m)
        taken = 0.0
        for holder in sorted(state.holders[choice.v], key=lambda h: (h != m, -state.level[h], h)):
            at = holders.index(holder)
            if holder in group and (holder != m or choice.kind is StepKind.ADD):
                part = min(left - taken, shares[at])
                shares[at] -= part
                taken += part
        if choice.kind is StepKind.ADD:
            return [*holders, t], [*shares, taken]
        holders[place] = t
        shares[place] += taken
        return holders, shares

    def _reason(self, choice: _Choice, source_before: str) -> str:
        state = self._state
        source, target = state.name(choice.source), state.name(choice.target)
        text = f"{source} has {source_before} times the mean load"
        if choice.kind is StepKind.ADD:
            part = percents_of(state.shares[choice.v], state.loads[choice.v])[-1]
            text += f", and the volume is too hot for its copies: another on {target} takes {part:.0f}% of its reads"
        elif choice.kind is StepKind.SWAP:
            text += f", and {target} is lightly used but full: volume {state.volumes[choice.other].id} comes back"
        else:
            text += f", {target} is lightly used"
        return f"{text}; then they have {state.times(choice.source)} and {state.times(choice.target)}"


def _is_better(one: _Choice, other: _Choice | None) -> bool:
    """More gain a byte; of equals the one that moves less load."""
    if other is None or one.score > other.score * (1 + 1e-9):
        return True
    return one.score >= other.score * (1 - 1e-9) and one.moved < other.moved * (1 - 1e-9)


def _still_fits(state: State, m: int, change_bytes: int) -> bool:
    after_bytes = state.used[m] + change_bytes
    return change_bytes <= 0 or after_bytes <= state.settings.fill_limit * state.total[m]
