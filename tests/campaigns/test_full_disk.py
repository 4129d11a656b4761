"""Disks that are full: uploads are refused, nothing acknowledged is lost, and all goes on when there is room again."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from campaign_disks import loop_disk, missing, run, tmpfs

from haystack.errors import DiskError, HaystackError, OutOfSpace, VolumeUnavailable
from haystack.volume import NewNeedle, Put, Volume, check_volume

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


def _fill(volume: Volume, first_key: int, rng: random.Random, stop_after: int = 20) -> dict[int, bytes]:
    """Upload until the disk was full many times over; what was acknowledged."""
    stored: dict[int, bytes] = {}
    refused = 0
    while refused < stop_after:
        key = first_key + len(stored) + refused * 100_000
        data = rng.randbytes(rng.choice([10, 5000, 200_000]))
        try:
            volume.put_many([NewNeedle(key, key, (data,), 1), NewNeedle(key, key, (data[:10],), 1, 1)])
            stored[key] = data
        except OutOfSpace:
            refused += 1
    return stored


def _expect(volume: Volume, stored: dict[int, bytes]) -> None:
    for key, data in stored.items():
        assert volume.get(key, key).data == data
        assert volume.get(key, key, alternate=1).data == data[:10]


@pytest.mark.parametrize("size_mib", [2, 5])
def test_full_disk_refuses_and_loses_nothing(tmp_path: Path, size_mib: int) -> None:
    rng = random.Random(size_mib)
    with tmpfs(tmp_path / "small", size_mib * 2**20) as folder:
        path = folder / "7.vol"
        volume = Volume.create(path, 7)
        stored = _fill(volume, 1, rng)
        assert len(stored) > 5
        _expect(volume, stored)
        assert path.stat().st_size == volume.tail()
        assert check_volume(path, full=True, index=volume.index).ok
        # Killed while the disk is full, and opened again with it still full.
        volume.index.close()
        volume.file.close()
        volume = Volume.open(path)
        _expect(volume, stored)
        run("mount", "-o", f"remount,size={2 * size_mib * 2**20}", str(folder))
        stored |= _fill(volume, 10**9, rng)
        _expect(volume, stored)
        volume.close()
        assert check_volume(path, full=True).ok
        run("mount", "-o", f"remount,size={4 * size_mib * 2**20}", str(folder))
        path.with_suffix(".idx").unlink()
        with Volume.open(path) as volume:
            assert not volume.report.damage and not volume.report.torn_bytes
            _expect(volume, stored)


def test_full_disk_large_and_small_in_one_round(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", 4 * 2**20) as folder, Volume.create(folder / "7.vol", 7) as volume:
        with pytest.raises(OutOfSpace):
            volume.append([Put((NewNeedle(1, 1, (b"small",), 1),)), Put((NewNeedle(2, 2, (bytes(8 * 2**20),), 1),))])
        volume.put(1, 1, b"small")
        assert volume.get(1, 1).data == b"small"
        assert Path(volume.file.path).stat().st_size == volume.tail()


def test_full_disk_under_the_filesystem_fails_a_sync_and_the_volume_is_set_aside(tmp_path: Path) -> None:
    """ext4 on a sparse image inside a small tmpfs: fdatasync fails once, and would say that all is well after that."""
    rng = random.Random(1)
    with tmpfs(tmp_path / "small", 12 * 2**20) as folder, loop_disk(folder, 64 * 2**20) as disk:
        path = disk.mount_point / "7.vol"
        volume = Volume.create(path, 7)
        stored: dict[int, bytes] = {}
        failure: HaystackError | None = None
        for key in range(1, 1000):
            data = rng.randbytes(100_000)
            try:
                volume.put(key, key, data)
            except (DiskError, OutOfSpace) as error:
                failure = error
                break
            stored[key] = data
        assert isinstance(failure, DiskError), failure
        with pytest.raises(VolumeUnavailable, match="set aside"):
            volume.put(5000, 1, b"not any more")
        volume.index.close()
        volume.file.close()
        try:
            disk.unmount()
        except RuntimeError:
            run("umount", "-l", str(disk.mount_point))
            disk.mounted = False
        run("mount", "-o", f"remount,size={100 * 2**20}", str(folder))
        disk.mount()
        with Volume.open(path) as volume:
            assert volume.report.rebuilt
            for key, data in stored.items():
                assert volume.get(key, key).data == data
            volume.put(6000, 1, b"goes on")
