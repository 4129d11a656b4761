"""Bringing load from machines that have too much to machines that have little, for as few bytes as possible.

From the hottest machine on, each takes the step that wins most for each byte until it is at the aim: a copy moves to a
lightly used machine; when none could carry what is read of it there, that machine gets a temporary copy with as much of
the load as it can carry; when the lightly used machine is full, a cool volume comes back in exchange. A target never
comes above the aim, so no step makes the worst machine worse, and nothing has to move on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from heapq import heapify, heappop, heappush

from directory.decisions.rebalance.choices import Choice, Prices, Taste
from directory.decisions.rebalance.linked import Links
from directory.decisions.rebalance.state import State, percents_of
from directory.decisions.rebalance.swaps import Swaps
from directory.decisions.rebalance.targets import Targets
from directory.decisions.rebalance.views import Step, StepKind
from directory.decisions.rebalance.weights import clear, fill_up

HOT_SHARE = 0.25
"""Load that one copy of a volume carries, as a multiple of the mean, from which on it may get a temporary one."""

LEAST_PORTION = 0.05
"""The least load that a temporary copy takes over, as a multiple of the mean."""

LEAST_EXCESS = 0.005
"""Load above the aim that no byte is copied for, as a multiple of the mean."""

MAX_TRIED = 100
"""Volumes for which no target is found, before a machine is left as it is for this time."""

NO_BUDGET = "the plan's budget of bytes is used up"


class Transfers:
    """Plans the steps of one round."""

    def __init__(self, state: State, taste: Taste) -> None:
        smallest_bytes = min((size for size in state.sizes if size), default=0)
        self._state = state
        self._taste = taste
        self._links = Links(state)
        self._prices = Prices(state)
        self._swaps = Swaps(state, self._prices, smallest_bytes)
        self._targets = Targets(state, smallest_bytes, tight=taste.tight)

    @property
    def obstacles(self) -> Counter[str]:
        """Why machines above the aim could not be relieved, and how often that was."""
        return self._prices.obstacles

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
            if state.is_spent(read=True):
                break
            if m not in queues:
                queues[m] = self._densest_first(m)
            choice = self._best(m, queues[m]) or self._swaps.best(m, queues[m])
            if choice is None:
                continue
            self._swaps.changed()
            if choice.kind is StepKind.ADD:
                steps += self._make_room(choice)
            steps.append(self._take(choice))
            steps += self._pass_on(m)
            heappush(hot, (-state.level[m], m))
        if state.is_spent(read=True):  # with more of it the plan would go on, whatever else was in the way
            self.obstacles.clear()
            self.obstacles[NO_BUDGET] += 1
        return steps

    def _is_hot(self, m: int) -> bool:
        return self._state.excess(m) > LEAST_EXCESS * self._state.mean * self._state.capacity[m]

    def _make_room(self, choice: Choice) -> list[Step]:
        """Let other copies take over what the target of a temporary copy has, as far as it is to have more."""
        state, target = self._state, choice.target
        wanted = min(choice.moved, state.limit[target]) - max(0.0, state.slack(target))
        steps = clear(state, target, wanted) if wanted > state.least else []
        if steps:
            self._targets.all_changed()
        return steps

    def _pass_on(self, m: int) -> list[Step]:
        """Let those that are linked with a machine make use of what it got rid of."""
        state, group = self._state, self._links.group(m)
        roomy = len(group) > 1 and any(state.slack(one) > state.least for one in group)
        steps = fill_up(state, group) if roomy else []
        if steps:
            self._targets.all_changed()
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

    def _best(self, m: int, queue: list[int]) -> Choice | None:
        state = self._state
        excess = self._links.excess(m)
        best: Choice | None = None
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
            elif choice.is_better(best):
                best = choice
        return best

    def _transfer(self, v: int, m: int, excess: float) -> Choice | None:
        """Return the best move or temporary copy of one volume."""
        state, size_bytes = self._state, max(1, self._state.sizes[v])
        if size_bytes > state.left_bytes:
            self.obstacles[NO_BUDGET] += 1
            return None
        if v in state.resting:
            self.obstacles["volumes were moved lately"] += 1
            return self._temporary(v, m, excess)
        for source in self._sources(v, m):
            target = self._targets.for_move(v, source, state.share(v, source))
            if target is not None:
                moved = max(state.share(v, source), min(state.slack(target), self._movable(v, m), excess))
                gain = min(moved, excess)
                return self._prices.worthwhile(Choice(StepKind.MOVE, v, source, target, gain, moved, gain / size_bytes))
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

    def _temporary(self, v: int, m: int, excess: float) -> Choice | None:
        state, size_bytes = self._state, max(1, self._state.sizes[v])
        movable = self._movable(v, m)
        if movable < HOT_SHARE * state.mean * state.capacity[m]:
            self.obstacles["no machine that is used less could take one of its volumes"] += 1
            return None
        if len(state.holders[v]) >= state.settings.max_copies:
            self.obstacles[f"a volume is too hot for the {state.settings.max_copies} copies that it may have"] += 1
            return None
        found = self._targets.for_copy(v, min(excess, movable))
        if found is None:
            self.obstacles["no machine that is used less could take one of its volumes"] += 1
            return None
        target, gain = found
        if gain < LEAST_PORTION * state.mean:
            return None
        score = self._taste.copy_worth * gain / size_bytes
        return self._prices.worthwhile(Choice(StepKind.ADD, v, m, target, gain, min(excess, movable), score))

    # -- doing

    def _take(self, choice: Choice) -> Step:
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
            self._targets.changed(one)
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

    def _shared_out(self, choice: Choice) -> tuple[list[int], Sequence[float]]:
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

    def _reason(self, choice: Choice, source_before: str) -> str:
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
