"""Cuts and flips at every byte of the last needles; processes that are killed; offsets behind 2^32, 2^35 and 2^40."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from volume_faults import DyingFile, FailingFile, abandon, flip, memory_folder

import haystack.volume.opening as opening_module
from haystack.errors import DamagedNeedle, HaystackError, NeedleNotFound, OutOfSpace, VolumeUnavailable
from haystack.volume import NeedleMeta, NewNeedle, Put, ScannedNeedle, Volume, check_volume
from haystack.volume.dirty import DirtyMarker
from haystack.volume.index import NeedleIndex
from haystack.volume.index_records import IndexEntry
from haystack.volume.layout import HEADER_BYTES, NeedleHeader, needle_bytes, pack_needle

META = NeedleMeta("b.jpg", "image/jpeg").pack()


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="haystack-crashes-", dir=memory_folder()) as name:
        yield Path(name)


def _fill(path: Path) -> list[tuple[int, int, bytes]]:
    """A volume of five needles, the last three a multi-write; (offset, key, data) of each."""
    with Volume.create(path, 7) as volume:
        stored = [(volume.put(1, 1, b"first" * 9).offset, 1, b"first" * 9)]
        stored.append((volume.put(2, 2, b"second", meta=NeedleMeta("b.jpg")).offset, 2, b"second"))
        group = [NewNeedle(key, key, (bytes([key]) * key * 5,), 1, meta=META) for key in (3, 4, 5)]
        for needle, done in zip(group, volume.put_many(group), strict=True):
            stored.append((done.offset, needle.key, bytes(needle.data[0])))
    return stored


def _readable(volume: Volume, stored: list[tuple[int, int, bytes]]) -> set[int]:
    found = set()
    for offset, key, data in stored:
        try:
            needle = volume.get(key, key)
        except (NeedleNotFound, DamagedNeedle):
            continue
        assert (needle.offset, needle.data) == (offset, data)
        found.add(key)
    return found


def _copy(source: Path, target: Path) -> Path:
    shutil.copy(source, target)
    return target


def test_volume_cut_at_every_byte_of_its_last_needles(folder: Path) -> None:
    stored = _fill(folder / "1.vol")
    size, path = (folder / "1.vol").stat().st_size, folder / "7.vol"
    ends = {stored[1][0]: {1}, stored[2][0]: {1, 2}, size: {1, 2, 3, 4, 5}}
    for cut in range(stored[1][0], size + 1):
        _copy(folder / "1.vol", path)
        os.truncate(path, cut)
        expected = ends[max(end for end in ends if end <= cut)]
        with Volume.open(path) as volume:
            assert _readable(volume, stored) == expected, cut
            tail = max(end for end in ends if end <= cut)
            assert (volume.report.torn_bytes, volume.tail()) == (cut - tail, tail)
            if cut > tail:
                assert volume.report.torn_file and Path(volume.report.torn_file).stat().st_size == cut - tail
                Path(volume.report.torn_file).unlink()
            volume.put(9, 9, b"after the cut")
        path.with_suffix(".idx").unlink()
        with Volume.open(path) as volume:
            assert not volume.report.damage and not volume.report.torn_bytes
            assert _readable(volume, stored) == expected
            assert volume.get(9, 9).data == b"after the cut"
        path.with_suffix(".idx").unlink()


def test_volume_flip_at_every_byte_then_appends_then_no_index(folder: Path) -> None:
    stored = _fill(folder / "1.vol")
    size, path = (folder / "1.vol").stat().st_size, folder / "7.vol"
    shutil.copy(folder / "1.idx", folder / "good.idx")
    bounds = [*(offset for offset, _, _ in stored), size]
    for at in range(stored[0][0], size):
        _copy(folder / "1.vol", path)
        _copy(folder / "good.idx", path.with_suffix(".idx"))
        flip(path, at, 1 << at % 8)
        number = max(index for index, bound in enumerate(bounds[:-1]) if bound <= at)
        offset, key, _ = stored[number]
        with Volume.open(path) as volume:
            with pytest.raises(DamagedNeedle, match=str(offset)):
                volume.get(key, key)
            volume.put(9, 9, b"after the flip")
        path.with_suffix(".idx").unlink()
        with Volume.open(path) as volume:
            # The others are all there, members of the same multi-write included: it was acknowledged.
            assert _readable(volume, stored) == {1, 2, 3, 4, 5} - {key}, at
            assert volume.get(9, 9).data == b"after the flip"
            (damage,) = volume.report.damage
            assert (damage.offset, damage.end) == (offset, bounds[number + 1])
            header_sound = at - offset >= HEADER_BYTES
            with pytest.raises(DamagedNeedle if header_sound else NeedleNotFound):
                volume.get(key, key)
        report = check_volume(path, full=True)
        assert report.problem_count == 1 and "damage" in report.problems[0], report.problems
        path.with_suffix(".idx").unlink()


def test_volume_torn_needle_with_later_ones_written_over_what_it_claims(tmp_path: Path) -> None:
    """Another writer than ours may have gone on behind a torn needle; its header must not hide what follows."""
    path = tmp_path / "7.vol"
    with Volume.create(path, 7) as volume:
        volume.put(1, 1, b"before")
        seed, tail = volume.seed, volume.tail()
    torn = b"".join(bytes(p) for p in pack_needle(NeedleHeader(2, 2, 0, 5000, 0, 1), b"", [bytes(5000)], seed)[0])[
        :1000
    ]
    later = b"".join(
        b"".join(bytes(p) for p in pack_needle(NeedleHeader(key, key, 0, 100, 0, 1), b"", [bytes(100)], seed)[0])
        for key in range(10, 10 + 60)
    )
    for kept in (
        len(later),
        needle_bytes(0, 100) * 3,
    ):  # with and without enough to reach the end that the torn one claims
        with path.open("r+b") as file:
            file.truncate(tail)
            file.seek(tail)
            file.write(torn + later[:kept])
        path.with_suffix(".idx").unlink(missing_ok=True)
        with Volume.open(path) as volume:
            assert [(d.offset, d.length) for d in volume.report.damage] == [(tail, 1000)]
            assert all(volume.get(key, key).data == bytes(100) for key in range(10, 10 + kept // needle_bytes(0, 100)))
            assert not volume.report.torn_bytes


def test_volume_damaged_overwrite_does_not_bring_the_older_photo_back(tmp_path: Path) -> None:
    path = tmp_path / "7.vol"
    with Volume.create(path, 7) as volume:
        volume.put(1, 1, b"older")
        newer = volume.put(1, 1, b"newer").offset
        volume.put(2, 2, b"photo")
        tombstone = volume.tail()
        volume.delete(2, 2)
        volume.put(3, 3, b"later")
    flip(path, newer + HEADER_BYTES)
    flip(path, tombstone + HEADER_BYTES + 8)
    path.with_suffix(".idx").unlink()
    with Volume.open(path) as volume:
        with pytest.raises(DamagedNeedle):
            volume.get(1, 1)
        with pytest.raises(NeedleNotFound):
            volume.get(2, 2)
        assert [damage.offset for damage in volume.report.damage] == [newer, tombstone]


def test_volume_unacknowledged_overwrite_that_was_damaged_gives_the_acknowledged_one_back(tmp_path: Path) -> None:
    """A power cut may keep a later needle and the header of an earlier one, and lose the earlier one's data."""
    path = tmp_path / "7.vol"
    volume = Volume.create(path, 7)
    volume.put(1, 1, b"acknowledged")
    tail = volume.tail()
    volume.append([Put((NewNeedle(1, 1, (b"x" * 100,), 1),)), Put((NewNeedle(2, 2, (b"y",), 1),))])
    abandon(volume)
    flip(path, tail + HEADER_BYTES)
    with Volume.open(path, boot_id="next") as volume:
        assert volume.get(1, 1).data == b"acknowledged"
        assert volume.get(2, 2).data == b"y"
        assert [damage.offset for damage in volume.report.damage] == [tail]


def test_volume_crash_between_marker_and_index_still_rebuilds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each step of giving up an untrusted index, the process dies: the next opening must not trust the old one."""
    path = tmp_path / "7.vol"
    volume = Volume.create(path, 7)
    stale = path.with_suffix(".idx").read_bytes()
    volume.put(1, 1, b"photo")
    abandon(volume)
    path.with_suffix(".idx").write_bytes(stale)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for owner, name in ((DirtyMarker, "renew"), (NeedleIndex, "create"), (NeedleIndex, "write")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, die)
            with pytest.raises(KeyboardInterrupt):
                Volume.open(path, boot_id="next")
    with Volume.open(path, boot_id="next") as volume:
        assert volume.get(1, 1).data == b"photo"


def test_volume_torn_tail_on_a_full_disk_does_not_keep_it_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "7.vol"
    with Volume.create(path, 7) as volume:
        volume.put(1, 1, b"photo")
        tail = volume.tail()
    with path.open("ab") as file:
        file.write(b"torn")

    def full(*_: object) -> None:
        raise OutOfSpace("full")

    with monkeypatch.context() as patch:
        patch.setattr("haystack.volume.recovery.save_range", full)
        volume = Volume.open(path)
    with volume:
        assert volume.get(1, 1).data == b"photo"
        assert volume.report.torn_file is None and volume.report.torn_bytes == 4
        assert "disk is full" in volume.report.lines()[0]
        volume.put(2, 2, b"room again")
        assert volume.tail() == tail + needle_bytes(0, 10) == path.stat().st_size
    assert check_volume(path, full=True).ok


# -- several processes

CONTEXT = multiprocessing.get_context("spawn")


def _start(function: str, path: Path, numbers: list[int], descriptors: list[int]) -> subprocess.Popen[bytes]:
    """Run a function of this module in a process of its own: a killed one takes no lock of multiprocessing along."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; "
        f"from test_volume_crashes import {function} as go; go(Path(sys.argv[2]), *map(int, sys.argv[3:]))"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(path), *map(str, numbers)]
    return subprocess.Popen(command, pass_fds=descriptors)


def _append_for_ever(path: Path, number: int, pipe: int) -> None:
    volume = Volume.attach(path)
    rng = random.Random(number + os.getpid())
    count = 0
    while True:
        count += 1
        key = number << 32 | os.getpid() << 8 | count % 200
        alternates = rng.randint(1, 3)
        data = key.to_bytes(8, "little") * rng.randint(1, 400)
        outcome = volume.append(
            [Put(tuple(NewNeedle(key, count, (data,), 1, alternate) for alternate in range(alternates)))]
        )
        if isinstance(outcome.outcomes[0], HaystackError):
            continue  # an overwrite with another cookie
        volume.sync(outcome.tail)
        os.write(pipe, f"{key},{count},{alternates},{len(data)}\n".encode())


def test_volume_processes_killed_while_appending_lose_nothing_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "7.vol"
    rng = random.Random(7)
    owner = Volume.create(path, 7)
    promised: dict[int, tuple[int, int, int]] = {}
    for _ in range(4):
        reader, writer = os.pipe()
        children = [_start("_append_for_ever", path, [number, writer], [writer]) for number in range(3)]
        os.close(writer)
        stop_after = rng.randint(60, 200)
        with os.fdopen(reader, "r") as lines:
            for count, line in enumerate(lines):
                key, cookie, alternates, size = map(int, line.split(","))
                promised[key] = (cookie, alternates, size)
                if count == stop_after:
                    for child in children:
                        child.kill()
        for child in children:
            child.wait(60)
        for key, (cookie, alternates, size) in promised.items():
            for alternate in range(alternates):
                assert owner.get(key, cookie, alternate=alternate).data == (key.to_bytes(8, "little") * size)[:size]
        owner.put(1, 1, b"the next append works")
        assert check_volume(path, full=True, index=owner.index).ok
    owner.close()
    path.with_suffix(".idx").unlink()
    with Volume.open(path) as volume:
        assert not volume.report.damage and not volume.report.torn_bytes
        for key, (cookie, alternates, _) in promised.items():
            for alternate in range(alternates):
                volume.get(key, cookie, alternate=alternate)
    assert check_volume(path, full=True).ok


def _die_in_append(path: str, short: bool) -> None:
    opening_module.VolumeFile = DyingFile  # type: ignore[misc,assignment]  # attach() takes no file type
    DyingFile.short = short
    volume = Volume.attach(Path(path))
    volume.put(50, 50, b"committed")
    DyingFile.armed = True
    volume.put_many([NewNeedle(key, key, (b"never acknowledged" * 20,), 1) for key in (51, 52)])


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("reopened", [False, True])
def test_volume_process_that_dies_between_write_and_commit(tmp_path: Path, short: bool, reopened: bool) -> None:
    path = tmp_path / "7.vol"
    owner = Volume.create(path, 7)
    child = CONTEXT.Process(target=_die_in_append, args=(str(path), short))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    tail = owner.tail()
    assert path.stat().st_size > tail
    if reopened:
        abandon(owner)
        owner = Volume.open(path)
        assert owner.report.torn_bytes == 0 if not short else owner.report.torn_offset == tail
    else:
        owner.put(60, 60, b"next")  # cuts what was left
        assert owner.tail() == tail + needle_bytes(0, 4) == path.stat().st_size
    assert owner.get(50, 50).data == b"committed"
    owner.close()
    path.with_suffix(".idx").unlink()
    with Volume.open(path) as volume:
        assert not volume.report.damage
        for key in (51, 52):
            if reopened and not short:
                assert volume.get(key, key).data == b"never acknowledged" * 20  # whole, so kept: both or none
            else:
                with pytest.raises(NeedleNotFound):
                    volume.get(key, key)
    assert check_volume(path, full=True).ok


def _hold(path: Path, ready: int, go_on: int) -> None:
    volume = Volume.attach(path)
    os.write(ready, b"x")
    os.read(go_on, 1)
    volume.put(2, 2, b"by the one that stayed")


def test_volume_is_not_recovered_while_a_worker_of_a_killed_owner_lives(tmp_path: Path) -> None:
    path = tmp_path / "7.vol"
    owner = Volume.create(path, 7)
    ready, ready_end = os.pipe()
    go_on_end, go_on = os.pipe()
    child = _start("_hold", path, [ready_end, go_on_end], [ready_end, go_on_end])
    os.read(ready, 1)
    abandon(owner)
    with pytest.raises(VolumeUnavailable, match="another process has it open"):
        Volume.open(path, lock_wait_seconds=0)
    os.write(go_on, b"x")
    with Volume.open(path, lock_wait_seconds=30) as volume:  # waits until the worker is gone
        assert volume.get(2, 2).data == b"by the one that stayed"
    child.wait(60)
    for fd in (ready, ready_end, go_on, go_on_end):
        os.close(fd)


def test_volume_attach_is_refused_while_it_is_recovered(tmp_path: Path) -> None:
    path = tmp_path / "7.vol"
    with Volume.create(path, 7) as volume:
        volume.put(1, 1, b"photo")
    path.with_suffix(".idx").unlink()
    seen: list[Exception] = []

    class Slow(FailingFile):
        def size_bytes(self) -> int:
            try:
                Volume.attach(path)
            except HaystackError as error:
                seen.append(error)
            return super().size_bytes()

    Volume.open(path, file_type=Slow).close()
    assert seen and isinstance(seen[0], VolumeUnavailable) and "recovering" in str(seen[0])


# -- large offsets


@pytest.mark.parametrize("power", [32, 35, 40])
def test_volume_offsets_beyond(tmp_path: Path, power: int) -> None:
    """In a sparse file, so that an offset that is narrowed anywhere reads a hole."""
    path = tmp_path / "7.vol"
    start = 2**power - 64
    with Volume.create(path, 7, max_bytes=2**43) as volume:
        os.truncate(path, start)
        with volume.index.write() as writer:
            writer.move_tail(start)
    with Volume.open(path, max_bytes=2**43) as volume:
        stored = [volume.put(key, key, bytes([key]) * 100, alternate=key) for key in range(1, 9)]
        group = volume.put_many([NewNeedle(20, 20, (b"a",), 1), NewNeedle(21, 21, (b"b" * 300_000,), 1)])
        volume.delete(3, 3, alternate=3)
        assert stored[0].offset == start and group[-1].offset > 2**power
        volume.put(1, 1, b"overwritten", alternate=1)
    with Volume.open(path, max_bytes=2**43) as volume:
        assert volume.report.clean
        assert volume.get(1, 1, alternate=1).data == b"overwritten"
        assert volume.get(2, 2, alternate=2).data == bytes([2]) * 100
        assert volume.get(21, 21).data == b"b" * 300_000
        assert volume.get_at(stored[4].offset, 5, 5, alternate=5).data == bytes([5]) * 100
        with pytest.raises(NeedleNotFound):
            volume.get(3, 3, alternate=3)
        offsets = [item.offset for item in volume.scan(start) if isinstance(item, ScannedNeedle)]
        assert offsets[: len(stored)] == [each.offset for each in stored] and len(offsets) == 12
        tail = volume.tail()
    with path.open("ab") as file:
        file.write(b"torn")
    with Volume.open(path, max_bytes=2**43) as volume:
        assert (volume.report.torn_offset, volume.report.torn_bytes) == (tail, 4)
        volume.put(30, 30, b"goes on")
        header = volume.get(30, 30).header
        assert header.durable_distance == 0  # the owner knows all before to be durable


def test_volume_index_entry_holds_every_offset() -> None:
    for offset in (64, 2**32 - 8, 2**32, 2**35, 2**35 + 8, 2**40, 2**43 - 8):
        entry = IndexEntry(offset, 2**32 - 1, 8192, 1)
        assert IndexEntry.unpack(entry.pack()) == entry
