"""The power is cut while uploads run: nothing that was acknowledged may be lost, and nobody has to help.

A loop-mounted ext4 is shut down with EXT4_IOC_SHUTDOWN while a process appends, then mounted again, which replays the
journal as after a power cut. Run with ``pytest tests/campaigns/test_power_cut.py``, as root.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from campaign_disks import loop_disk, missing

from haystack.errors import HaystackError, NeedleNotFound
from haystack.volume import Delete, NewNeedle, Put, Volume, check_volume
from haystack.volume.commit import Committer
from haystack.volume.operations import Outcome

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

CUTS = 25
CLIENTS = 16


def photo(key: int, alternate: int, size: int) -> bytes:
    return random.Random(key * 10 + alternate).randbytes(size)


def append_until_killed(path: Path, first_key: int, pipe: int, checkpoints: bool) -> None:
    """Upload and delete from several clients; say so on the pipe when, and only when, it was acknowledged."""
    volume = Volume.open(path)
    committer = Committer()
    next_key = iter(range(first_key, 2**60))
    lock = threading.Lock()

    def client(number: int) -> None:
        rng = random.Random(first_key + number)
        mine: list[int] = []
        while True:
            with lock:
                key = next(next_key)
            done: list[Outcome] = []
            event = threading.Event()
            size, renditions = rng.choice([10, 1000, 20_000]), rng.choice([1, 1, 3])
            deleted = mine.pop() if len(mine) > 5 and rng.random() < 0.3 else None
            if deleted is not None:
                operation: Put | Delete = Delete(deleted, deleted, 1)
                said = f"D {deleted} 0 0\n"
                os.write(pipe, f"d {deleted} 0 0\n".encode())  # begun: from here on either is right
            else:
                needles = (
                    NewNeedle(key, key, (photo(key, alternate, size),), 1, alternate) for alternate in range(renditions)
                )
                operation = Put(tuple(needles))
                said = f"P {key} {renditions} {size}\n"
                if renditions == 1:
                    mine.append(key)
            committer.submit(volume, operation, lambda outcome: (done.append(outcome), event.set()))  # noqa: B023
            event.wait()
            if isinstance(done[0], HaystackError):
                return
            os.write(pipe, said.encode())

    for number in range(CLIENTS):
        threading.Thread(target=client, args=(number,), daemon=True).start()
    while checkpoints:
        threading.Event().wait(0.05)
        try:
            volume.checkpoint()
        except HaystackError:
            return
    threading.Event().wait()


@pytest.mark.timeout(600)
def test_power_cut_loses_nothing_acknowledged(tmp_path: Path) -> None:
    rng = random.Random(2024)
    photos: dict[int, tuple[int, int]] = {}
    deleting: set[int] = set()
    deleted: set[int] = set()
    told = []
    with loop_disk(tmp_path) as disk:
        path = disk.mount_point / "7.vol"
        Volume.create(path, 7).close()
        for cut in range(CUTS):
            reader, writer = os.pipe()
            code = (
                "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; "
                "from test_power_cut import append_until_killed as go; "
                "go(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5] == '1')"
            )
            arguments = [str(Path(__file__).parent), str(path), str(1 + cut * 10**6), str(writer), str(cut % 2)]
            child = subprocess.Popen(
                [sys.executable, "-c", code, *arguments], pass_fds=[writer], stderr=subprocess.DEVNULL
            )
            os.close(writer)
            stop_after = rng.randint(5, 600)
            with os.fdopen(reader) as lines:
                for count, line in enumerate(lines):
                    kind, key, renditions, size = line.split()
                    if kind == "P":
                        photos[int(key)] = (int(renditions), int(size))
                    elif kind == "d":
                        deleting.add(int(key))
                    else:
                        deleted.add(int(key))
                    if count == stop_after:
                        disk.cut_power()
                        child.kill()
            child.wait(60)
            disk.unmount()
            disk.mount()
            with Volume.open(path) as volume:
                report = volume.report
                told.append((bool(report.rebuilt), len(report.damage), report.torn_bytes))
                for key, (renditions, size) in photos.items():
                    if key in deleted or (key in deleting and _gone(volume, key)):
                        deleted.add(key)
                        with pytest.raises(NeedleNotFound):
                            volume.get(key, key)
                        continue
                    deleting.discard(key)
                    for alternate in range(renditions):
                        assert volume.get(key, key, alternate=alternate).data == photo(key, alternate, size)
            if not any(damage for _, damage, _ in told):
                check = check_volume(path, full=True)
                assert check.ok, check.problems
    print(f"{CUTS} power cuts, {len(photos)} uploads and {len(deleted)} deletes were acknowledged")
    print(f"(index rebuilt, damaged ranges, torn bytes) of each: {told}")


def _gone(volume: Volume, key: int) -> bool:
    try:
        volume.get(key, key)
    except NeedleNotFound:
        return True
    return False
