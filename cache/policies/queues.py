"""Doubly linked lists of entries in flat arrays: eight bytes an entry, whichever list it is in.

A list runs from its oldest entry to its newest. An entry is in one list at most; which one, its owner knows.
"""

from __future__ import annotations

from array import array


class Queues:
    """So many lists, all empty.

    ``newer`` and ``older`` are the links, by node; the node of an entry is the entry + ``lists``, and node i is the
    head of list i, whose newer neighbour is the oldest entry. They are open so that a policy can follow them.

    Parameters
    ----------
    lists: how many.
    """

    __slots__ = ("lists", "newer", "older")

    def __init__(self, lists: int) -> None:
        self.lists = lists
        self.newer = array("I", range(lists))
        self.older = array("I", range(lists))

    def push(self, queue: int, entry: int) -> None:
        """Add an entry that is in no list as the newest."""
        newer, older = self.newer, self.older
        node = entry + self.lists
        if node >= len(newer):
            grow(newer, node)
            grow(older, node)
        last = older[queue]
        newer[node], older[node] = queue, last
        newer[last] = older[queue] = node

    def remove(self, entry: int) -> None:
        """Take an entry out of its list."""
        newer, older = self.newer, self.older
        node = entry + self.lists
        after, before = newer[node], older[node]
        newer[before], older[after] = after, before

    def oldest(self, queue: int) -> int | None:
        """The oldest entry of a list; None when it is empty."""
        node = self.newer[queue]
        return None if node == queue else node - self.lists

    def pop(self, queue: int) -> int | None:
        """Take out the oldest entry."""
        newer, older = self.newer, self.older
        node = newer[queue]
        if node == queue:
            return None
        after = newer[node]
        newer[queue], older[after] = after, queue
        return node - self.lists


def grow(column: array[int], entry: int) -> None:
    """Make a column long enough for an entry, and a quarter longer than it was."""
    missing = entry + 1 - len(column)
    if missing > 0:
        column.frombytes(bytes(max(missing, len(column) // 4, 1024) * column.itemsize))
