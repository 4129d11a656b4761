"""What can be done to a volume, and what became of it: the words between the committer and the engine.

Those that exist once an upload are named tuples, which cost a third of a frozen dataclass to make.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from haystack.errors import HaystackError
from haystack.volume.layout import Buffer


class NewNeedle(NamedTuple):
    """A needle to be stored.

    Parameters
    ----------
    key, cookie, alternate: its name.
    data: the photo in any number of pieces; they are not changed.
    meta: packed :class:`~haystack.volume.layout.NeedleMeta`.
    time_ms: milliseconds since 1970.
    expires: seconds since 1970, 0 for never.
    flags: 0, or ``Flags.SIGNED``.
    """

    key: int
    cookie: int
    data: Sequence[Buffer]
    time_ms: int
    alternate: int = 0
    meta: bytes = b""
    expires: int = 0
    flags: int = 0

    @property
    def data_bytes(self) -> int:
        return len(self.data[0]) if len(self.data) == 1 else sum(map(len, self.data))


class Put(NamedTuple):
    """Store needles, all or none."""

    needles: tuple[NewNeedle, ...]


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete one needle by an appended tombstone.

    Parameters
    ----------
    now: skip the trash; what is in the trash already leaves it.
    """

    key: int
    cookie: int
    time_ms: int
    alternate: int = 0
    now: bool = False


@dataclass(frozen=True, slots=True)
class Undelete:
    """Take back the deletion of one needle.

    Parameters
    ----------
    retention_ms: refuse it when the needle was deleted longer ago; None for no limit.
    """

    key: int
    cookie: int
    time_ms: int
    alternate: int = 0
    retention_ms: int | None = None


Operation = Put | Delete | Undelete


class Stored(NamedTuple):
    """Where a needle was stored: byte offset, bytes of data, checksum (its ETag)."""

    offset: int
    data_bytes: int
    checksum: int


@dataclass(frozen=True, slots=True)
class Deleted:
    """What a delete freed: bytes of data of the deleted needle."""

    data_bytes: int


@dataclass(frozen=True, slots=True)
class Undeleted:
    """What an undelete brought back: bytes of data of the needle."""

    data_bytes: int


Outcome = list[Stored] | Deleted | Undeleted | HaystackError
"""What became of one operation; an error concerns that operation alone and left nothing behind."""


class Written(NamedTuple):
    """Bytes that an append wrote, the same on every copy of the volume: from ``offset`` on, in pieces."""

    offset: int
    pieces: Sequence[Buffer]


@dataclass(frozen=True, slots=True)
class Appended:
    """What an append did.

    Parameters
    ----------
    outcomes: in the order of the operations.
    tail: end of the volume after it.
    changed: earlier answers became wrong by it.
    written: what was written, for those who keep further copies; in the order of offsets.
    """

    outcomes: list[Outcome]
    tail: int
    changed: bool
    written: tuple[Written, ...] = ()
