"""A disk that cannot be read: an error for each request that needs it, and the process lives on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from campaign_disks import drop_caches, loop_disk, missing

from haystack.errors import DiskError, HaystackError
from haystack.volume import Volume, check_volume
from haystack.volume.mapping import VolumeMap

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


def test_failing_disk_is_an_error_and_never_the_end_of_the_process(tmp_path: Path) -> None:
    with loop_disk(tmp_path, 64 * 2**20) as disk:
        path = disk.mount_point / "7.vol"
        with Volume.create(path, 7) as volume:
            stored = {key: volume.put(key, key, os.urandom(200_000)) for key in range(1, 101)}
        volume = Volume.open(path)
        mapped = VolumeMap(volume.file.read_fd)
        assert volume.get(100, 100)
        os.truncate(disk.image, 2 * 2**20)  # everything behind it is gone: EIO
        drop_caches()
        failed = 0
        for key, where in stored.items():
            assert mapped.view(where.offset, 200_000) is None  # not resident, so it is not touched
            try:
                volume.get(key, key)
            except DiskError as error:
                assert "cannot read" in str(error) and str(path) in str(error)
                failed += 1
            except HaystackError as error:
                pytest.fail(f"another error than DiskError: {error}")
        assert failed > 50
        with pytest.raises(DiskError):
            check_volume(path, full=True, index=volume.index)
        volume.index.close()
        volume.file.close()
