"""Verifying a piece of a volume: superblock, every needle, and the bytes between. Everything here blocks.

What the disk has is read, not what happens to be in memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from haystack.errors import DamagedNeedle, DiskError
from haystack.volume import Damage, Volume
from haystack.volume.files import VolumeFile
from haystack.volume.hashing import read_exactly
from haystack.volume.incoming import verified_needles
from haystack.volume.layout import SUPERBLOCK_BYTES
from haystack.volume.past_cache import PastCache
from haystack.volume.scan import SMALL_BYTES, scan

AHEAD_BYTES = 4 * SMALL_BYTES
"""What a scan reads ahead."""


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
    file = PastCache(volume.file)
    if start < SUPERBLOCK_BYTES:
        damage += _superblock(volume, file)
        position = SUPERBLOCK_BYTES
    try:
        for item in scan(file, volume.seed, position, limit):
            if isinstance(item, Damage):
                damage.append(item)
            position = item.end
            if position - start >= size_bytes:
                break
    except DiskError:
        # It was met anywhere in what was read ahead: look at each needle of that alone.
        for end in _ends(volume, position, limit):
            damage += _alone(volume, file, position, end)
            position = end
    return Examined(start, position, damage)


def _superblock(volume: Volume, file: VolumeFile) -> list[Damage]:
    expected = volume.superblock.pack()
    try:
        if file.pread(SUPERBLOCK_BYTES, 0) == expected:
            return []
        problem = "the superblock is not what it was when the volume was opened"
    except DiskError as error:
        problem = str(error)
    return [Damage(0, SUPERBLOCK_BYTES, problem)]


def _ends(volume: Volume, offset: int, limit: int) -> list[int]:
    """Where the needles near ``offset`` end, by the index; at least one."""
    near, behind = offset + AHEAD_BYTES, limit
    ends = set()
    for _, _, entry in volume.index.entries():
        if offset < entry.offset <= near:
            ends.add(entry.offset)
        elif near < entry.offset < behind:
            behind = entry.offset
    return [end for end in sorted({*ends, behind}) if end <= limit]


def _alone(volume: Volume, file: VolumeFile, start: int, end: int) -> list[Damage]:
    """Verify one or a few needles by a read of exactly these bytes."""
    try:
        needles = verified_needles(read_exactly(file, start, end), volume.seed, start, str(volume))
    except DiskError as error:
        return [Damage(start, end - start, str(error))]
    except DamagedNeedle as error:
        return [Damage(start, end - start, error.problem)]
    return [] if needles and needles[-1].end == end else [Damage(start, end - start, "no needle ends here")]
