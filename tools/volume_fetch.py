"""One volume fetched into a file, as it is: only what the file lacks, every needle verified, damage mended by asking
another copy.

The file only grows, so whoever knows an earlier size of it still has a volume.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from haystack.client.errors import WrongContent
from haystack.errors import ConfigError, HaystackError, VolumeUnavailable
from haystack.units import MIB
from haystack.volume import ScannedNeedle, Superblock
from haystack.volume.files import VolumeFile, sync_folder
from haystack.volume.hashing import hash_range
from haystack.volume.layout import SUPERBLOCK_BYTES, LayoutError
from haystack.volume.scan import Damage, scan
from tools.volume_source import Extent, VolumeCompacted, VolumeSource

CALL_BYTES = 64 * MIB
"""Asked for at once: the most that a Store gives."""

COMPARED_BYTES = MIB
"""Of the end of what is here already, compared with the source before anything is appended to it."""

ROUNDS = 3
"""How often each copy is asked before it is given up."""

PAUSE_SECONDS = 0.5

Take = Callable[[int], Awaitable[None]]
"""Called with bytes that are about to be written: a limit, a bar."""


@dataclass(slots=True)
class Fetched:
    """What came of it.

    Parameters
    ----------
    copied_bytes: that were not here before.
    damage: offset and bytes of what no copy has right; it is here as one of them has it.
    """

    copied_bytes: int = 0
    damage: list[tuple[int, int]] = field(default_factory=list)


class OtherHistory(HaystackError):
    """The file has other bytes than the volume of the cluster, under the same uuid and generation."""


async def fetch(
    extent: Extent,
    sources: Sequence[VolumeSource],
    path: Path,
    take: Take,
    *,
    trusted: int = 0,
    known_damage: Sequence[tuple[int, int]] = (),
) -> Fetched:
    """Bring a file up to an extent; it is made when it is not there, and durable when this returns.

    Parameters
    ----------
    trusted: what lies below is durable and was verified before; what lies behind, a run that ended early may have left.
    known_damage: ranges below ``trusted`` that no copy had right then; they are asked for again.

    Raises
    ------
    OtherHistory: the file is to be made anew under another name.
    VolumeCompacted: the extent does not exist any more.
    VolumeUnavailable: no copy gives what is missing. HaystackError, OSError: the file cannot be written.
    """
    descriptor = await asyncio.to_thread(_open, path)
    try:
        fetching = _Fetching(extent, sources, path, descriptor, take)
        return await fetching.run(trusted, known_damage)
    finally:
        os.close(descriptor)


def size_of(path: Path) -> int:
    """Return the size of a file, 0 when it is not there. Raises OSError."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


class _Fetching:
    def __init__(
        self, extent: Extent, sources: Sequence[VolumeSource], path: Path, descriptor: int, take: Take
    ) -> None:
        self._extent = extent
        self._sources = sources
        self._path = path
        self._descriptor = descriptor
        self._take = take
        self._fetched = Fetched()
        self._damage: list[Damage] = []

    async def run(self, trusted: int, known_damage: Sequence[tuple[int, int]]) -> Fetched:
        if size_of(self._path) < SUPERBLOCK_BYTES:
            await self._copy(0, SUPERBLOCK_BYTES)
        seed = await asyncio.to_thread(_seed_of, self._path, self._extent)
        if size_of(self._path) < trusted:
            raise OtherHistory(f"{self._path}: has lost its end: {trusted} bytes belong to the backup")
        self._damage += [Damage(offset, size, "damaged in an earlier backup") for offset, size in known_damage]
        position = await asyncio.to_thread(_whole_end, self._path, seed, max(trusted, SUPERBLOCK_BYTES))
        await self._compare(min(position, self._extent.end))
        verified = position
        while position < self._extent.end:
            stop = min(position + CALL_BYTES, self._extent.end)
            await self._copy(position, stop)
            verified = await asyncio.to_thread(self._verify, seed, verified, stop)
            position = stop
        for damage in self._damage:
            if not await self._mend(seed, damage):
                self._fetched.damage.append((damage.offset, damage.length))
        # Also when nothing was copied: an earlier run may have ended before its own sync.
        await asyncio.to_thread(os.fsync, self._descriptor)
        return self._fetched

    async def _copy(self, start: int, end: int, first: int = 0) -> None:
        """Write a range of the volume into the file, from the first copy that gives all of it."""
        problems = []
        for number in range(ROUNDS * len(self._sources)):
            source = self._sources[(first + number) % len(self._sources)]
            position = start
            try:
                async for piece in source.pieces(self._extent, start, end):
                    await self._take(len(piece))
                    await asyncio.to_thread(_write, self._descriptor, piece, position)
                    position += len(piece)
                self._fetched.copied_bytes += end - start
                return
            except (VolumeCompacted, ConfigError):
                raise
            except HaystackError as error:
                problems.append(str(error))
            if number + 1 >= len(self._sources):
                await asyncio.sleep(PAUSE_SECONDS)
        raise VolumeUnavailable(
            f"volume {self._extent.volume}: bytes {start} to {end} cannot be read: {'; '.join(dict.fromkeys(problems))}"
        )

    async def _compare(self, position: int) -> None:
        """See that what is here is the beginning of what is there: the superblock was compared, this is the end."""
        start = max(0, position - COMPARED_BYTES)
        if position <= SUPERBLOCK_BYTES:
            return
        here = await asyncio.to_thread(_hash, self._path, start, position)
        there: list[str] = []
        for source in self._sources:
            try:
                there += await source.hashes(self._extent, start, position, COMPARED_BYTES)
            except (VolumeCompacted, ConfigError):
                raise
            except HaystackError:
                continue  # the next copy says the same; if none says anything, nothing can be copied either
            if here in there:
                return
        if there:
            raise OtherHistory(f"{self._path}: is not the beginning of volume {self._extent.volume} as it is now")

    def _verify(self, seed: int, start: int, end: int) -> int:
        """Walk what came; returns where the next walk begins. Damage that may be a needle's beginning is met again."""
        file = VolumeFile(self._path, readonly=True)
        try:
            for item in scan(file, seed, start, end):
                if isinstance(item, ScannedNeedle):
                    start = item.end
                elif item.end == end < self._extent.end:
                    return start
                else:
                    self._damage.append(item)
                    start = item.end
        finally:
            file.close()
        return start

    async def _mend(self, seed: int, damage: Damage) -> bool:
        """Ask each copy for a damaged range until it is sound."""
        for number in range(len(self._sources)):
            copied = self._fetched.copied_bytes
            await self._copy(damage.offset, damage.end, first=number)
            self._fetched.copied_bytes = copied
            if await asyncio.to_thread(_is_sound, self._path, seed, damage):
                return True
        return False


def _open(path: Path) -> int:
    is_new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    if is_new:
        sync_folder(path.parent)
    return descriptor


def _write(descriptor: int, piece: bytes, position: int) -> None:
    while piece:
        written = os.pwrite(descriptor, piece, position)
        piece, position = piece[written:], position + written


def _seed_of(path: Path, extent: Extent) -> int:
    """Return the seed of the file's checks. Raises WrongContent when it is another volume."""
    with path.open("rb") as file:
        raw = file.read(SUPERBLOCK_BYTES)
    try:
        block = Superblock.unpack(raw)
    except LayoutError as error:
        raise OtherHistory(f"{path}: {error}") from error
    found = block.volume, str(UUID(bytes=block.uuid)), block.generation
    if found != (extent.volume, extent.uuid, extent.generation):
        raise WrongContent(f"{path}: is volume {found[0]} ({found[1]}, generation {found[2]}), not {extent}")
    return block.seed


def _whole_end(path: Path, seed: int, start: int) -> int:
    """Return where the last sound needle ends that follows ``start`` without a gap."""
    file = VolumeFile(path, readonly=True)
    try:
        for item in scan(file, seed, start, file.size_bytes()):
            if not isinstance(item, ScannedNeedle):
                break
            start = item.end
        return start
    finally:
        file.close()


def _hash(path: Path, start: int, end: int) -> str:
    file = VolumeFile(path, readonly=True)
    try:
        return hash_range(file, start, end)
    finally:
        file.close()


def _is_sound(path: Path, seed: int, damage: Damage) -> bool:
    file = VolumeFile(path, readonly=True)
    try:
        return all(isinstance(item, ScannedNeedle) for item in scan(file, seed, damage.offset, damage.end))
    finally:
        file.close()
