"""What is worth being written to the SSD, and how much may be written. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Final

from cache.policies import Policy
from cache.policies.around import PolicyAround
from cache.policies.ghosts import Ghosts

REWRITE_AGE: Final = 0.8
"""A photo that was read from the SSD and leaves memory again is written anew when its needle is older than this part of
the log: the second chance."""

BURST_SECONDS: Final = 10.0
"""What was not used of the budget is saved for so long."""


class Admission:
    """Decides what is written.

    Parameters
    ----------
    log_bytes: of the SSD. What left memory is remembered until as much again has left it.
    max_entries: photos that the SSD can have.
    """

    def __init__(self, log_bytes: int, max_entries: int) -> None:
        self._window_bytes = log_bytes
        self._once = Ghosts()
        self._once.fit(max_entries)

    def wants(self, name_hash: int, size_bytes: int, again: bool, age: float | None) -> bool:
        """Whether a photo that leaves memory is to be written: it was asked for twice, as far as is remembered.

        Parameters
        ----------
        again: whether it was asked for again while it was in memory.
        age: of its needle, when it is on the SSD already.
        """
        if age is not None:
            return age > REWRITE_AGE
        if again or self._once.take(name_hash, self._window_bytes):
            return True
        self._once.add(name_hash, size_bytes)
        return False


class Budget:
    """So many bytes a second may be written.

    Parameters
    ----------
    bytes_per_second: 0 for no limit.
    least_bytes: what may be saved at least.
    """

    def __init__(self, bytes_per_second: int, least_bytes: int, now: float) -> None:
        self._bytes_per_second = bytes_per_second
        self._most_bytes = max(least_bytes, bytes_per_second * BURST_SECONDS)
        self._left_bytes = self._most_bytes
        self._at = now

    def take(self, size_bytes: int, now: float) -> bool:
        """Whether so much may be written now; it is counted then."""
        if not self._bytes_per_second:
            return True
        earned = (now - self._at) * self._bytes_per_second
        self._left_bytes = min(self._most_bytes, self._left_bytes + earned)
        self._at = now
        if size_bytes > self._left_bytes:
            return False
        self._left_bytes -= size_bytes
        return True


class AskedPolicy(PolicyAround):
    """A policy that notes which photos were asked for again, on the way to another one."""

    name: ClassVar[str] = "asked"
    OWN_ENTRY_BYTES: ClassVar[int] = 1

    def __init__(self, inner: Policy) -> None:
        super().__init__(inner)
        self._again = bytearray()

    def again(self, entry: int) -> bool:
        """Whether a photo was asked for since it was added; also of one that has just gone."""
        return entry < len(self._again) and self._again[entry] == 1

    def add(self, entry: int, name_hash: int, size_bytes: int) -> None:
        if entry >= len(self._again):
            self._again.extend(bytes(entry + 1 - len(self._again)))
        self._again[entry] = 0
        super().add(entry, name_hash, size_bytes)

    def hits(self, entries: Iterable[int]) -> None:
        taken = list(entries)
        super().hits(taken)
        again = self._again
        for entry in taken:
            if entry < len(again):
                again[entry] = 1
