"""Who may see a photo."""

from __future__ import annotations

import enum


class Visibility(enum.IntEnum):
    """Who may see a photo besides its owner."""

    PUBLIC = 0
    FOLLOWERS = 1
    PRIVATE = 2

    @property
    def word(self) -> str:
        """As it stands in requests and answers."""
        return self.name.lower()

    @classmethod
    def of(cls, word: str) -> Visibility:
        """The one with this word. Raises KeyError."""
        return cls[word.upper()]
