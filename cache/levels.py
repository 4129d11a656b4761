"""What a Cache has, in memory and on its second level: taking photos out of both."""

from __future__ import annotations

from cache.memory import PhotoMemory
from cache.ssd import SecondLevel


class Levels:
    """Memory, and the second level if there is one. Counts are of copies: a photo may be on both."""

    def __init__(self, memory: PhotoMemory, second: SecondLevel | None) -> None:
        self.memory = memory
        self.second = second

    def drop(self, volume: int, key: int, alternate: int | None = None) -> int:
        """Take out a photo (all its alternate keys when None is given), also while it is on its way."""
        below = self.second.drop(volume, key, alternate) if self.second is not None else 0
        return below + self.memory.drop(volume, key, alternate)

    def drop_volume(self, volume: int) -> int:
        """Take out all photos of a volume."""
        below = self.second.drop_volume(volume) if self.second is not None else 0
        return below + self.memory.drop_volume(volume)

    def drop_all(self) -> int:
        """Take out everything."""
        below = self.second.drop_all() if self.second is not None else 0
        return below + self.memory.drop_all()
