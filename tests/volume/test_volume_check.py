"""What a check finds: damage, which a copy can mend, apart from what is wrong with the index."""

from __future__ import annotations

from pathlib import Path

import pytest

from haystack.volume import Volume, check_volume
from haystack.volume.index_records import IndexEntry


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Volume.create(tmp_path / "7.vol", 7) as volume:
        for key in range(1, 11):
            volume.put(key, key, b"photo" * 100)
        volume.delete(3, 3)
    return tmp_path / "7.vol"


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def test_a_sound_volume(path: Path) -> None:
    report = check_volume(path, full=True)
    assert report.ok and report.damage == [] and report.index_problems == 0
    assert (report.needles, report.tombstones) == (10, 1)


def test_damaged_data_is_no_problem_of_the_index(path: Path) -> None:
    flip(path, 64 + 56 + 100)
    assert check_volume(path, full=False).ok
    report = check_volume(path, full=True)
    assert report.damage == [(64, 576)]
    assert (report.problem_count, report.index_problems) == (1, 0)


@pytest.mark.parametrize("full", [False, True])
def test_a_damaged_header_is_no_problem_of_the_index_either(path: Path, full: bool) -> None:
    flip(path, 64 + 16)
    report = check_volume(path, full=full)
    assert report.damage == [(64, 576)]
    assert report.index_problems == 0
    assert "the index has 10 entries, 9 of them match" in report.problems[1]


def test_entries_that_point_to_nothing_are_named(path: Path) -> None:
    with Volume.open(path) as volume, volume.index.write() as writer:
        writer._put(0xABC, 0, IndexEntry(64, 500, 0, 0))
    report = check_volume(path, full=False)
    assert report.index_problems == report.problem_count == 2
    assert report.problems[1] == "photo abc, alternate 0: the index has it at offset 64, where it is not"
    assert report.to_json()["indexProblems"] == 2


def test_a_needle_that_the_index_lacks(path: Path) -> None:
    with Volume.open(path) as volume:
        index = volume.index.path
    Path(index).unlink()
    report = check_volume(path, full=False)
    assert report.index_problems == 1
    Volume.open(path).close()
    assert check_volume(path, full=True).ok
