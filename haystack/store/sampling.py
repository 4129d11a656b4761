"""Some of the reads, from the workers to the supervisor: which photos are read most.

A worker puts every read into the ring of its region in the control block while there are few, and one of ``gap`` at
random while there are many, with ``gap`` beside it: so many reads it stands for. Whether a read is taken is a throw of
its own, so nothing depends on the order of reads; a read that is not taken costs one subtraction. The ring forgets the
oldest samples when nobody looks, which costs nothing but exactness.

Ring: the number of samples that it ever held, then :data:`~haystack.store.control.SAMPLES` times key and weight (with
:data:`NO_VIEW` added when what was read is a small picture, which counts for the heat but is no view). The
number is raised last, so that what lies below it is whole, but for the oldest one, which may just be overwritten.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from math import log
from typing import Final

from haystack.store.control import ControlBlock
from haystack.store.control_cells import SAMPLE_CELLS, SAMPLES
from haystack.views import is_view

MANY: Final = 100
"""Samples between two flushes after which the gap is doubled: 400 a second, with four flushes a second."""

FEW: Final = 40
"""With fewer than these the gap is halved."""

MAX_GAP: Final = 1024

NO_VIEW: Final = 1 << 32


class ReadSampler:
    """What a worker samples its reads with, on its event loop.

    ``left`` says how many reads it takes to the next sample. Whoever has read a photo takes one off, and calls
    :meth:`take` when nothing is left; the fast ways do so in line, all others by :meth:`count`.

    Parameters
    ----------
    dice: random numbers in 0 ≤ x < 1.
    """

    __slots__ = ("_base", "_cells", "_dice", "_gap", "_taken", "left")

    def __init__(self, control: ControlBlock, worker: int, *, dice: Callable[[], float] = random.random) -> None:
        self._cells = control.cells
        self._base = control.samples_base(worker)
        self._dice = dice
        self._gap = 1
        self._taken = 0
        self.left = 1

    def count(self, key: int, alternate: int = 0) -> None:
        """Note a read of this photo."""
        self.left -= 1
        if self.left <= 0:
            self.take(key, alternate)

    def take(self, key: int, alternate: int = 0) -> None:
        """Put a read of this photo into the ring, and draw which one is next."""
        cells, base = self._cells, self._base
        number = cells[base]
        at = base + 1 + number % SAMPLES * SAMPLE_CELLS
        cells[at] = key
        cells[at + 1] = self._gap if is_view(alternate) else self._gap + NO_VIEW
        cells[base] = number + 1
        self._taken += 1
        if self._taken % MANY == 0 and self._gap < MAX_GAP:
            self._gap *= 2
        self._draw()

    def flush(self) -> None:
        """Adapt to how much is read; called a few times a second."""
        if self._taken < FEW and self._gap > 1:
            self._gap //= 2
            self._draw()  # each read is a throw of its own, so one may begin anew at any time
        self._taken = 0

    def _draw(self) -> None:
        self.left = 1 if self._gap == 1 else 1 + int(log(1.0 - self._dice()) / log(1.0 - 1.0 / self._gap))


class SampleReader:
    """What the supervisor reads the rings of all workers with."""

    def __init__(self, control: ControlBlock) -> None:
        self._cells = control.cells
        self._bases = [control.samples_base(worker) for worker in range(control.workers)]
        self._seen = [0] * control.workers

    def take(self) -> list[tuple[int, int]]:
        """Return what was sampled since the last call: key, and how many reads it stands for."""
        return self.take_apart()[0]

    def take_apart(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """As :meth:`take`: all reads, and those of them that are views."""
        found: list[tuple[int, int]] = []
        for worker, base in enumerate(self._bases):
            found += self._take(worker, base)
        views = [(key, weight) for key, weight in found if weight < NO_VIEW]
        return [(key, weight % NO_VIEW) for key, weight in found], views

    def _take(self, worker: int, base: int) -> list[tuple[int, int]]:
        cells = self._cells
        end = cells[base]
        begin = max(self._seen[worker], end - SAMPLES)
        if begin == end:
            return []
        self._seen[worker] = end
        ring = cells[base + 1 : base + 1 + SAMPLES * SAMPLE_CELLS].tolist()
        begin = max(begin, cells[base] - SAMPLES + 1)  # what came meanwhile has taken the place of these
        places = (number % SAMPLES * SAMPLE_CELLS for number in range(begin, end))
        return [(ring[place], ring[place + 1]) for place in places]
