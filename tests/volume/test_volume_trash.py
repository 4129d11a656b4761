"""The trash: what is deleted can be brought back, for a while, and not what was deleted for good or has expired."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from haystack.errors import CookieMismatch, NeedleNotFound
from haystack.volume import Delete, NewNeedle, Put, Undelete, Undeleted, Volume, check_volume
from haystack.volume.index_records import IndexState
from haystack.volume.layout import needle_bytes
from haystack.volume.operations import Operation, Outcome

KEY, COOKIE = 5, 7
MARKER_BYTES = needle_bytes(0, 0)


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    with Volume.create(tmp_path / "1.vol", 1, created_ms=1) as made:
        yield made


def test_a_deleted_photo_comes_back_with_its_metadata_and_checksum(volume: Volume) -> None:
    stored = volume.put(KEY, COOKIE, b"photo", time_ms=10)
    before = volume.state()
    volume.delete(KEY, COOKIE, time_ms=20)
    assert volume.undelete(KEY, COOKIE, time_ms=30) == 5
    needle = volume.get(KEY, COOKIE)
    assert (bytes(needle.data), needle.offset, needle.checksum) == (b"photo", stored.offset, stored.checksum)
    assert volume.get_at(stored.offset, KEY, COOKIE).data == b"photo"
    after = volume.state()
    assert (after.live_count, after.live_bytes, after.deleted_count) == (1, before.live_bytes, 0)
    assert after.deleted_bytes == before.deleted_bytes + 2 * MARKER_BYTES
    assert volume.delete(KEY, COOKIE, time_ms=40) == 5  # and it can go again


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (Undelete(KEY, COOKIE, 30), "it is not deleted"),
        (Undelete(KEY, COOKIE + 1, 30), "is not here"),
        (Undelete(KEY + 1, COOKIE, 30), "is not here"),
        (Undelete(KEY, COOKIE, 30, 1), "is not here"),
    ],
)
def test_what_was_not_deleted_cannot_be_brought_back(volume: Volume, wanted: Undelete, reason: str) -> None:
    volume.put(KEY, COOKIE, b"photo", time_ms=10)
    tail = volume.tail()
    (outcome,) = volume.append([wanted]).outcomes
    assert isinstance(outcome, NeedleNotFound) and reason in str(outcome)
    assert volume.tail() == tail


def test_the_trash_keeps_photos_for_its_retention(volume: Volume) -> None:
    volume.put(KEY, COOKIE, b"photo", time_ms=10)
    volume.delete(KEY, COOKIE, time_ms=1000)
    with pytest.raises(NeedleNotFound, match="was deleted 5 s ago; the trash keeps photos for 4 s"):
        volume.undelete(KEY, COOKIE, time_ms=6001, retention_ms=4000)
    assert volume.undelete(KEY, COOKIE, time_ms=5000, retention_ms=4000) == 5


def test_what_was_deleted_for_good_does_not_come_back(volume: Volume) -> None:
    volume.put(KEY, COOKIE, b"photo", time_ms=10)
    volume.delete(KEY, COOKIE, time_ms=20, now=True)
    with pytest.raises(NeedleNotFound, match="deleted for good"):
        volume.undelete(KEY, COOKIE, time_ms=30)
    with pytest.raises(NeedleNotFound):
        volume.delete(KEY, COOKIE, time_ms=30, now=True)


def test_deleting_for_good_takes_a_photo_out_of_the_trash(volume: Volume) -> None:
    volume.put(KEY, COOKIE, b"photo", time_ms=10)
    volume.delete(KEY, COOKIE, time_ms=20)
    with pytest.raises(NeedleNotFound):
        volume.delete(KEY, COOKIE, time_ms=30)
    assert volume.delete(KEY, COOKIE, time_ms=30, now=True) == 5
    with pytest.raises(NeedleNotFound, match="deleted for good"):
        volume.undelete(KEY, COOKIE, time_ms=40)
    assert (volume.state().live_count, volume.state().deleted_count) == (0, 1)


def test_the_last_photo_of_a_name_comes_back_not_what_it_superseded(volume: Volume) -> None:
    volume.put(KEY, COOKIE, b"first", time_ms=10)
    volume.delete(KEY, COOKIE, time_ms=20)
    volume.put(KEY, COOKIE, b"second", time_ms=30)
    with pytest.raises(NeedleNotFound, match="not deleted"):
        volume.undelete(KEY, COOKIE, time_ms=40)
    volume.delete(KEY, COOKIE, time_ms=40)
    volume.undelete(KEY, COOKIE, time_ms=50)
    assert bytes(volume.get(KEY, COOKIE).data) == b"second"


def test_one_append_may_store_delete_and_bring_back(volume: Volume) -> None:
    operations: list[Operation] = [
        Put((NewNeedle(KEY, COOKIE, (b"photo",), 10),)),
        Delete(KEY, COOKIE, 11),
        Undelete(KEY, COOKIE, 12),
        Undelete(KEY, COOKIE, 13),
        Delete(KEY, COOKIE, 14, now=True),
    ]
    appended = volume.append(operations)
    kinds = [type(outcome) for outcome in appended.outcomes]
    assert kinds[2:4] == [Undeleted, NeedleNotFound] and appended.changed
    assert volume.state().live_count == 0


def _append(volume: Volume, operation: Operation) -> Outcome:
    return volume.append([operation]).outcomes[0]


def test_from_its_second_on_an_expired_photo_is_not_there_for_delete_and_undelete(volume: Volume) -> None:
    _append(volume, Put((NewNeedle(KEY, COOKIE, (b"photo",), 1000, expires=5),)))
    assert isinstance(_append(volume, Delete(KEY, COOKIE, 5000)), NeedleNotFound)
    assert not isinstance(_append(volume, Delete(KEY, COOKIE, 4999)), NeedleNotFound)
    assert isinstance(_append(volume, Undelete(KEY, COOKIE, 5000)), NeedleNotFound)
    assert isinstance(_append(volume, Undelete(KEY, COOKIE, 4999)), Undeleted)


def test_an_upload_over_an_expired_photo_needs_its_cookie(volume: Volume) -> None:
    _append(volume, Put((NewNeedle(KEY, COOKIE, (b"photo",), 1000, expires=5),)))
    assert isinstance(_append(volume, Put((NewNeedle(KEY, COOKIE + 1, (b"other",), 9000),))), CookieMismatch)
    assert isinstance(_append(volume, Put((NewNeedle(KEY, COOKIE, (b"other",), 9000),))), list)
    assert volume.index.get(KEY) is not None
    assert (volume.state().live_count, volume.state().deleted_count) == (1, 1)


@pytest.mark.parametrize("last", ["deleted", "brought back"])
def test_a_check_finds_an_index_that_says_otherwise_than_the_last_marker(volume: Volume, last: str) -> None:
    path = Path(volume.file.path)
    volume.put(KEY, COOKIE, b"photo", time_ms=10)
    volume.delete(KEY, COOKIE, time_ms=20)
    if last == "brought back":
        volume.undelete(KEY, COOKIE, time_ms=30)
    assert check_volume(path, full=True, index=volume.index).ok
    right: IndexState = volume.state()
    with volume.index.write() as writer:
        if last == "brought back":
            writer.delete(KEY, 0, 0, 20)
        else:
            writer.undelete(KEY, 0, 0, 20)
        writer.state = right
    problems = check_volume(path, full=False, index=volume.index).problems
    assert any(f"was {last}, but the index" in problem for problem in problems)
