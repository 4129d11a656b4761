"""What the parties of the model say to each other."""

from __future__ import annotations

from dataclasses import dataclass

from haystack.store.replication.membership import Member, Membership
from haystack.store.replication.rules import Kind

DIRECTORY = "directory"


def member_of(store: str) -> Member:
    return Member(store, f"{store}:1", f"{store}:2")


@dataclass(frozen=True, slots=True)
class Batch:
    """Bytes of the volume from ``start`` on; ``committed`` is the primary's committed tail."""

    epoch: int
    start: int
    data: bytes
    committed: int


@dataclass(frozen=True, slots=True)
class Write:
    """A client's upload, or delete when ``kind`` is DELETE, of one key."""

    kind: Kind
    key: int


@dataclass(frozen=True, slots=True)
class PutMembership:
    membership: Membership


@dataclass(frozen=True, slots=True)
class Follow:
    epoch: int
    source: Member
    copies: int


@dataclass(frozen=True, slots=True)
class Admit:
    epoch: int
    member: Member


@dataclass(frozen=True, slots=True)
class ReadBytes:
    start: int


@dataclass(frozen=True, slots=True)
class DeleteCopy:
    epoch: int


@dataclass(frozen=True, slots=True)
class Report:
    """Heartbeat: what a Store says of its copy. ``tail`` None: it has none."""

    store: str
    epoch: int
    tail: int | None
    primary: str | None
    counts: bool
    copies: int
    in_sync: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Suspect:
    store: str
    epoch: int
    suspects: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """Status as over HTTP, and what comes with it."""

    status: int
    reason: str = ""
    tail: int = 0
    epoch: int = 0
    data: bytes = b""
    membership: Membership | None = None
