"""Writing is begun early: a hint that changes nothing of what is stored."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from haystack.volume import Volume, check_volume, writeback


def test_writeback_is_begun_for_large_appends_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int, int]] = []
    real = writeback._sync_file_range
    assert real is not None

    def noted(fd: int, offset: int, size_bytes: int, flags: int) -> int:
        asked.append((offset, size_bytes, flags))
        return real(fd, offset, size_bytes, flags)

    monkeypatch.setattr(writeback, "_sync_file_range", noted)
    data = os.urandom(writeback.FROM_BYTES)
    with Volume.create(tmp_path / "1.vol", 1) as volume:
        volume.put(1, 1, b"small")
        assert asked == []
        stored = volume.put(2, 2, data)
        assert asked == [(stored.offset, volume.tail() - stored.offset, 2)]
        assert volume.get(2, 2).data == data
        monkeypatch.setattr(writeback, "_sync_file_range", None)  # a C library without the call
        volume.put(3, 3, data)
    assert check_volume(tmp_path / "1.vol", full=True).ok


def test_writeback_that_fails_is_no_error(tmp_path: Path) -> None:
    writeback.begin_writeback(-1, 0, writeback.FROM_BYTES)  # the next fdatasync says what is wrong
