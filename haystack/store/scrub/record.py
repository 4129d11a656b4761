"""How far the scrubbing of each volume is, and what it found; kept in ``scrub.json`` of each data folder.

Its loss costs a pass that begins anew.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

SCRUB_FILE = "scrub.json"
MAX_BROKEN = 1000
"""Ranges of a volume that are remembered as damaged; of more only that there are some matters."""


@dataclass(slots=True)
class ScrubRecord:
    """One volume.

    Parameters
    ----------
    uuid, generation: of the volume.
    position: everything below it was verified in this pass; bytes from the start of the volume.
    started_ms: when this pass began, 0 when none is under way. finished_ms: when the last one ended, 0 for never.
    broken: damaged ranges that no copy could mend, as offset and bytes.
    mended: ranges that were mended so far.
    diverged: where another copy is sound and different, as offset and bytes.
    """

    uuid: str
    generation: int
    position: int = 0
    started_ms: int = 0
    finished_ms: int = 0
    broken: list[list[int]] = field(default_factory=list)
    mended: int = 0
    diverged: list[list[int]] = field(default_factory=list)

    @property
    def broken_bytes(self) -> int:
        return sum(size for _, size in self.broken)

    def begin(self, now_ms: int) -> None:
        """Begin a pass."""
        self.position, self.started_ms = 0, now_ms

    def examined(
        self, start: int, end: int, broken: list[tuple[int, int]], diverged: list[tuple[int, int]] | None
    ) -> None:
        """Note what is known of a range now; ``diverged`` is None when it was compared with nobody."""
        self.broken = _replaced(self.broken, start, end, broken)
        if diverged is not None:
            self.diverged = _replaced(self.diverged, start, end, diverged)

    def finish(self, now_ms: int) -> None:
        """End a pass."""
        self.position, self.started_ms, self.finished_ms = 0, 0, now_ms

    def problem(self) -> str:
        """What an operator should know, or nothing."""
        said = []
        if self.broken:
            said.append(f"{self.broken_bytes} bytes in {len(self.broken)} places are damaged, and no copy has them")
        if self.diverged:
            said.append(f"{len(self.diverged)} places are sound but not as in another copy")
        return "; ".join(said)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, saved: dict[str, Any], uuid: str, generation: int) -> ScrubRecord:
        """The record as saved; a new one when that is of another volume, or cannot be used."""
        try:
            found = cls(**saved)
            numbers = (found.position, found.started_ms, found.finished_ms, found.mended, found.generation)
            pairs = [number for pair in (*found.broken, *found.diverged) for number in (len(pair) == 2, *pair)]
            if not all(isinstance(number, int) and number >= 0 for number in (*numbers, *pairs)):
                return cls(uuid, generation)
        except TypeError:
            return cls(uuid, generation)
        return found if (found.uuid, found.generation) == (uuid, generation) else cls(uuid, generation)


def _replaced(known: list[list[int]], start: int, end: int, now: list[tuple[int, int]]) -> list[list[int]]:
    """Ranges outside of ``start`` to ``end`` as they were, inside as they are now."""
    outside = [pair for pair in known if pair[0] + pair[1] <= start or pair[0] >= end]
    return sorted([*outside, *(list(pair) for pair in now)])[:MAX_BROKEN]
