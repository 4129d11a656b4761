"""Machines above the aim that are linked: they share what is read there, so load can be passed on between them.

What one of them gets rid of helps all of them, once weights have been shifted again. So it is the excess of a whole
group that a new copy elsewhere can take off.
"""

from __future__ import annotations

from directory.decisions.rebalance.state import State


class Links:
    """Groups of machines above the aim, as they are now."""

    def __init__(self, state: State) -> None:
        self._state = state
        hot = [m for m in range(len(state.load)) if state.excess(m) > state.least]
        self._root = {m: m for m in hot}
        for m in hot:
            for v in state.shared(m):
                holders, shares = state.holders[v], state.shares[v]
                for other in holders:
                    if other != m and other in self._root and shares[holders.index(m)] >= state.least:
                        self._root[self._find(m)] = self._find(other)
        self.groups: dict[int, list[int]] = {}
        for m in hot:
            self.groups.setdefault(self._find(m), []).append(m)

    def group(self, m: int) -> list[int]:
        """Return the machines that are linked with one, itself among them."""
        return self.groups[self._find(m)] if m in self._root else [m]

    def excess(self, m: int) -> float:
        """Return what a machine and those linked with it have too much together."""
        group = self.group(m)
        if len(group) == 1:
            return self._state.excess(m)
        return sum(max(0.0, self._state.excess(one)) for one in group)

    def _find(self, m: int) -> int:
        root = self._root
        while root[m] != m:
            root[m] = root[root[m]]
            m = root[m]
        return m
