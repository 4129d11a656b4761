"""Who has a copy of a volume under one epoch, and how that is written down. Pure: no I/O.

The same document is kept in ``<id>.members``, pushed to ``PUT /admin/volumes/<id>/membership`` and answered by the
Directory to a report of a suspect.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from haystack.errors import InvalidRequest

MEMBERS_FORMAT = 1
MAX_MEMBERS = 64
"""Members of one volume; XYZ can promise 28 copies, and a few more exist while copies move."""

MAX_EPOCH = 2**53
"""An epoch has room beside a duty in one cell of shared memory, and is exact in every JSON reader."""

MAX_ADDRESS_CHARS = 300


@dataclass(frozen=True, slots=True)
class Member:
    """A Store that has a copy: its id, and ``host:port`` of its data port and of its admin port."""

    store_id: str
    url: str
    admin_url: str

    def document(self) -> dict[str, str]:
        """As JSON."""
        return {"storeId": self.store_id, "url": self.url, "adminUrl": self.admin_url}


@dataclass(frozen=True, slots=True)
class Membership:
    """What the Directory has granted for one volume, and what a primary has taken on beside it.

    Parameters
    ----------
    uuid: of the logical volume.
    epoch: number of this membership; the Directory gives each number once, and each has one primary.
    primary: id of the Store that orders the appends; one of ``in_sync``.
    copies: how many were promised.
    in_sync: the Stores that have every acknowledged byte.
    learners: copies that the primary waits for, but that the Directory does not count yet. They are of this epoch
        alone, and known to the primary alone.
    generation: of the volume's files under this epoch; None as long as no copies were compacted together. A copy of
        another generation takes no part.
    """

    uuid: str
    epoch: int
    primary: str
    copies: int
    in_sync: tuple[Member, ...]
    learners: tuple[Member, ...] = ()
    generation: int | None = None

    def suits(self, generation: int | None) -> bool:
        """Whether a file of this generation (None: not known) may take part under this epoch."""
        return self.generation is None or generation is None or generation == self.generation

    def counts(self, store_id: str) -> bool:
        """Whether this Store is in the in-sync set."""
        return any(member.store_id == store_id for member in self.in_sync)

    @property
    def leader(self) -> Member:
        """The primary's addresses."""
        return next(member for member in self.in_sync if member.store_id == self.primary)

    @property
    def degraded(self) -> bool:
        """Whether there are fewer copies in sync than promised."""
        return len(self.in_sync) < self.copies

    def followers(self, me: str) -> tuple[Member, ...]:
        """All whose confirmation the primary ``me`` waits for: the other in-sync copies and the learners."""
        return tuple(member for member in (*self.in_sync, *self.learners) if member.store_id != me)

    def with_learner(self, member: Member) -> Membership:
        """The same with a learner more; its addresses are renewed when it is one already."""
        others = tuple(one for one in self.learners if one.store_id != member.store_id)
        return replace(self, learners=(*others, member))

    def document(self) -> dict[str, Any]:
        """As JSON, without what is of this Store alone."""
        return {
            "format": MEMBERS_FORMAT,
            "uuid": self.uuid,
            "epoch": self.epoch,
            "primary": self.primary,
            "copies": self.copies,
            "inSync": [member.document() for member in self.in_sync],
            **({} if self.generation is None else {"generation": self.generation}),
        }


def promised_copies(replication: int) -> int:
    """Copies that a volume's ``replication`` (three digits as a number) promises."""
    return 1 + replication // 100 + replication // 10 % 10 + replication % 10


def following(uuid: str, epoch: int, source: Member, copies: int, generation: int | None = None) -> Membership:
    """What a copy that follows ``source`` knows: that under this epoch it does not count itself."""
    return Membership(uuid, epoch, source.store_id, copies, (source,), generation=generation)


def pack_members(membership: Membership, me: str) -> bytes:
    """The content of ``<id>.members`` on the Store ``me``."""
    document = membership.document() | {
        "learners": [member.document() for member in membership.learners],
        "stale": not membership.counts(me),
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def unpack_members(raw: bytes) -> Membership:
    """Read ``<id>.members``. Raises InvalidRequest, saying what is wrong."""
    try:
        document = json.loads(raw)
    except ValueError as error:
        raise InvalidRequest(f"it is no JSON: {error}") from error
    membership = parse_membership(document)
    return replace(membership, learners=_members(document.get("learners", []), "learners"))


def parse_membership(document: object) -> Membership:
    """Read the document of a membership; learners in it are ignored. Raises InvalidRequest, naming the field."""
    if not isinstance(document, Mapping):
        raise InvalidRequest("a membership must be a JSON object")
    if document.get("format", MEMBERS_FORMAT) != MEMBERS_FORMAT:
        raise InvalidRequest(f"membership format {document.get('format')!r:.40} is unknown to this release")
    in_sync = _members(document.get("inSync"), "inSync")
    membership = Membership(
        _uuid(document.get("uuid")),
        _whole(document, "epoch", 1, MAX_EPOCH),
        _text(document.get("primary"), "primary"),
        _whole(document, "copies", 1, MAX_MEMBERS),
        in_sync,
        generation=None if document.get("generation") is None else _whole(document, "generation", 0, MAX_EPOCH),
    )
    if not membership.counts(membership.primary):
        raise InvalidRequest("the primary of a membership must be one of inSync")
    return membership


def parse_member(document: object, field: str = "member") -> Member:
    """Read one member. Raises InvalidRequest, naming the field."""
    if not isinstance(document, Mapping):
        raise InvalidRequest(f"{field} must be an object with storeId, url and adminUrl")
    return Member(
        _text(document.get("storeId"), f"{field}.storeId"),
        _text(document.get("url"), f"{field}.url"),
        _text(document.get("adminUrl"), f"{field}.adminUrl"),
    )


def _members(value: object, field: str) -> tuple[Member, ...]:
    if not isinstance(value, list) or len(value) > MAX_MEMBERS:
        raise InvalidRequest(f"{field} must be a list of at most {MAX_MEMBERS} members")
    members = tuple(parse_member(one, field) for one in value)
    if len({member.store_id for member in members}) != len(members):
        raise InvalidRequest(f"{field} names a Store twice")
    return members


def _text(value: object, field: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ADDRESS_CHARS or not value.isprintable():
        raise InvalidRequest(f"{field} must be a text of 1 to {MAX_ADDRESS_CHARS} characters, not {value!r:.60}")
    return value


def _uuid(value: object) -> str:
    try:
        return str(UUID(value if isinstance(value, str) else ""))
    except ValueError as error:
        raise InvalidRequest(f"uuid must be a UUID, not {value!r:.60}") from error


def _whole(document: Mapping[str, Any], name: str, least: int, most: int) -> int:
    value = document.get(name)
    if type(value) is not int or not least <= value <= most:
        raise InvalidRequest(f"{name} must be a whole number from {least} to {most}, not {value!r:.40}")
    return value
