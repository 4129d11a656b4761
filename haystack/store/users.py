"""Counting those who use something, so that nobody closes it under them."""

from __future__ import annotations

import threading


class Users:
    """How many threads use something at the moment."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0

    def enter(self) -> None:
        """One more."""
        with self._changed:
            self._count += 1

    def leave(self) -> None:
        """One less; from any thread."""
        with self._changed:
            self._count -= 1
            if not self._count:
                self._changed.notify_all()

    def wait_for_none(self, timeout_seconds: float) -> bool:
        """Block until there is none; returns whether that came to be in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._count, timeout_seconds)
