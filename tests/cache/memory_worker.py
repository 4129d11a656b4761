"""A worker that reads photos out of the shared memory as fast as it can and looks at every byte.

``python memory_worker.py ARENA INDEX AREA KEYS SEED MODE``: reads until its standard input is closed, then prints what
it saw. In mode ``hold`` it pins all that it finds, says so with a line, and waits.
"""

from __future__ import annotations

import json
import os
import random
import select
import sys

from photo_memory import content, cookie_of

from cache.memory import MemoryReader, Record

PINNED_AT_ONCE = 20


def main() -> None:
    arena, index, area, keys, seed = (int(number) for number in sys.argv[1:6])
    reader = MemoryReader(arena, index, area)
    if sys.argv[6] == "hold":
        hold(reader, keys)
        return
    rng = random.Random(seed)
    seen = {"found": 0, "absent": 0, "pinned": 0, "several_runs": 0}
    wrong: list[str] = []
    pinned: list[Record] = []
    known: dict[int, Record] = {}
    turns = 0
    while not wrong:
        turns += 1
        if turns % 64 == 0 and select.select([0], [], [], 0)[0]:
            break
        key = min(int(rng.paretovariate(0.5)), keys)
        record = known.get(key)
        if record is None or not reader.valid(record):
            record = reader.find(1, key, cookie_of(key))
            if record is None:
                seen["absent"] += 1
                known.pop(key, None)
                continue
            known[key] = record
        seen["found"] += 1
        reader.hit(record)
        wrong += difference(key, record)
        seen["several_runs"] += record.body is None
        if rng.random() < 0.05:
            record.pin()
            seen["pinned"] += 1
            pinned.append(record)
        if len(pinned) > PINNED_AT_ONCE:
            old = pinned.pop(rng.randrange(len(pinned)))
            wrong += difference(None, old)
            old.unpin()
    for record in pinned:
        wrong += difference(None, record)
    print(json.dumps({**seen, "wrong": wrong[:5]}), flush=True)


def difference(key: int | None, record: Record) -> list[str]:
    """What is wrong with the bytes of a record; ``key`` None: that of its metadata, which tells whose it is."""
    data = b"".join(record.pieces())
    name = int.from_bytes(record.meta, "little") if key is None else key
    if data == content(name, record.checksum, record.data_bytes) and record.meta == name.to_bytes(8, "little"):
        return []
    return [f"entry {record.entry}, generation {record.generation}, photo {name}: {len(data)} bytes, {data[:24].hex()}"]


def hold(reader: MemoryReader, keys: int) -> None:
    held = 0
    for key in range(1, keys + 1):
        record = reader.find(1, key, cookie_of(key))
        if record is not None:
            record.pin()
            held += 1
    os.write(1, b"%d\n" % held)
    sys.stdin.read()


if __name__ == "__main__":
    main()
