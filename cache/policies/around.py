"""A policy around another one, which decides: for what listens on the way."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from cache.policies.policy import Policy


class PolicyAround:
    """Hands everything on.

    Parameters
    ----------
    inner: decides.
    """

    name: ClassVar[str] = "around"
    OWN_ENTRY_BYTES: ClassVar[int] = 0
    """What an entry takes of memory here, beside what it takes there."""

    def __init__(self, inner: Policy) -> None:
        self._inner = inner

    @property
    def entry_bytes(self) -> int:
        return self._inner.entry_bytes + self.OWN_ENTRY_BYTES

    def resize(self, capacity_bytes: int) -> None:
        self._inner.resize(capacity_bytes)

    def add(self, entry: int, name_hash: int, size_bytes: int) -> None:
        self._inner.add(entry, name_hash, size_bytes)

    def hits(self, entries: Iterable[int]) -> None:
        self._inner.hits(entries)

    def remove(self, entry: int) -> None:
        self._inner.remove(entry)

    def victim(self) -> int | None:
        return self._inner.victim()

    def __len__(self) -> int:
        return len(self._inner)

    @property
    def total_bytes(self) -> int:
        return self._inner.total_bytes
