"""How far a copy is that follows another one."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from haystack.errors import HaystackError
from haystack.store.copies.bandwidth import Bandwidth
from haystack.store.replication.membership import Member


class FollowFailed(HaystackError):
    """A copy cannot be brought up to its source; its own bytes are as they were, or are a prefix of the source's."""

    http_status = 409


@dataclass(frozen=True, slots=True)
class Order:
    """What the Directory says of a copy that is to follow another one.

    Parameters
    ----------
    epoch: under which the copy does not count.
    replication: copies as a number 0 … 999.
    max_bytes: size limit, None for the Store's own. folder: id of the data folder, None for any.
    source: has every acknowledged byte.
    bytes_per_second: to be read from it at most, None for no limit.
    generation: of the source's file, None when the Directory does not know it.
    """

    volume: int
    uuid: UUID
    epoch: int
    replication: int
    max_bytes: int | None
    folder: str | None
    source: Member
    bytes_per_second: int | None
    generation: int | None = None


@dataclass(slots=True)
class Progress:
    """Bytes of the source that are here, and that are to be here; ``bandwidth`` is its budget."""

    copied_bytes: int = 0
    total_bytes: int = 0
    bandwidth: Bandwidth = field(default_factory=lambda: Bandwidth(None))
