"""What a policy of replacement is.

A policy knows photos by their entries: small numbers that are given again when a photo is gone, so that it can keep
what it knows in flat arrays rather than in an object a photo. It is told what is added, asked for and taken out, and
says what goes next. Pure: no clock, no I/O. All calls take constant time, but for what a call to ``victim`` passes
over, which is constant for each photo added.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Protocol


class Policy(Protocol):
    """Decides what stays. Sizes are in bytes, whatever their unit; a policy weighs by them, not by number."""

    name: ClassVar[str]

    @property
    def entry_bytes(self) -> int:
        """What an entry takes of the keeper's memory, with what is remembered of photos that are gone."""

    def resize(self, capacity_bytes: int) -> None:
        """So much will be kept; parts of a policy are shares of it. Takes effect with what comes next."""

    def add(self, entry: int, name_hash: int, size_bytes: int) -> None:
        """A photo was added. The entry is not in use; ``name_hash`` is the photo's, whenever it comes."""

    def hits(self, entries: Iterable[int]) -> None:
        """Photos were asked for, in this order. Entries that are not in use are passed over."""

    def remove(self, entry: int) -> None:
        """A photo is gone for a reason of its own; nothing when the entry is not in use."""

    def victim(self) -> int | None:
        """Give up a photo: its entry, which is not in use any more; None when there is none."""

    def __len__(self) -> int:
        """Photos."""

    @property
    def total_bytes(self) -> int:
        """Sum of their sizes."""
