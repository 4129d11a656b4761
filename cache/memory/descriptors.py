"""The keeper's side of the descriptors: what is said of each entry."""

from __future__ import annotations

from dataclasses import dataclass

from cache.memory.layout import (
    ALTERNATE,
    ALTERNATE_OFFSET,
    COMPLETE_CELL,
    DESCRIPTOR,
    DESCRIPTOR_BYTES,
    DESCRIPTOR_CELLS,
    FILLED_CELL,
    INLINE_RUNS,
    KEY_CELL,
    VERIFIED_CELL,
    Runs,
)
from cache.memory.shared import fence


@dataclass(frozen=True, slots=True)
class NewPhoto:
    """A photo that is about to be fetched.

    Parameters
    ----------
    checksum: of the needle; time_ms: when it was written, milliseconds since 1970.
    expires: seconds since 1970; 0 for never.
    stored_ms: when it was fetched, milliseconds since 1970.
    verified_ns: up to when it is known to be in force, by the clock of the node.
    flags: 16 bits for the keeper's own use.
    head: what the workers answer with, ready made; at most 16 KiB.
    meta: the needle's metadata, packed; at most 8 KiB.
    data_bytes: length of the data.
    """

    volume: int
    key: int
    cookie: int
    alternate: int
    checksum: int
    time_ms: int
    expires: int
    stored_ms: int
    verified_ns: int
    head: bytes
    meta: bytes
    data_bytes: int
    flags: int = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """A photo that is kept; parameters as of :class:`NewPhoto`, and which entry it is."""

    entry: int
    generation: int
    volume: int
    key: int
    cookie: int
    alternate: int
    checksum: int
    time_ms: int
    expires: int
    stored_ms: int
    verified_ns: int
    flags: int
    data_bytes: int


class Descriptors:
    """Writes and reads descriptors. The order of the stores is what readers rely on.

    Parameters
    ----------
    view: the descriptors' part of the index.
    """

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self.cells = view.cast("Q")
        self._generation = 0

    def write(self, entry: int, photo: NewPhoto, runs: Runs) -> int:
        """Describe a photo that is being filled; returns its generation. The entry must be out of use."""
        self._generation += 1
        inline = [number for run in runs[:INLINE_RUNS] for number in run]
        inline += [0] * (2 * INLINE_RUNS - len(inline))
        fields = (
            self._generation,
            photo.volume,
            photo.alternate,
            photo.key,
            photo.cookie,
            photo.checksum,
            photo.time_ms,
            photo.stored_ms,
            photo.expires,
            photo.flags,
            len(runs),
            photo.data_bytes,
            len(photo.head),
            len(photo.meta),
            *inline,
        )
        base = entry * DESCRIPTOR_CELLS
        self.cells[base + FILLED_CELL] = 0
        self.cells[base + COMPLETE_CELL] = 0
        self.cells[base + VERIFIED_CELL] = photo.verified_ns
        DESCRIPTOR.pack_into(self._view, entry * DESCRIPTOR_BYTES, 0, *fields[1:], hash(fields))
        fence()
        self.cells[base] = self._generation  # last: with it the entry is in use
        return self._generation

    def void(self, entry: int) -> None:
        """The entry is not that photo any more. Readers that are about to look see it; others may still be reading."""
        self.cells[entry * DESCRIPTOR_CELLS] = 0
        fence()

    def generation(self, entry: int) -> int:
        """0 when it is out of use."""
        return int(self.cells[entry * DESCRIPTOR_CELLS])

    def key(self, entry: int) -> int | None:
        """The photo id of an entry; None when it is out of use. A tenth of the price of all fields."""
        base = entry * DESCRIPTOR_CELLS
        return int(self.cells[base + KEY_CELL]) if self.cells[base] else None

    def alternate(self, entry: int) -> int:
        """The alternate key of an entry that is in use."""
        alternate: int = ALTERNATE.unpack_from(self._view, entry * DESCRIPTOR_BYTES + ALTERNATE_OFFSET)[0]
        return alternate

    def fields(self, entry: int) -> tuple[int, ...]:
        """As they lie in the descriptor, see ``layout.DESCRIPTOR``."""
        return DESCRIPTOR.unpack_from(self._view, entry * DESCRIPTOR_BYTES)

    def kept(self, entry: int) -> Kept:
        """What is said of an entry that is in use."""
        (
            generation,
            volume,
            alternate,
            key,
            cookie,
            checksum,
            time_ms,
            stored_ms,
            expires,
            flags,
            _runs,
            data_bytes,
        ) = self.fields(entry)[:12]
        verified_ns = self.cells[entry * DESCRIPTOR_CELLS + VERIFIED_CELL]
        return Kept(
            entry,
            generation,
            volume,
            key,
            cookie,
            alternate,
            checksum,
            time_ms,
            expires,
            stored_ms,
            verified_ns,
            flags,
            data_bytes,
        )

    def set_filled(self, entry: int, filled_bytes: int) -> None:
        fence()  # nobody may see the count before the bytes
        self.cells[entry * DESCRIPTOR_CELLS + FILLED_CELL] = filled_bytes

    def set_complete(self, entry: int) -> None:
        fence()
        self.cells[entry * DESCRIPTOR_CELLS + COMPLETE_CELL] = 1

    def is_complete(self, entry: int) -> bool:
        return bool(self.cells[entry * DESCRIPTOR_CELLS + COMPLETE_CELL])

    def set_verified(self, entry: int, verified_ns: int) -> None:
        self.cells[entry * DESCRIPTOR_CELLS + VERIFIED_CELL] = verified_ns
