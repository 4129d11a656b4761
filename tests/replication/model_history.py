"""What was acknowledged, and the invariants that the copies of one volume are held against."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from model_world import LogFile

UNIT = struct.Struct(">IBxxxQ")
"""One needle of the model: key, 1 for a tombstone, and a number that no other needle has."""

PUT, TOMBSTONE = 0, 1


class Violated(AssertionError):
    """An invariant does not hold."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A needle that a client was told to be safe."""

    store: str
    epoch: int
    offset: int
    needle: bytes


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy that counts: the Store's name and the bytes on its disk, None when it has none."""

    store: str
    log: LogFile | None


@dataclass(slots=True)
class History:
    """All acknowledgements of a run.

    Parameters
    ----------
    counted: returns the copies that count by the Directory's own record, at this moment. copies: all that there are.
    now: virtual time in seconds.
    """

    counted: Callable[[], Iterable[Copy]]
    copies: Callable[[], Iterable[Copy]]
    now: Callable[[], float]
    promised: int
    told: list[Acknowledged] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    _uploaded: set[int] = field(default_factory=set)
    _at: dict[int, bytes] = field(default_factory=dict)
    _epochs: dict[int, str] = field(default_factory=dict)

    def note(self, text: str) -> None:
        self.log.append(f"{self.now():9.4f} {text}")

    def acknowledge(self, store: str, epoch: int, offset: int, needle: bytes) -> None:
        """A primary tells a client that a needle is safe."""
        kind = UNIT.unpack(needle)[1]
        self.note(f"{store} acknowledges {'delete' if kind else 'upload'} at {offset} under epoch {epoch}")
        self.told.append(Acknowledged(store, epoch, offset, needle))
        if self._at.setdefault(offset, needle) != needle:
            self._violated(f"two needles were acknowledged at offset {offset}")
        if self._epochs.setdefault(epoch, store) != store:
            self._violated(f"{store} and {self._epochs[epoch]} have both acknowledged under epoch {epoch}")
        if kind == PUT:
            holders = [copy.store for copy in self.copies() if has(copy.log, offset, needle)]
            if len(holders) < self.promised:
                self._violated(f"{store} has acknowledged what only {holders} have of {self.promised} promised copies")
        self._check([self.told[-1]])

    def first_upload(self, key: int) -> bool:
        """Note that a key is being uploaded; False when it was before."""
        first = key not in self._uploaded
        self._uploaded.add(key)
        return first

    def check(self) -> None:
        """Every acknowledged needle is durable in every copy that counts, at its place.

        To be called when other copies count, and when one of them was cut, lost or removed.
        """
        self._check(self.told)

    def _check(self, needles: Iterable[Acknowledged]) -> None:
        for copy in self.counted():
            for one in needles:
                if not has(copy.log, one.offset, one.needle):
                    self._violated(
                        f"{copy.store} counts, and lacks what {one.store} acknowledged at {one.offset} under epoch "
                        f"{one.epoch}"
                    )

    def check_rest(self, copies: Iterable[tuple[str, LogFile]]) -> None:
        """At rest all copies are equal, hold all that was acknowledged, and nothing deleted is back."""
        copies = list(copies)
        contents = {name: bytes(log.content) for name, log in copies}
        if len(set(contents.values())) > 1:
            self._violated(f"copies differ at rest: { {name: len(content) for name, content in contents.items()} }")
        self.check()
        deleted = {UNIT.unpack(one.needle)[0] for one in self.told if UNIT.unpack(one.needle)[1] == TOMBSTONE}
        for name, content in contents.items():
            last = {key: kind for key, kind, _ in UNIT.iter_unpack(content)}
            back = [key for key in deleted if last.get(key) != TOMBSTONE]
            if back:
                self._violated(f"{name} has photos again that were deleted: {back}")

    def _violated(self, text: str) -> None:
        self.note(text)
        raise Violated(text)


def has(log: LogFile | None, offset: int, needle: bytes) -> bool:
    end = offset + len(needle)
    return log is not None and log.durable >= end and log.content[offset:end] == needle
