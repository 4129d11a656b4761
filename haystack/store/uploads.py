"""Bodies of uploads on their way in: kept in memory while small, spilled to an unnamed file when large.

An upload is appended to its volume only when all of it is here, because an append holds the volume's lock: a slow
client must not make the others wait.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from pathlib import Path

from haystack.store.control_cells import Counter
from haystack.store.tally import Tally
from haystack.volume.files import disk_error
from haystack.volume.layout import Buffer

HEAD_BYTES = 32
"""First bytes of a body that are kept at hand, to tell the type of a photo."""

SMALL_PIECE_BYTES = 4096
"""Smaller pieces are joined: as objects of their own, the chunks of a few bytes that a client may send would take many
times the memory that they are counted with."""

JOINED_PIECES_BYTES = 64 * 1024
"""Small pieces are joined up to this size."""

SPILL_BYTES = 64 * 1024
"""What an upload that has spilled gathers before it writes again; not counted as upload memory."""

_MEMORY = Counter.UPLOAD_MEMORY_BYTES


class UploadMemory:
    """The memory that all uploads of a worker may use together.

    Parameters
    ----------
    connection_bytes: what one upload may keep in memory.
    total_bytes: what all of them may.
    """

    def __init__(self, connection_bytes: int, total_bytes: int, tally: Tally) -> None:
        self._connection_bytes = connection_bytes
        self._total_bytes = total_bytes
        self._used_bytes = 0
        self._tally = tally

    def take(self, held_bytes: int, more_bytes: int) -> bool:
        """Reserve ``more_bytes`` for an upload that holds ``held_bytes``; False: it has to spill."""
        fits = held_bytes + more_bytes <= self._connection_bytes and self._used_bytes + more_bytes <= self._total_bytes
        if fits:
            self._used_bytes += more_bytes
            self._tally.set(_MEMORY, self._used_bytes)
        return fits

    def give_back(self, held_bytes: int) -> None:
        """Release what an upload held."""
        self._used_bytes -= held_bytes
        self._tally.set(_MEMORY, self._used_bytes)


class UploadBody:
    """The data of one upload.

    Parameters
    ----------
    folder: data folder of the volume that it goes to; the spill file is made there.
    """

    __slots__ = (
        "_folder",
        "_held_bytes",
        "_memory",
        "_pending_bytes",
        "_pieces",
        "_spill_fd",
        "_spilled_bytes",
        "closed",
        "head",
        "size_bytes",
    )

    def __init__(self, memory: UploadMemory, folder: Path) -> None:
        self._memory = memory
        self._folder = folder
        self._pieces: list[bytes | bytearray] = []
        self._pending_bytes = 0
        """Bytes in ``_pieces``."""
        self._held_bytes = 0
        """Bytes that were taken from ``_memory``."""
        self._spilled_bytes = 0
        self._spill_fd = -1
        self.size_bytes = 0
        self.head = b""
        self.closed = False

    @property
    def spilled(self) -> bool:
        return self._spill_fd >= 0

    def add(self, piece: bytes) -> bool:
        """Take a piece; True means that memory is used up: call :meth:`spill` on a thread before the next piece."""
        count = len(piece)
        self.size_bytes += count
        self._pending_bytes += count
        missing = HEAD_BYTES - len(self.head)
        if missing:
            self.head += piece[:missing]
        self._put(piece)
        if self._spill_fd >= 0:
            return self._pending_bytes >= SPILL_BYTES
        if self._memory.take(self._held_bytes, count):
            self._held_bytes += count
            return False
        return True

    def _put(self, piece: bytes) -> None:
        last = self._pieces[-1] if self._pieces else None
        if isinstance(last, bytearray) and len(last) + len(piece) <= JOINED_PIECES_BYTES:
            last += piece
        else:
            self._pieces.append(bytearray(piece) if len(piece) < SMALL_PIECE_BYTES else piece)

    def spill(self) -> None:
        """Move what is in memory to the spill file. Blocks. Raises OutOfSpace or DiskError."""
        try:
            if not self.spilled:
                folder = self._folder / "tmp"
                self._spill_fd = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
            for piece in self._pieces:
                view = memoryview(piece)
                while view:
                    view = view[os.write(self._spill_fd, view) :]
        except OSError as error:
            raise disk_error(str(self._folder / "tmp"), "spill an upload", error) from error

    def spilled_to_disk(self) -> None:
        """Account for a finished :meth:`spill`; on the event loop."""
        self._spilled_bytes += self._pending_bytes
        self._forget_pieces()

    def data(self) -> Sequence[Buffer]:
        """All of it, in pieces to be appended; no :meth:`spill` may be running."""
        if not self._spilled_bytes:
            return tuple(self._pieces)
        return (memoryview(mmap.mmap(self._spill_fd, self._spilled_bytes, prot=mmap.PROT_READ)), *self._pieces)

    def close(self, *, still_spilling: bool = False) -> None:
        """Free memory and file; may be called twice, and is, when a thread was still at :meth:`spill`."""
        self.closed = True
        if still_spilling:
            return
        self._forget_pieces()
        if self._spill_fd >= 0:
            os.close(self._spill_fd)
            self._spill_fd = -1

    def _forget_pieces(self) -> None:
        self._pieces.clear()
        self._pending_bytes = 0
        self._memory.give_back(self._held_bytes)
        self._held_bytes = 0
