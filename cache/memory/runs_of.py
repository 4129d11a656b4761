"""Where a photo lies, as its descriptor tells; for the keeper and the workers. Pure."""

from __future__ import annotations

from cache.memory.layout import GRANULE_BYTES, INLINE_RUNS, RUN, Runs, data_start, table_start


def runs_of(arena: memoryview, fields: tuple[int, ...]) -> Runs:
    """All runs of a photo, as (first granule, granules).

    Parameters
    ----------
    fields: of the descriptor, see ``layout.DESCRIPTOR``.
    """
    runs, head_bytes, meta_bytes, first = fields[10], fields[12], fields[13], fields[14]
    if runs <= INLINE_RUNS:
        numbers = fields[14 : 14 + 2 * runs]
        return tuple(zip(numbers[::2], numbers[1::2], strict=True))
    start = first * GRANULE_BYTES + table_start(head_bytes, meta_bytes)
    return tuple(RUN.iter_unpack(arena[start : start + runs * RUN.size]))


def slices_of(arena: memoryview, runs: Runs, skipped: int, start: int, end: int) -> list[memoryview]:
    """Bytes ``start`` to ``end`` of what lies in these runs behind the first ``skipped`` bytes; no slice is empty."""
    slices, position = [], -skipped
    for first, granules in runs:
        run_start, run_bytes = first * GRANULE_BYTES, granules * GRANULE_BYTES
        low, high = max(start, 0) - position, end - position
        low, high = max(low, 0), min(high, run_bytes)
        if low < high:
            slices.append(arena[run_start + low : run_start + high])
        position += run_bytes
        if position >= end:
            break
    return slices


def meta_of(arena: memoryview, fields: tuple[int, ...]) -> bytes:
    """The packed metadata of a photo."""
    start = fields[14] * GRANULE_BYTES + fields[12]
    return bytes(arena[start : start + fields[13]])


def data_views(arena: memoryview, fields: tuple[int, ...]) -> list[memoryview]:
    """All data of a photo in its order."""
    runs = runs_of(arena, fields)
    skipped = data_start(fields[12], fields[13], len(runs))
    return slices_of(arena, runs, skipped, 0, fields[11])
