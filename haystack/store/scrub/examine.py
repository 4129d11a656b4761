"""Verifying a piece of a volume: superblock, every needle, and the bytes between. Everything here blocks."""

from __future__ import annotations

from dataclasses import dataclass, field

from haystack.errors import DiskError
from haystack.volume import Damage, Volume
from haystack.volume.layout import SUPERBLOCK_BYTES
from haystack.volume.scan import scan


@dataclass(frozen=True, slots=True)
class Examined:
    """What was found between two offsets.

    Parameters
    ----------
    start, end: bytes from the start of the volume; ``end`` is where the next piece begins.
    damage: in order; what cannot be read is damage too.
    """

    start: int
    end: int
    damage: list[Damage] = field(default_factory=list)


def examine(volume: Volume, start: int, size_bytes: int, limit: int) -> Examined:
    """Verify about ``size_bytes`` from ``start`` on, a boundary between needles, and not beyond ``limit``, another one.

    Raises nothing for what is wrong with the bytes or the disk that holds them.
    """
    damage: list[Damage] = []
    position = start
    if start < SUPERBLOCK_BYTES:
        damage += _superblock(volume)
        position = SUPERBLOCK_BYTES
    try:
        for item in scan(volume.file, volume.seed, position, limit):
            if isinstance(item, Damage):
                damage.append(item)
            position = item.end
            if position - start >= size_bytes:
                break
    except DiskError as error:
        end = _next_needle(volume, position, limit)
        damage.append(Damage(position, end - position, str(error)))
        position = end
    return Examined(start, position, damage)


def _superblock(volume: Volume) -> list[Damage]:
    expected = volume.superblock.pack()
    try:
        if volume.file.pread(SUPERBLOCK_BYTES, 0) == expected:
            return []
        problem = "the superblock is not what it was when the volume was opened"
    except DiskError as error:
        problem = str(error)
    return [Damage(0, SUPERBLOCK_BYTES, problem)]


def _next_needle(volume: Volume, offset: int, limit: int) -> int:
    """Where the next needle begins, by the index: the bytes before it cannot be read."""
    behind = (entry.offset for _, _, entry in volume.index.entries() if entry.offset > offset)
    return min(min(behind, default=limit), limit)
