"""Parts of copying without any process: bandwidth, windows, batches that arrive, cutting, removal."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haystack.errors import DamagedNeedle, DiskError, InvalidRequest
from haystack.store.copies.bandwidth import Bandwidth
from haystack.store.copies.fresh import ABANDONED_SECONDS, remove_abandoned
from haystack.store.copies.prefix import BLOCK_BYTES, calls, windows
from haystack.store.copies.ranges import MAX_HASHED_BYTES
from haystack.store.crashes import WITHIN_SECONDS, Crashes
from haystack.store.scrub.examine import examine
from haystack.store.scrub.restore import index_lacks, restore
from haystack.volume import Damage, NewNeedle, ScannedNeedle, Volume
from haystack.volume.cutting import boundary_before, cut
from haystack.volume.files import VolumeFile
from haystack.volume.incoming import verified_needles, whole_batches
from haystack.volume.index_records import DELETED
from haystack.volume.layout import SUPERBLOCK_BYTES
from haystack.volume.past_cache import PastCache


async def test_bandwidth() -> None:
    now = 100.0
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds

    bandwidth = Bandwidth(1000, clock=lambda: now, sleep=sleep)
    await bandwidth.take(1000)
    assert slept == []
    await bandwidth.take(500)
    assert slept == [0.5]
    now += 100
    await bandwidth.take(3000)
    assert slept[1:] == [2.0]
    began = now
    for _ in range(50):
        await bandwidth.take(100)
    assert now - began == pytest.approx(5.0)
    bandwidth.limit(200)  # others have come
    began = now
    for _ in range(10):
        await bandwidth.take(100)
    assert now - began == pytest.approx(5.0)
    unlimited = Bandwidth(None, clock=lambda: now, sleep=sleep)
    assert unlimited.due_seconds(10**15) == 0


@settings(max_examples=50)
@given(st.integers(min_value=0, max_value=2**43))
def test_windows_cover_everything_backwards(end: int) -> None:
    high, count = end, 0
    for low, top in windows(end):
        assert top == high
        assert low < top
        assert low % BLOCK_BYTES == 0
        high, count = low, count + 1
        if count <= 12:
            parts = calls(low, top)[:50]
            assert parts[0][0] == low
            assert all(0 < stop - start <= MAX_HASHED_BYTES for start, stop in parts)
    assert high == 0
    assert count < 40


def volume_with(path: Path, count: int) -> Volume:
    volume = Volume.create(path, 7)
    for key in range(1, count + 1):
        volume.put(key, key, bytes([key]) * (40 * key))
    return volume


def multi(first: int, count: int) -> list[NewNeedle]:
    return [NewNeedle(key, key, (bytes(30),), 1_000, 0) for key in range(first, first + count)]


def test_needles_arrive_in_pieces(tmp_path: Path) -> None:
    with volume_with(tmp_path / "7.vol", 4) as volume:
        volume.put_many(multi(10, 3))
        volume.put_many(multi(20, 2))
        raw = (tmp_path / "7.vol").read_bytes()[SUPERBLOCK_BYTES:]
        scanned = [item for item in volume.scan() if isinstance(item, ScannedNeedle)]
        ends = {item.end for item in scanned}
        whole = {
            SUPERBLOCK_BYTES,
            *(item.end for item in scanned if item.header.batch_index == item.header.batch_size - 1),
        }
        for size in range(len(raw) + 1):
            needles = verified_needles(raw[:size], volume.seed, SUPERBLOCK_BYTES, "there")
            end = needles[-1].end if needles else SUPERBLOCK_BYTES
            assert end == max(one for one in {SUPERBLOCK_BYTES, *ends} if one <= SUPERBLOCK_BYTES + size)
            batches = whole_batches(needles, is_end=False)
            end = batches[-1].end if batches else SUPERBLOCK_BYTES
            assert end == max(one for one in whole if one <= SUPERBLOCK_BYTES + size)
        for offset in range(0, len(raw), 7):
            bad = bytearray(raw)
            bad[offset] ^= 1
            with pytest.raises(DamagedNeedle, match="there"):
                verified_needles(bad, volume.seed, SUPERBLOCK_BYTES, "there")


@pytest.mark.parametrize("kind", ["plain", "overwritten", "deleted"])
def test_a_tail_is_cut_at_every_place(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "7.vol"
    with volume_with(path, 6) as volume:
        volume.put_many(multi(10, 3))
        if kind == "overwritten":
            volume.put(2, 2, b"another")
        if kind == "deleted":
            volume.delete(3, 3)
        volume.put(30, 30, b"last")
        raw = path.read_bytes()
        starts = [item for item in volume.scan() if isinstance(item, ScannedNeedle)]
    boundaries = [item.offset for item in starts if item.header.batch_index == 0] + [len(raw)]
    places = {min(max(place + step, SUPERBLOCK_BYTES), len(raw)) for place in boundaries for step in (-1, 0, 77)}
    for limit in sorted(places):
        path.write_bytes(raw)
        path.with_suffix(".idx").unlink(missing_ok=True)
        path.with_suffix(".dirty").unlink(missing_ok=True)
        with Volume.open(path) as volume:
            volume.checkpoint()
            at = boundary_before(volume, limit)
            assert at == max(one for one in boundaries if one <= limit)
            saved = cut(volume, at, now=5.0)
        assert path.read_bytes() == raw[:at]
        assert (saved is None) == (at == len(raw))
        if saved is not None:
            assert saved.read_bytes() == raw[at:]
            saved.unlink()
        with Volume.open(path) as volume:
            rebuilt = volume.report.rebuilt
            entries = list(volume.index.entries())
            state = volume.state()
        if kind == "plain":
            assert rebuilt is None
        path.with_suffix(".idx").unlink()
        with Volume.open(path) as volume:
            assert list(volume.index.entries()) == entries
            fresh = volume.state()
        assert (fresh.tail, fresh.live_count, fresh.live_bytes) == (state.tail, state.live_count, state.live_bytes)
        assert (fresh.deleted_count, fresh.deleted_bytes) == (state.deleted_count, state.deleted_bytes)


def test_what_cannot_be_cut(tmp_path: Path) -> None:
    with volume_with(tmp_path / "7.vol", 2) as volume:
        for at in (0, 8, volume.tail() + 8):
            with pytest.raises(InvalidRequest):
                cut(volume, at)


def test_only_abandoned_copies_are_removed(tmp_path: Path) -> None:
    for name in ("1.vol.copy", "2.vol", "3.vol.copy"):
        (tmp_path / name).write_bytes(b"x")
    moment = (tmp_path / "1.vol.copy").stat().st_mtime
    remove_abandoned(tmp_path, moment + ABANDONED_SECONDS - 10)
    assert len(list(tmp_path.iterdir())) == 3
    remove_abandoned(tmp_path, moment + ABANDONED_SECONDS + 10)
    assert [path.name for path in tmp_path.iterdir()] == ["2.vol"]


class BadSector(VolumeFile):
    """A disk that does not give some bytes until they are written anew."""

    bad = (0, 0)

    def pread(self, size_bytes: int, offset: int) -> bytes:
        if offset < self.bad[1] and self.bad[0] < offset + size_bytes:
            raise DiskError(f"cannot read {size_bytes} bytes at offset {offset}")
        return super().pread(size_bytes, offset)

    def pwrite(self, pieces: object, offset: int) -> int:
        self.bad = (0, 0)
        return super().pwrite(pieces, offset)  # type: ignore[arg-type]  # given on as it came


def test_what_cannot_be_read_is_damage_up_to_the_next_needle(tmp_path: Path) -> None:
    path = tmp_path / "7.vol"
    volume_with(path, 30).close()
    raw = path.read_bytes()
    with Volume.open(path, file_type=BadSector) as volume:
        file = volume.file
        assert isinstance(file, BadSector)
        file.give_up_direct()
        tail = volume.tail()
        entries = [volume.find(key) for key in (7, 8)]
        assert entries[0] is not None
        assert entries[1] is not None
        file.bad = (entries[0].offset + 10, entries[0].offset + 60)
        found = examine(volume, entries[0].offset, 1, tail)
        assert [(one.offset, one.end) for one in found.damage] == [(entries[0].offset, entries[1].offset)]
        # Those that were read ahead with it are not damaged.
        position = 0
        damaged: list[Damage] = []
        while position < tail:
            piece = examine(volume, position, 1, tail)
            assert piece.end > position
            position, damaged = piece.end, [*damaged, *piece.damage]
        assert [(one.offset, one.end) for one in damaged] == [(entries[0].offset, entries[1].offset)]
        for damage in damaged:
            assert restore(volume, damage.offset, raw[damage.offset : damage.end])
        assert not examine(volume, 0, tail, tail).damage
        assert not restore(volume, 64, raw[64:1000])
    assert path.read_bytes() == raw


def test_what_an_index_does_not_know(tmp_path: Path) -> None:
    with volume_with(tmp_path / "7.vol", 5) as volume:
        volume.delete(2, 2)
        volume.put(3, 3, b"newer")
        needles = [item for item in volume.scan() if isinstance(item, ScannedNeedle)]
        assert not index_lacks(volume, needles)
        with volume.index.write() as writer:
            entry = writer.get(5, 0)
            assert entry is not None
            writer.take_back(5, 0, entry)
        assert [one.header.key for one in needles if index_lacks(volume, [one])] == [5]
        with volume.index.write() as writer:
            old = volume.find(2)
            assert old is not None
            writer.store(2, 0, old._replace(flags=0), 1)
        assert [one.header.key for one in needles if index_lacks(volume, [one]) and one.header.is_tombstone] == [2]


def test_an_index_that_does_not_know_that_a_photo_is_back_or_gone_for_good(tmp_path: Path) -> None:
    with volume_with(tmp_path / "7.vol", 3) as volume:
        for key in (1, 2):
            volume.delete(key, key)
        volume.undelete(1, 1)
        volume.delete(2, 2, now=True)
        back, gone = (item for item in list(volume.scan())[-2:] if isinstance(item, ScannedNeedle))
        assert (back.header.is_undelete, gone.header.skips_trash) == (True, True)
        assert not index_lacks(volume, [back, gone])
        with volume.index.write() as writer:
            writer.delete(1, 0, 0, 1)  # as if the undelete had not been readable
            for key in (1, 2):
                entry = writer.get(key, 0)
                assert entry is not None
                writer.store(key, 0, entry._replace(flags=DELETED, deleted_ms=1), 1)
        assert index_lacks(volume, [back]) and index_lacks(volume, [gone])


@pytest.mark.parametrize("marker", ["undelete", "delete now"])
def test_cutting_a_marker_off_takes_back_what_it_did(tmp_path: Path, marker: str) -> None:
    with volume_with(tmp_path / "7.vol", 3) as volume:
        volume.delete(2, 2)
        end, before = volume.tail(), volume.find(2)
        if marker == "undelete":
            volume.undelete(2, 2)
        else:
            volume.delete(2, 2, now=True)
        assert volume.find(2) != before
        cut(volume, end)
    with Volume.open(tmp_path / "7.vol") as volume:
        assert volume.find(2) == before and volume.tail() == end
        volume.undelete(2, 2)
        assert volume.state().live_count == 3


def test_reading_past_the_page_cache_gives_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "7.vol"
    raw = bytes(range(256)) * 100 + b"end"
    path.write_bytes(raw)
    file = VolumeFile(path)
    for one in (PastCache(file), file):
        for offset in (0, 1, 4095, 4096, 5000, len(raw) - 3, len(raw), len(raw) + 10):
            for size in (0, 1, 56, 4096, 9000, 2 * len(raw)):
                assert one.pread(size, offset) == raw[offset : offset + size]
    # What was written a moment ago, and where there is no such way.
    file.pwrite([b"new"], 100)
    assert PastCache(file).pread(5, 99) == raw[99:100] + b"new" + raw[103:104]
    file.give_up_direct()
    assert PastCache(file).pread(5, 99) == raw[99:100] + b"new" + raw[103:104]
    past = PastCache(file)
    past.close()
    assert file.pread(1, 0) == raw[:1]
    file.close()


def test_only_a_volume_that_is_there_at_every_crash_is_blamed() -> None:
    now = 0.0
    crashes = Crashes(lambda: now)
    bus, killed = -signal.SIGBUS, -signal.SIGKILL
    assert not any(crashes.blames(4, code) for code in (killed, 1, 0, None) * 5)
    assert not any(crashes.blames(None, bus) for _ in range(5))
    assert [crashes.blames(4, bus), crashes.blames(5, bus), crashes.blames(4, -signal.SIGSEGV)] == [False] * 3
    assert crashes.blames(4, bus)
    assert not crashes.blames(4, bus)
    now += WITHIN_SECONDS + 1
    assert [crashes.blames(4, bus), crashes.blames(5, bus), crashes.blames(4, bus)] == [False] * 3
    assert crashes.blames(4, bus)
