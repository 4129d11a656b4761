"""The seam to the operating system: short writes, full disks, failing syncs, and what is left afterwards."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from volume_faults import FailingFile, abandon, failing, flip

from haystack.errors import (
    CookieMismatch,
    DamagedNeedle,
    DiskError,
    HaystackError,
    InvalidRequest,
    NeedleNotFound,
    OutOfSpace,
    TooLarge,
    UnknownFormat,
    VolumeExists,
    VolumeReadOnly,
    VolumeUnavailable,
)
from haystack.volume import Delete, NeedleMeta, NewNeedle, Put, Stored, Volume, check_volume
from haystack.volume.files import VolumeFile, write_durably
from haystack.volume.layout import MAX_META_BYTES, needle_bytes
from haystack.volume.operations import Operation


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "7.vol"
    Volume.create(path, 7).close()
    return path


def _open(path: Path) -> Volume:
    return Volume.open(path, file_type=FailingFile)


def _new(key: int, data: bytes = b"photo", **more: Any) -> NewNeedle:
    return NewNeedle(key, key, (data,), 1, **more)


def test_files_short_writes_are_continued(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwritev

    def short(fd: int, pieces: list[memoryview], offset: int) -> int:
        return os.pwrite(fd, bytes(pieces[0])[:7], offset) if len(pieces) % 2 else real(fd, pieces[:1], offset)

    with Volume.open(path) as volume:
        monkeypatch.setattr(os, "pwritev", short)
        volume.put_many([NewNeedle(key, key, (b"abc" * key, b"", b"d" * 50), 1) for key in range(1, 20)])
        monkeypatch.undo()
        for key in range(1, 20):
            assert volume.get(key, key).data == b"abc" * key + b"d" * 50
    assert check_volume(path, full=True).ok


def test_files_more_pieces_than_one_call_takes(path: Path) -> None:
    with Volume.open(path) as volume:
        volume.append([Put((_new(key),)) for key in range(1, 2000)])
        assert volume.get(1999, 1999).data == b"photo"
    assert check_volume(path, full=True).ok


def test_files_full_disk_stores_nothing_and_leaves_nothing(path: Path) -> None:
    with _open(path) as volume:
        volume.put(1, 1, b"before")
        tail = volume.tail()
        failing(volume).room_bytes = tail + 40
        with pytest.raises(OutOfSpace):
            volume.put(2, 2, bytes(1000))
        assert volume.tail() == tail == path.stat().st_size
        with pytest.raises(NeedleNotFound):
            volume.get(2, 2)
        failing(volume).room_bytes = None
        volume.put(3, 3, b"after")
    assert check_volume(path, full=True).ok


def test_files_failing_write_is_no_silent_loss(path: Path) -> None:
    with _open(path) as volume:
        volume.put(1, 1, b"before")
        failing(volume).write_errno, failing(volume).write_bytes = errno.EIO, 30
        with pytest.raises(DiskError):
            volume.put(2, 2, b"photo")
        failing(volume).write_errno = 0
        volume.put(3, 3, b"after")
        assert volume.get(1, 1).data == b"before"
    assert check_volume(path, full=True).ok


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_files_failed_sync_sets_the_volume_aside(path: Path, code: int) -> None:
    volume = _open(path)
    volume.put(1, 1, b"before")
    failing(volume).sync_errno = code
    with pytest.raises(DiskError):
        volume.put(2, 2, b"photo")
    for write in (lambda: volume.put(3, 3, b"x"), lambda: volume.delete(1, 1), volume.checkpoint):
        with pytest.raises(VolumeUnavailable, match="set aside"):
            write()
    with pytest.raises(VolumeUnavailable):
        volume.sync(volume.tail())
    assert failing(volume).syncs == 2  # never again on the same pages
    assert volume.get(1, 1).data == b"before"
    volume.close()
    with Volume.open(path) as again:
        assert again.report.rebuilt  # what is in the index may not be on the disk
        assert again.get(1, 1).data == b"before"
        again.put(3, 3, b"x")


def test_files_failed_checkpoint_sets_the_volume_aside(path: Path) -> None:
    """The kernel tells an error once: an upload that syncs after the checkpoint must not be acknowledged."""
    volume = _open(path)
    appended = volume.append([Put((_new(1),))])
    failing(volume).sync_errno = errno.EIO
    with pytest.raises(DiskError):
        volume.checkpoint()
    with pytest.raises(VolumeUnavailable):
        volume.sync(appended.tail)
    assert path.with_suffix(".dirty").exists()
    abandon(volume)


def test_files_sync_of_another_thread_is_enough(path: Path) -> None:
    with _open(path) as volume:
        first = volume.append([Put((_new(1),))])
        second = volume.append([Put((_new(2),))])
        volume.sync(first.tail)
        syncs = failing(volume).syncs
        volume.sync(second.tail)
        volume.sync(first.tail)
        assert failing(volume).syncs == syncs


def test_files_attached_process_first_makes_durable_what_it_found(tmp_path: Path) -> None:
    """So that its needles can say that those before were acknowledged; see durable_distance in docs/format.md."""
    path = tmp_path / "7.vol"
    with Volume.create(path, 7) as volume:
        volume.put_many([_new(1), _new(2)])
    # Opened by nobody as owner: attach is what a worker does.
    worker = Volume.attach(path)
    worker.append([Put((_new(3),))])
    assert worker.get(3, 3).header.durable_distance == 0
    worker.close()


@pytest.mark.parametrize(
    ("needle", "error"),
    [
        (NewNeedle(-1, 1, (b"x",), 1), InvalidRequest),
        (NewNeedle(2**64, 1, (b"x",), 1), InvalidRequest),
        (NewNeedle(5, 2**64, (b"x",), 1), InvalidRequest),
        (NewNeedle(5, 1, (b"x",), 1, alternate=2**32), InvalidRequest),
        (NewNeedle(5, 1, (b"x",), -1), InvalidRequest),
        (NewNeedle(5, 1, (b"x",), 1, expires=2**32), InvalidRequest),
        (NewNeedle(5, 1, (b"x",), 1, meta=bytes(MAX_META_BYTES + 1)), InvalidRequest),
        (NewNeedle(5, 1, (memoryview(bytes(16)).cast("I"),), 1), InvalidRequest),
        (NewNeedle(1, 9, (b"x",), 1), CookieMismatch),
    ],
)
def test_files_wrong_operation_harms_no_other_of_its_round(path: Path, needle: NewNeedle, error: type) -> None:
    with Volume.open(path) as volume:
        volume.put(1, 1, b"photo")
        good = Put((_new(2),))
        outcomes = volume.append([good, Put((_new(3), needle)), Put((_new(4),))]).outcomes
        assert isinstance(outcomes[1], error)
        assert isinstance(outcomes[0], list) and isinstance(outcomes[2], list)
        with pytest.raises(NeedleNotFound):
            volume.get(3, 3)
        assert volume.get(4, 4).data == b"photo"
    assert check_volume(path, full=True).ok


def test_files_new_photos_are_stored_as_one_by_one(tmp_path: Path) -> None:
    """What is laid out at once must be what the way for all other operations makes of it."""
    rng = random.Random(3)
    puts: list[Operation] = []
    for key in rng.sample(range(1, 2000), 60):
        pieces = tuple(rng.randbytes(rng.choice((0, 1, 7, 300, 70_000))) for _ in range(rng.choice((1, 1, 1, 3))))
        meta = NeedleMeta("a.jpg", "image/jpeg").pack() if key % 3 else b""
        puts.append(Put((NewNeedle(key, key, pieces, 1000 + key, key % 2, meta, key),)))
    found = []
    for name, batches in (("1.vol", [puts[:40], puts[40:]]), ("2.vol", [[*puts[:40], Delete(9999, 1, 1)], puts[40:]])):
        with Volume.create(tmp_path / name, 1, uuid=bytes(16), created_ms=1) as volume:
            outcomes = []
            for number, batch in enumerate(batches):
                operations = batch if name == "1.vol" or number == 0 else [*batch, Delete(9999, 1, 1)]
                appended = volume.append(operations)
                volume.sync(appended.tail)
                written = b"".join(bytes(piece) for one in appended.written for piece in one.pieces)
                offset = appended.written[0].offset
                assert volume.file.pread(len(written) + 1, offset) == written
                outcomes += [one for one in appended.outcomes if isinstance(one, list)]
            entries = sorted(volume.index.entries())
            found.append((outcomes, entries, volume.state(), (tmp_path / name).read_bytes()))
    assert found[0] == found[1]
    assert len(found[0][0]) == len(puts)


def test_files_a_wave_with_one_known_photo_stores_all_and_supersedes_it(path: Path) -> None:
    with Volume.open(path) as volume:
        volume.put(5, 5, b"old")
        appended = volume.append([Put((_new(key, b"new"),)) for key in (4, 5, 6, 7)])
        assert appended.changed
        assert [volume.get(key, key).data for key in (4, 5, 6, 7)] == [b"new"] * 4
        twice = volume.append([Put((_new(8, b"first"),)), Put((_new(8, b"second"),)), Put((NewNeedle(4, 9, (), 1),))])
        assert isinstance(twice.outcomes[2], CookieMismatch)
        assert volume.get(8, 8).data == b"second"
        state = volume.state()
        assert (state.live_count, state.deleted_count) == (5, 2)
    assert check_volume(path, full=True).ok


def test_files_limits_of_a_put(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Volume.open(path) as volume:
        for needles in ((), tuple(_new(key) for key in range(1, 258)), (_new(1), _new(1))):
            with pytest.raises(InvalidRequest):
                volume.put_many(needles)
        volume.put_many([_new(key) for key in range(1, 257)])
        for module in ("new_needles", "plan"):
            monkeypatch.setattr(f"haystack.volume.{module}.MAX_DATA_BYTES", 10)
        with pytest.raises(TooLarge):
            volume.put(999, 1, bytes(11))


def test_files_full_volume_refuses_uploads_and_takes_deletes(path: Path) -> None:
    with Volume.open(path, max_bytes=64 + 2 * needle_bytes(0, 5)) as volume:
        volume.put_many([_new(1), _new(2)])
        with pytest.raises(VolumeReadOnly, match="limit"):
            volume.put(3, 3, b"")
        volume.delete(1, 1)
    assert check_volume(path, full=True).ok


def test_files_operations_of_one_round_see_each_other(path: Path) -> None:
    with Volume.open(path) as volume:
        delete = Delete(1, 1, 2)
        outcomes = volume.append(
            [Put((_new(1),)), delete, delete, Put((_new(1, b"again"),)), Put((NewNeedle(1, 2, (b"",), 1),))]
        ).outcomes
        assert isinstance(outcomes[2], NeedleNotFound) and isinstance(outcomes[4], CookieMismatch)
        assert volume.get(1, 1).data == b"again"
        assert volume.state().live_count == 1
    assert check_volume(path, full=True).ok


def test_files_unreadable_older_needle_concerns_its_own_upload_alone(path: Path) -> None:
    class Unreadable(FailingFile):
        bad = -1

        def pread(self, size_bytes: int, offset: int) -> bytes:
            if offset == self.bad:
                raise DiskError("bad sector")
            return super().pread(size_bytes, offset)

    with Volume.open(path, file_type=Unreadable) as volume:
        Unreadable.bad = volume.put(1, 1, b"photo").offset
        outcomes = volume.append([Put((_new(2),)), Put((_new(1, b"newer"),))]).outcomes
        assert isinstance(outcomes[0], list) and isinstance(outcomes[1], DiskError)


def test_files_shortened_under_an_open_volume_takes_no_more(path: Path) -> None:
    volume = Volume.open(path)
    volume.put(1, 1, b"photo")
    os.truncate(path, 100)
    with pytest.raises(DiskError, match="somebody shortened it"):
        volume.put(2, 2, b"photo")
    with pytest.raises(DamagedNeedle):
        volume.get(1, 1)
    abandon(volume)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: path.write_bytes(b""), "64 bytes, found 0"),
        (lambda path: path.write_bytes(b"PK\3\4" + bytes(100)), "not a Haystack volume"),
        (lambda path: flip(path, 8, 3), "version 2 is unknown; this release reads version 1"),
        (lambda path: flip(path, 20), "checksum"),
    ],
)
def test_files_that_are_no_volume_are_refused_and_left_alone(
    path: Path, harm: Callable[[Path], None], message: str
) -> None:
    harm(path)
    before = path.read_bytes()
    for way in (Volume.open, Volume.attach):
        with pytest.raises(UnknownFormat, match=message):
            way(path)
    assert not check_volume(path, full=True).ok
    assert path.read_bytes() == before


def test_files_create_refuses_what_it_cannot_write(tmp_path: Path) -> None:
    path = tmp_path / "7.vol"
    for more in ({"uuid": b"short"}, {"replication": 1000}, {"max_bytes": 64}, {"max_bytes": 2**43 + 1}):
        with pytest.raises(InvalidRequest):
            Volume.create(path, 7, **more)  # type: ignore[arg-type]  # one of several
    for volume in (0, 2**32):
        with pytest.raises(InvalidRequest):
            Volume.create(path, volume)
    assert not list(tmp_path.iterdir())
    Volume.create(path, 7).close()
    with pytest.raises(VolumeExists):
        Volume.create(path, 7)


def test_files_missing_volume_is_a_disk_error_and_leaks_nothing(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(DiskError, match="cannot open it"):
        Volume.open(tmp_path / "9.vol")
    assert len(os.listdir("/proc/self/fd")) == before


def test_files_failed_opening_leaks_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with path.open("ab") as file:
        file.write(b"torn")

    def fail(*_: object) -> None:
        raise DiskError("no")

    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr("haystack.volume.recovery.save_range", fail)
        with pytest.raises(DiskError):
            Volume.open(path)
    assert len(os.listdir("/proc/self/fd")) == before
    Volume.open(path).close()


def test_files_closed_volume_says_so(path: Path) -> None:
    volume = Volume.open(path)
    volume.close()
    volume.close()
    for use in (lambda: volume.put(1, 1, b""), lambda: volume.get(1, 1), volume.checkpoint, volume.tail):
        with pytest.raises(VolumeUnavailable, match="closed"):
            use()


def test_files_write_durably_replaces_whole_or_not(tmp_path: Path) -> None:
    write_durably(tmp_path / "a.json", b"one")
    write_durably(tmp_path / "a.json", b"two")
    assert (tmp_path / "a.json").read_bytes() == b"two"
    with pytest.raises(HaystackError):
        write_durably(tmp_path / "missing" / "a.json", b"x")


def test_files_reads_into_a_buffer(path: Path) -> None:
    file = VolumeFile(path, readonly=True)
    target = bytearray(64)
    file.pread_into(memoryview(target), 0)
    assert bytes(target) == path.read_bytes()[:64]
    with pytest.raises(DiskError, match="are missing"):
        file.pread_into(memoryview(bytearray(65)), 0)
    file.close()
    file.close()


def test_files_outcome_is_where_it_was_stored(path: Path) -> None:
    with Volume.open(path) as volume:
        stored = volume.put(1, 1, b"photo")
        assert stored == Stored(64, 5, volume.get(1, 1).checksum)
