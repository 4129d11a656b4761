"""Sizes and counts of a volume, for people and for the Directory."""

from __future__ import annotations

from dataclasses import dataclass

from haystack.volume.index import NeedleIndex
from haystack.volume.layout import Superblock


@dataclass(frozen=True, slots=True)
class VolumeStat:
    """Sizes and counts of a volume; for the meaning of the sums see
    :class:`~haystack.volume.index_records.IndexState`.
    """

    volume: int
    uuid: str
    generation: int
    replication: int
    created_ms: int
    size_bytes: int
    max_bytes: int
    index_bytes: int
    live_count: int
    live_bytes: int
    deleted_count: int
    deleted_bytes: int
    max_key: int
    last_append_ms: int

    @classmethod
    def of(cls, block: Superblock, index: NeedleIndex, max_bytes: int) -> VolumeStat:
        """What superblock and index say as of the last append."""
        state = index.state()
        return cls(
            volume=block.volume,
            uuid=block.uuid.hex(),
            generation=block.generation,
            replication=block.replication,
            created_ms=block.created_ms,
            size_bytes=state.tail,
            max_bytes=max_bytes,
            index_bytes=index.size_bytes(),
            live_count=state.live_count,
            live_bytes=state.live_bytes,
            deleted_count=state.deleted_count,
            deleted_bytes=state.deleted_bytes,
            max_key=state.max_key,
            last_append_ms=state.last_append_ms,
        )
