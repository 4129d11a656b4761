"""Compaction of one volume: what it keeps, what goes on meanwhile, how it is given up, and what a crash leaves."""

from __future__ import annotations

import errno
import gc
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from volume_faults import FailingFile, abandon, flip, memory_folder

from haystack.errors import (
    CompactionFailed,
    DamagedNeedle,
    DiskError,
    HaystackError,
    InvalidRequest,
    NeedleNotFound,
    OutOfSpace,
    VolumeMoved,
)
from haystack.volume import Delete, NeedleMeta, NewNeedle, Put, Undelete, Volume, check_volume
from haystack.volume.commit import Committer, Submission
from haystack.volume.compact_copy import WINDOW_BYTES
from haystack.volume.compaction import Compacted, Compaction
from haystack.volume.files import VolumeFile, disk_error
from haystack.volume.layout import SUPERBLOCK_BYTES, needle_bytes
from haystack.volume.live import CompactionOrder
from haystack.volume.next_generation import CompactionFiles
from haystack.volume.operations import Appended, Deleted, Operation, Outcome
from haystack.volume.pace import Cancelled, Pace

NOW_MS = 1_000_000
KEEP_MS = 1_000

Content = dict[tuple[int, int], bytes]


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="haystack-compaction-", dir=memory_folder()) as name:
        yield Path(name)


def _order(**given: Any) -> CompactionOrder:
    return CompactionOrder(**{"now_ms": NOW_MS, "trash_ms": KEEP_MS, **given})


def _compact(volume: Volume, **given: Any) -> Compacted:
    """Compact a volume and close the old generation."""
    order = given.pop("order", None) or _order()
    done = Compaction(volume, order, **given).run()
    volume.close()
    return done


def _content(volume: Volume) -> Content:
    """All that can be read."""
    found = {}
    for key, alternate, entry in volume.index.entries():
        if not entry.deleted:
            found[key, alternate] = bytes(volume.read(entry).data)
    return found


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _check(volume: Volume) -> None:
    report = check_volume(Path(volume.file.path), full=True, index=volume.index)
    assert report.ok, report.problems


# -- what is kept


def test_compaction_keeps_what_lives_and_nothing_else(folder: Path) -> None:
    volume = Volume.create(folder / "7.vol", 7)
    for key in range(1, 11):
        volume.put(key, key, b"photo %d" % key * 50, meta=NeedleMeta(f"{key}.jpg"), time_ms=1)
    volume.put(3, 3, b"newer", time_ms=2)
    volume.put_many([NewNeedle(20 + index, 1, (b"multi",), 2) for index in range(3)])
    volume.delete(21, 1, time_ms=3)
    for key in (1, 5):
        volume.delete(key, key, time_ms=NOW_MS - KEEP_MS)  # for just long enough
    expected = _content(volume)
    etags = {key: volume.get(key, key).checksum for key in (2, 3, 10)}
    done = _compact(volume)
    with done.volume as volume:
        assert _content(volume) == expected
        assert {key: volume.get(key, key).checksum for key in (2, 3, 10)} == etags
        assert volume.superblock.generation == 1 and volume.superblock.compacted_bytes == volume.tail()
        state = volume.state()
        assert state.tail - SUPERBLOCK_BYTES == state.live_bytes and not state.deleted_bytes and not state.deleted_count
        assert volume.get(2, 2).meta.name == "2.jpg"
        with pytest.raises(NeedleNotFound):
            volume.get(5, 5)
        with pytest.raises(NeedleNotFound):
            volume.undelete(5, 5)
        volume.put(5, 99, b"another photo takes the name, with a cookie of its own")
        _check(volume)
    assert _names(folder) == {"7.vol", "7.1.idx", "7.1.idx-lock"}


def test_compaction_keeps_trash_with_its_tombstone_until_its_time_is_over(folder: Path) -> None:
    volume = Volume.create(folder / "7.vol", 7)
    for key in (1, 2, 3, 4):
        volume.put(key, key, b"photo", time_ms=1)
    volume.delete(1, 1, time_ms=NOW_MS - KEEP_MS)
    volume.delete(2, 2, time_ms=NOW_MS - KEEP_MS + 1)
    volume.delete(3, 3, time_ms=NOW_MS - 1, now=True)
    volume.delete(4, 4, time_ms=5)
    volume.undelete(4, 4, time_ms=6)
    with _compact(volume).volume as volume:
        assert sorted(_content(volume)) == [(4, 0)]
        assert [(item.header.key, item.header.is_tombstone) for item in volume.scan()] == [(2, 0), (4, 0), (2, 1)]
        _check(volume)
        volume.undelete(2, 2)
        assert volume.get(2, 2).data == b"photo"
        for key in (1, 3):
            with pytest.raises(NeedleNotFound):
                volume.undelete(key, key)
        volume.delete(2, 2, time_ms=NOW_MS)
        _check(volume)
        volume = _compact(volume, order=_order(trash_ms=0)).volume
        assert [item.header.key for item in volume.scan()] == [4]
        volume.close()


def test_compaction_drops_what_has_expired(folder: Path) -> None:
    volume = Volume.create(folder / "7.vol", 7)
    volume.put(1, 1, b"over", expires=NOW_MS // 1000)
    volume.put(2, 2, b"not yet", expires=NOW_MS // 1000 + 1)
    volume.put(3, 3, b"deleted and over", expires=NOW_MS // 1000, time_ms=1)
    volume.delete(3, 3, time_ms=NOW_MS - 1)
    with _compact(volume).volume as volume:
        assert [item.header.key for item in volume.scan()] == [2]
        _check(volume)


def test_compaction_keeps_what_held_snapshots_need(folder: Path) -> None:
    volume = Volume.create(folder / "7.vol", 7, uuid=bytes(16))
    at: dict[int, Content] = {}

    def snapshot() -> None:
        at[volume.tail()] = _content(volume)

    snapshot()
    volume.put(1, 1, b"first", time_ms=1)
    volume.put(2, 2, b"never seen by a snapshot", time_ms=1)
    volume.put(3, 3, b"third", time_ms=1)
    volume.delete(2, 2, time_ms=2)
    snapshot()
    volume.delete(1, 1, time_ms=3)
    volume.put(3, 3, b"third, newer", time_ms=3)
    volume.put(4, 4, b"fourth", expires=5)
    snapshot()
    volume.put(1, 1, b"first again", time_ms=4)
    volume.delete(1, 1, time_ms=5)
    volume.delete(3, 3, time_ms=5)
    volume.put(5, 5, b"fifth")
    ends = tuple(at)
    done = _compact(volume, order=_order(snapshots=ends))
    raw = (folder / "7.vol").read_bytes()
    with done.volume as volume:
        assert _content(volume) == {(5, 0): b"fifth"}
        assert [item.header.key for item in volume.scan()].count(2) == 0
        _check(volume)
    for end, content in at.items():
        (folder / "9").mkdir(exist_ok=True)
        (folder / "9" / "7.vol").write_bytes(raw[: done.ends[end]])
        with Volume.open(folder / "9" / "7.vol") as past:
            assert _content(past) == {name: data for name, data in content.items() if name != (4, 0)}
        shutil.rmtree(folder / "9")


def test_compaction_of_an_empty_volume_and_of_one_without_anything_live(folder: Path) -> None:
    volume = _compact(Volume.create(folder / "7.vol", 7)).volume
    assert (volume.tail(), volume.superblock.generation) == (SUPERBLOCK_BYTES, 1)
    volume.put(1, 1, b"photo", time_ms=1)
    volume.delete(1, 1, time_ms=1)
    volume = _compact(volume).volume
    assert (volume.tail(), volume.superblock.generation, volume.state().max_key) == (SUPERBLOCK_BYTES, 2, 0)
    volume.close()
    with Volume.open(folder / "7.vol") as volume:
        assert volume.report.clean


def test_compaction_of_needles_larger_than_a_window(folder: Path) -> None:
    volume = Volume.create(folder / "7.vol", 7)
    photos = {key: random.Random(key).randbytes(size) for key, size in enumerate((10, 3 * WINDOW_BYTES + 5, 20), 1)}
    edge = WINDOW_BYTES - needle_bytes(0, 10)  # ends where the window ends, give or take
    photos |= {10 + key: random.Random(key).randbytes(edge - 72 - 16 + 8 * key) for key in range(5)}
    for key, data in photos.items():
        volume.put(key, key, data)
        volume.put(100 + key, 1, data, time_ms=1)
        volume.delete(100 + key, 1, time_ms=1)
    with _compact(volume).volume as volume:
        assert _content(volume) == {(key, 0): data for key, data in photos.items()}
        _check(volume)


def test_compaction_refuses_damage(folder: Path) -> None:
    path = folder / "7.vol"
    volume = Volume.create(path, 7)
    stored = [volume.put(key, key, b"photo" * 20, time_ms=1) for key in (1, 2, 3)]
    volume.delete(3, 3, time_ms=1)
    flip(path, stored[2].offset + 60)  # garbage may be damaged
    volume = _compact(volume).volume
    offset = volume.index.get(2).offset
    before = path.read_bytes()
    for harm in (offset + 60, offset + 8):  # data, header
        flip(path, harm)
        with pytest.raises(DamagedNeedle, match=f"at offset {offset}"):
            Compaction(volume, _order()).run()
        flip(path, harm)
    assert path.read_bytes() == before and "7.vol.compact" not in _names(folder)
    volume = _compact(volume).volume
    assert volume.superblock.generation == 2
    volume.close()


@pytest.mark.parametrize("at", [0, 4, 8, 24, 52])  # magic, flags, sizes, cookie, check
def test_compaction_refuses_a_damaged_header_of_what_it_leaves_out(folder: Path, at: int) -> None:
    volume = Volume.create(folder / "7.vol", 7)
    stored = [volume.put(key, key, b"photo" * 20, time_ms=1) for key in (1, 2, 3)]
    volume.delete(2, 2, time_ms=1)
    flip(folder / "7.vol", stored[1].offset + at)  # where it ends is not sure any more
    with pytest.raises(DamagedNeedle, match=f"at offset {stored[1].offset}"):
        Compaction(volume, _order(trash_ms=0)).run()
    volume.close()


def test_compaction_refuses_an_index_that_lost_something(folder: Path) -> None:
    volume = Volume.create(folder / "7.vol", 7)
    for key in (1, 2, 3):
        volume.put(key, key, b"photo")
    entry = volume.index.get(2)
    assert entry is not None
    with volume.index.write() as writer:
        writer.take_back(2, 0, entry)
    with pytest.raises(HaystackError, match="not in the index"):
        Compaction(volume, _order()).run()
    with volume.index.write() as writer:
        writer.replace(2, 0, entry._replace(offset=entry.offset + 800), 1, None)
    with pytest.raises(HaystackError, match="counts 3 photos, and 2"):
        Compaction(volume, _order()).run()
    volume.close()


@pytest.mark.parametrize("cut", [SUPERBLOCK_BYTES + 8, 10_000])
def test_compaction_refuses_a_cut_inside_of_a_needle_or_behind_the_end(folder: Path, cut: int) -> None:
    with Volume.create(folder / "7.vol", 7) as volume:
        volume.put(1, 1, b"photo")
        volume.put_many([NewNeedle(key, 1, (b"m",), 1) for key in (2, 3)])
        inside = volume.index.get(3).offset
        for wrong in (cut, inside):
            with pytest.raises(InvalidRequest):
                Compaction(volume, _order(cut=wrong)).run()
        assert volume.get(1, 1).data == b"photo"


# -- any operations, any cut, what happens meanwhile

names = st.tuples(st.integers(1, 5), st.integers(0, 1))
times = st.integers(0, 2500).map(lambda back: NOW_MS - back)
puts = st.builds(
    lambda name, size, time_ms, expires: Put((_needle(name, size, time_ms, expires),)),
    names,
    st.integers(0, 400),
    times,
    st.sampled_from([0, 0, 0, NOW_MS // 1000 - 1, NOW_MS // 1000 + 50]),
)
multis = st.builds(
    lambda chosen, size, time_ms: Put(tuple(_needle(name, size, time_ms, 0) for name in chosen)),
    st.lists(names, min_size=2, max_size=4, unique=True),
    st.integers(0, 100),
    times,
)
deletes = st.builds(lambda n, t, now: Delete(n[0], _cookie(n), t, n[1], now), names, times, st.booleans())
undeletes = st.builds(lambda n, t: Undelete(n[0], _cookie(n), t, n[1]), names, times)
operations = st.lists(st.one_of(puts, puts, multis, deletes, undeletes), max_size=25)


def _cookie(name: tuple[int, int]) -> int:
    return name[0] * 10 + name[1]


def _needle(name: tuple[int, int], size: int, time_ms: int, expires: int) -> NewNeedle:
    data = random.Random(f"{name} {size} {time_ms}").randbytes(size)
    return NewNeedle(name[0], _cookie(name), (data,), time_ms, name[1], b"", expires)


def _apply(volume: Volume, wanted: list[Operation]) -> None:
    for operation in wanted:
        appended = volume.append([operation])
        assert all(isinstance(one, NeedleNotFound) or not isinstance(one, HaystackError) for one in appended.outcomes)
    volume.sync(volume.tail())


def _unexpired(volume: Volume) -> Content:
    found = {}
    for key, alternate, entry in volume.index.entries():
        if not entry.deleted:
            needle = volume.read(entry)
            if not needle.header.expires or needle.header.expires * 1000 > NOW_MS:
                found[key, alternate] = bytes(needle.data)
    return found


def _trash(volume: Volume) -> set[tuple[int, int, int]]:
    """What can be brought back, and when it was deleted."""
    found = set()
    for key, alternate, entry in volume.index.entries():
        if entry.in_trash and entry.deleted_ms + KEEP_MS > NOW_MS:
            expires = volume.verify(entry).header.expires
            if not expires or expires * 1000 > NOW_MS:
                found.add((key, alternate, entry.deleted_ms))
    return found


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(operations, min_size=1, max_size=4), operations, operations, operations, st.data())
def test_compaction_of_any_volume_loses_and_keeps_the_right_things(
    before: list[list[Operation]],
    behind: list[Operation],
    meanwhile: list[Operation],
    at_last: list[Operation],
    data: st.DataObject,
) -> None:
    with tempfile.TemporaryDirectory(prefix="haystack-compaction-", dir=memory_folder()) as name:
        path = Path(name) / "7.vol"
        volume = Volume.create(path, 7, uuid=bytes(range(16)), created_ms=1)
        for generation in (1, 2):
            ends: dict[int, Content] = {}
            for part in before:
                _apply(volume, part)
                ends[volume.tail()] = _unexpired(volume)
            cut = volume.tail()
            held = data.draw(st.sets(st.sampled_from(sorted(ends))))
            shutil.copy(path, Path(name) / "same.vol")
            _apply(volume, behind)
            waiting = [meanwhile, at_last]
            explicit = data.draw(st.booleans())
            order = CompactionOrder(NOW_MS, KEEP_MS, tuple(sorted(held)), cut if explicit else None)
            before_live = _unexpired(volume)
            try:
                done = Compaction(
                    volume,
                    order,
                    before_swap=lambda _, old=volume, todo=waiting: _apply(old, todo.pop()),
                ).run()
            except CompactionFailed as error:
                assert "brought back" in str(error) and explicit | bool(waiting)
                _check(volume)
                volume.close()
                return
            expected, trash = _unexpired(volume), _trash(volume)
            assert before_live is not None and done.old_bytes == volume.tail()
            with pytest.raises(VolumeMoved):
                volume.append([Put((_needle((9, 0), 1, 1, 0),))])
            abandon(volume) if data.draw(st.booleans()) else volume.close()
            volume = done.volume
            assert (_unexpired(volume), _trash(volume)) == (expected, trash)
            _check(volume)
            state = volume.state()
            volume.close()
            (path.parent / f"7.{generation}.idx").unlink()
            volume = Volume.open(path)
            assert volume.report.rebuilt and not volume.report.damage and not volume.report.torn_bytes
            assert volume.state() == state
            assert (_unexpired(volume), _trash(volume)) == (expected, trash)
            raw = path.read_bytes()
            for end in held:
                (past := Path(name) / "past").mkdir()
                (past / "7.vol").write_bytes(raw[: done.ends[end]])
                with Volume.open(past / "7.vol") as snapshot:
                    assert _unexpired(snapshot) == ends[end]
                shutil.rmtree(past)
            if explicit and generation == 1:
                _compare_with_a_copy(Path(name) / "same.vol", order, raw)
        volume.close()


def _compare_with_a_copy(path: Path, order: CompactionOrder, raw: bytes) -> None:
    """A copy that ends at the cut is compacted to the same bytes."""
    target = path.with_name("copy") / "7.vol"
    target.parent.mkdir()
    shutil.move(path, target)
    with Volume.open(target) as copy:
        done = Compaction(copy, order).run()
        size = done.new_bytes
        done.volume.close()
    assert target.read_bytes() == raw[:size]


# -- meanwhile


def test_compaction_goes_on_under_operations_at_every_window(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("haystack.volume.compact_copy.WINDOW_BYTES", 4096)
    volume = Volume.create(folder / "7.vol", 7)
    expected: Content = {}
    for key in range(1, 101):
        volume.put(key, key, b"%d" % key * 300)
        expected[key, 0] = b"%d" % key * 300
    compaction = Compaction(volume, _order())
    done = [0]

    class Busy(Pace):
        def take(self, count: int) -> None:
            done[0] += 1
            if done[0] > 200:
                return
            key = done[0] % 100 + 1
            if done[0] % 3:
                volume.put(key, key, b"newer")
                expected[key, 0] = b"newer"
            elif (key, 0) in expected:
                volume.delete(key, key)
                del expected[key, 0]

    compaction.pace = Busy()
    result = compaction.run()
    volume.close()
    with result.volume as volume:
        assert result.carried_bytes > 1000 and _content(volume) == expected
        _check(volume)


def test_others_notice_that_the_volume_was_compacted(folder: Path) -> None:
    path = folder / "7.vol"
    volume = Volume.create(path, 7)
    offset = volume.put(1, 1, b"gone").offset
    kept = volume.put(2, 2, b"kept").offset
    volume.delete(1, 1, time_ms=1)
    done = Compaction(volume, _order()).run()
    for late in (
        lambda: volume.put(3, 3, b"late"),
        lambda: volume.delete(2, 2),
        lambda: Compaction(volume, _order()).run(),
    ):
        with pytest.raises(VolumeMoved):
            late()
    assert volume.get(2, 2).data == b"kept"
    volume.checkpoint()  # says nothing about the next generation
    assert path.with_suffix(".dirty").exists()
    volume.close()
    assert path.with_suffix(".dirty").exists()
    with done.volume as new:
        assert new.get_at(kept, 2, 2).data == b"kept"  # by the old offset
        with pytest.raises(NeedleNotFound):
            new.get_at(offset, 1, 1)
        new.put(3, 3, b"next")
    assert not path.with_suffix(".dirty").exists()
    with Volume.open(path) as new:
        assert new.report.clean and _content(new) == {(2, 0): b"kept", (3, 0): b"next"}


def test_undelete_of_what_is_being_compacted_away_gives_the_compaction_up(folder: Path) -> None:
    volume = Volume.create(folder / "7.vol", 7)
    volume.put(1, 1, b"photo")
    volume.delete(1, 1, time_ms=1)
    with pytest.raises(CompactionFailed, match="brought back"):
        Compaction(volume, _order(), before_swap=lambda cut: void(volume.undelete(1, 1))).run()
    assert volume.get(1, 1).data == b"photo"
    with _compact(volume).volume as volume:
        assert volume.get(1, 1).data == b"photo"


def void(result: object) -> None:
    """For a callback that returns nothing."""


def test_compaction_is_given_up_when_it_is_stopped(folder: Path) -> None:
    with Volume.create(folder / "7.vol", 7) as volume:
        volume.put(1, 1, b"photo")
        before = _names(folder)
        compaction = Compaction(volume, _order())
        compaction.pace.stop()
        with pytest.raises(Cancelled):
            compaction.run()
        assert _names(folder) == before and volume.get(1, 1).data == b"photo"


def test_pace_is_a_token_bucket() -> None:
    now, waited = [0.0], list[float]()
    pace = Pace(1000, clock=lambda: now[0], wait=waited.append)
    burst = int(1000 * Pace.BURST_SECONDS)
    pace.take(burst)
    assert not waited
    pace.take(100)
    assert waited == [pytest.approx(0.1)]
    now[0] += 10
    pace.take(burst)
    assert len(waited) == 1
    assert Pace().due_seconds(2**60) == 0


# -- crashes and failures


class Crash(BaseException):
    """The process is gone: nothing is cleaned up."""


class Steps(CompactionFiles):
    """Lets a step happen ``most`` times, and then fails it, or ends the process before or after it."""

    def __init__(self, most: int, *, kind: str) -> None:
        self.left = most
        self.kind = kind
        self.dead = False
        self.seen: list[str] = []
        self.files: list[VolumeFile] = []

    def step(self, name: str, act: Callable[[], Any]) -> Any:
        if self.dead:
            raise Crash
        self.seen.append(name)
        self.left -= 1
        if self.left >= 0:
            return act()
        if self.kind == "fails" and self.left < -1:
            return act()  # once
        if self.kind == "fails":
            code = errno.ENOSPC if name in ("write", "create") else errno.EIO
            raise disk_error("x", name, OSError(code, "injected"))
        if self.kind == "crash after":
            act()
        self.dead = True
        raise Crash

    def create(self, path: Path) -> VolumeFile:
        self.step("create", lambda: super(Steps, self).create(path).close())
        self.files.append(StepFile(path, self))
        return self.files[-1]

    def rename(self, source: Path, target: Path) -> None:
        self.step("rename", lambda: super(Steps, self).rename(source, target))

    def sync_folder(self, folder: Path) -> None:
        self.step("sync folder", lambda: super(Steps, self).sync_folder(folder))

    def remove(self, path: Path) -> None:
        if self.dead:
            raise Crash
        super().remove(path)

    def remove_index(self, path: Path) -> None:
        if self.dead:
            raise Crash
        super().remove_index(path)


class StepFile(VolumeFile):
    def __init__(self, path: Path, steps: Steps) -> None:
        self._steps = steps
        super().__init__(path)

    def pwrite(self, pieces: Any, offset: int) -> int:
        return int(self._steps.step("write", lambda: super(StepFile, self).pwrite(pieces, offset)))

    def sync(self) -> None:
        self._steps.step("sync", super().sync)


def _filled(path: Path) -> tuple[Volume, Content]:
    volume = Volume.create(path, 7)
    for key in range(1, 21):
        volume.put(key, key, b"%d" % key * 400, time_ms=1)
    for key in range(1, 21, 3):
        volume.delete(key, key, time_ms=1)
    return volume, _content(volume)


def _run(volume: Volume, steps: Steps) -> Compacted:
    return Compaction(
        volume, _order(), files=steps, before_swap=lambda cut: void(volume.put(50, 50, b"meanwhile"))
    ).run()


@pytest.mark.parametrize("kind", ["crash before", "crash after", "fails"])
def test_compaction_that_ends_at_any_step(folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("haystack.volume.compact_copy.WINDOW_BYTES", 4096)
    probe = Steps(10**6, kind=kind)
    volume, _ = _filled(folder / "7.vol")
    done: Compacted | None = _run(volume, probe)
    expected_steps = tuple(probe.seen)
    assert done is not None
    done.volume.close()
    volume.close()
    assert {"create", "write", "sync", "rename", "sync folder"} == set(expected_steps)
    for most in range(len(expected_steps)):
        for path in list(folder.iterdir()):
            path.unlink()
        volume, content = _filled(folder / "7.vol")
        done, problem = None, ""
        steps = Steps(most, kind=kind)
        try:
            done = _run(volume, steps)
            problem = done.problem
        except (Crash, DiskError, OutOfSpace) as error:
            problem = str(error) or "crash"
        assert problem, (most, steps.seen)
        if steps.seen.count("sync"):
            content = content | {(50, 0): b"meanwhile"} if (volume.find(50) is not None) else content
        renamed = "rename" in steps.seen and (steps.seen[-1] != "rename" or kind == "crash after")
        if kind == "fails" and done is None:
            assert not renamed or steps.seen[-1] == "rename"
            volume.put(60, 60, b"it goes on")
            content[60, 0] = b"it goes on"
            assert _names(folder) <= {"7.vol", "7.idx", "7.idx-lock", "7.dirty"}
            renamed = False
        if done is not None:
            with pytest.raises(HaystackError, match="set aside"):
                done.volume.put(60, 60, b"nobody knows which generation")
            abandon(done.volume)
        abandon(volume)
        if kind != "fails":
            _end_process(steps)
        with Volume.open(folder / "7.vol", lock_wait_seconds=5) as volume:
            assert volume.superblock.generation == int(renamed), (most, steps.seen)
            assert _content(volume) == content and not volume.report.damage and not volume.report.torn_bytes
            _check(volume)
            volume.put(70, 70, b"and on")
        generation = f"7.{int(renamed)}.idx" if renamed else "7.idx"
        assert _names(folder) == {"7.vol", generation, f"{generation}-lock"}, (most, steps.seen)


def _end_process(steps: Steps) -> None:
    """Close what the end of a process would close: files, and the LMDB environments that nobody has any more."""
    for file in steps.files:
        file.close()
    gc.collect()


def test_compaction_on_a_full_disk_changes_nothing(folder: Path) -> None:
    volume, content = _filled(folder / "7.vol")
    before = (folder / "7.vol").read_bytes()

    class Full(CompactionFiles):
        def create(self, path: Path) -> VolumeFile:
            super().create(path).close()
            file = FailingFile(path)
            file.room_bytes = 3000
            return file

    with pytest.raises(OutOfSpace):
        Compaction(volume, _order(), files=Full()).run()
    assert (folder / "7.vol").read_bytes() == before and _content(volume) == content
    with _compact(volume).volume as volume:
        assert _content(volume) == content


def test_what_is_written_is_read_back(folder: Path) -> None:
    class Lying(VolumeFile):
        def pwrite(self, pieces: Any, offset: int) -> int:
            written = super().pwrite(pieces, offset)
            if offset >= SUPERBLOCK_BYTES:
                super().pwrite([b"!"], offset + 5)
            return written

    class Files(CompactionFiles):
        def create(self, path: Path) -> VolumeFile:
            super().create(path).close()
            return Lying(path)

    volume, content = _filled(folder / "7.vol")
    with volume, pytest.raises(DiskError, match="reads back differently"):
        Compaction(volume, _order(), files=Files()).run()
    with Volume.open(folder / "7.vol") as volume:
        assert _content(volume) == content


# -- large offsets


@pytest.mark.parametrize("gap", [2**32, 2**35, 2**40])
def test_compaction_beyond_large_offsets(tmp_path: Path, gap: int) -> None:
    """A sparse volume: the needle before the gap has gigabytes of holes as its data, and is garbage."""
    path = tmp_path / "7.vol"
    volume = Volume.create(path, 7, max_bytes=2**42)
    volume.put(1, 1, b"first")
    while volume.tail() < gap:
        _append_hole(volume, min(2**32 - 2**16, gap - volume.tail() + 4096))
    high = volume.put(2, 2, b"behind").offset
    assert high > gap
    volume.put(3, 3, b"deleted", time_ms=1)
    volume.delete(3, 3, time_ms=1)
    done = _compact(volume)
    with done.volume as volume:
        assert _content(volume) == {(1, 0): b"first", (2, 0): b"behind"}
        assert volume.get_at(high, 2, 2).data == b"behind" and volume.tail() < 1000
        volume.put(4, 4, b"more")
        _check(volume)


def _append_hole(volume: Volume, size_bytes: int) -> None:
    """Append a deleted photo of that size whose data was never written: garbage that nobody reads."""
    from haystack.volume.entering import enter_header
    from haystack.volume.layout import Flags, NeedleHeader, pack_needle

    header = NeedleHeader(10**6, 1, 0, size_bytes, 0, 1)
    marker = NeedleHeader(10**6, 1, 0, 0, 0, 1, flags=Flags.TOMBSTONE)
    with volume.index.write() as writer:
        tail = writer.state.tail
        volume.file.pwrite([header.pack(volume.seed)], tail)
        enter_header(writer, tail, header)
        end = tail + header.total_bytes
        pieces, _ = pack_needle(marker, b"", (), volume.seed)
        volume.file.pwrite(pieces, end)
        enter_header(writer, end, marker)
        writer.move_tail(end + marker.total_bytes)


# -- those who had something queued


def test_what_was_queued_for_the_old_generation_is_handed_over(folder: Path) -> None:
    volume = Volume.create(folder / "7.vol", 7)
    volume.put(1, 1, b"photo")
    done = Compaction(volume, _order()).run()
    again: SimpleQueue[list[Submission]] = SimpleQueue()
    committer = Committer(moved=again.put)
    outcomes: SimpleQueue[Outcome] = SimpleQueue()
    wanted = [Put((NewNeedle(2, 2, (b"next",), 1),)), Delete(1, 1, 1)]
    for operation in wanted:
        committer.submit(volume, operation, outcomes.put)
    handed: list[Submission] = []
    while len(handed) < 2:
        handed += again.get(timeout=10)
    assert [(one, operation) for one, operation, _ in handed] == [(volume, operation) for operation in wanted]
    for _, operation, receiver in handed:
        committer.submit(done.volume, operation, receiver)
    assert isinstance(outcomes.get(timeout=10), list) and outcomes.get(timeout=10) == Deleted(5)
    committer.close()
    volume.close()
    with done.volume as volume:
        assert _content(volume) == {(2, 0): b"next"}


def test_of_a_round_only_what_was_not_carried_out_is_handed_over() -> None:
    class Half:
        """Takes one operation, and is then compacted."""

        taken = 0

        def append(self, operations: Sequence[Operation]) -> Appended:
            if len(operations) > 1:
                raise OutOfSpace("not all of it")
            self.taken += 1
            if self.taken > 1:
                raise VolumeMoved("by now")
            return Appended([Deleted(1)], 100, True)

        def sync(self, tail: int) -> None:
            assert tail == 100

    again: SimpleQueue[list[Submission]] = SimpleQueue()
    outcomes: SimpleQueue[Outcome] = SimpleQueue()
    committer = Committer(moved=again.put)
    half = Half()
    committer.submit_all([(half, Delete(key, 1, 1), outcomes.put) for key in (1, 2, 3)])
    assert [operation for _, operation, _ in again.get(timeout=10)] == [Delete(2, 1, 1), Delete(3, 1, 1)]
    assert outcomes.get(timeout=10) == Deleted(1)
    committer.close()
