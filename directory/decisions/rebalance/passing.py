"""Passing reads on: from a machine to other copies of what it has, and from their machines to others still.

That is a flow in a graph: its nodes are machines, its edges the volumes that two of them have. The shortest ways come
first, and on each machine the hottest volumes, so that few volumes carry much. Where reads cannot be passed on any
more, no sharing among the copies that there are would take more: the machines that could be reached are all full.
"""

from __future__ import annotations

from directory.decisions.rebalance.state import State

Before = dict[int, list[float]]
"""By volume, the shares that it had before they were changed."""

MAX_WAY = 3
"""Machines that load is passed on to one after the other, at most. With a hundred volumes each, two reach most of a
cluster."""

FEW_MACHINES = 64
"""In a cluster of so many every way is gone, however long."""

BATCH = 20
"""How many times the least load that is worth a step a machine passes on at once, so that it is asked less often."""


def longest_way(state: State) -> int:
    """Return how many machines load is passed on to, one after the other, at most."""
    machines = len(state.machines)
    return machines if machines <= FEW_MACHINES else MAX_WAY


def pass_on(
    state: State, m: int, wanted: float, before: Before, longest: int | None = None, least: float | None = None
) -> float:
    """Shift up to so much load from a machine to others that stay below the aim; returns how much it was.

    Parameters
    ----------
    longest: the longest way; None: as long as there are any. least: what is worth a step; None: as everywhere.
    """
    least = state.least if least is None else least
    passed = 0.0
    for way in range(1, (longest_way(state) if longest is None else longest) + 1):
        if wanted - passed < least:
            break
        passed += _pass(state, m, wanted - passed, way, {m}, before, least)
    return passed


def _pass(state: State, m: int, wanted: float, way: int, behind: set[int], before: Before, least: float) -> float:
    """Pass load on over at most ``way`` machines. ``behind``: those on the way to this one."""
    passed, stuck, level = 0.0, state.stuck, state.level
    load, limit, all_holders, all_shares = state.load, state.limit, state.holders, state.shares
    for v in state.shared(m):
        if wanted - passed < least:
            break
        holders, shares = all_holders[v], all_shares[v]
        place = holders.index(m)
        share = shares[place]
        if share < least:
            continue
        targets = holders
        if len(holders) > 2:
            targets = [t for t in holders if limit[t] - load[t] >= least or (way > 1 and stuck[t] < way - 1)]
            if len(targets) > 1:
                targets.sort(key=level.__getitem__)
        for target in targets:
            if target == m:
                continue
            amount = min(share, wanted - passed)
            room = limit[target] - load[target]
            if room < amount - least and way > 1 and room > -least and stuck[target] < way - 1 and target not in behind:
                behind.add(target)
                asked = amount - room if way > 2 else max(amount - room, BATCH * least)
                made = _pass(state, target, asked, way - 1, behind, before, least)
                behind.discard(target)
                if made < amount - room - least:
                    stuck[target] = way - 1
                room += made
                share = shares[place]  # others may have been passed on through here
            amount = min(amount, share, room)
            if amount < least:
                continue
            if v not in before:
                before[v] = list(shares)
            state.shift(v, m, target, amount)
            share -= amount
            passed += amount
            if share < least:
                break
    return passed


def passable(state: State, m: int, enough: float) -> float:
    """Return about how much load a machine could give to other copies whose machines have room, up to ``enough``."""
    found = 0.0
    load, limit, crumb = state.load, state.limit, state.crumb
    all_holders, all_shares = state.holders, state.shares
    for v in state.shared(m):
        holders = all_holders[v]
        if len(holders) == 2:  # nearly always: this is asked for a hundred thousand volumes
            place = 0 if holders[0] == m else 1
            other = holders[1 - place]
            room = limit[other] - load[other]
        else:
            place = holders.index(m)
            room = max([limit[t] - load[t] for t in holders if t != m])
        share = all_shares[v][place]
        if room > 0 and share >= crumb:
            found += share if share < room else room
            if found >= enough:
                return enough
    return found
