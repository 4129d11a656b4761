"""Uploads on their way as files: bounds, restarts, expiry; and the pace that is asked of clients."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from intake_harness import ticket

from frontend.intake.errors import ClientTooSlow, TooManyUploads, UploadInUse, UploadNotFound, WrongLength
from frontend.intake.receiving import WRITE_BYTES, Pace, receive
from frontend.intake.uploads import Upload, Uploads
from haystack.errors import DiskError


def uploads(folder: Path, boot_id: str = "1", *, max_uploads: int = 3, max_bytes: int = 1000) -> Uploads:
    return Uploads(folder, max_uploads=max_uploads, max_bytes=max_bytes, boot_id=boot_id)


def test_what_came_is_known_after_a_restart(tmp_path: Path) -> None:
    one = ticket(100)
    first = uploads(tmp_path).begin(one)
    first.path.write_bytes(b"x" * 40)
    again = uploads(tmp_path).find(one.id.hex())
    assert (again.offset, again.size_bytes, again.expires, again.complete) == (40, 100, one.expires, False)


def test_what_an_earlier_boot_has_left_is_dropped(tmp_path: Path) -> None:
    one = ticket(100)
    path = uploads(tmp_path).begin(one).path
    with pytest.raises(UploadNotFound):
        uploads(tmp_path, "2").find(one.id.hex())
    assert not path.exists()
    assert uploads(tmp_path, "2").count == 0


def test_what_was_doubted_at_a_crash_is_cut_off(tmp_path: Path) -> None:
    one = ticket(100)
    known = uploads(tmp_path)
    upload = known.begin(one)
    upload.path.write_bytes(b"x" * 30)
    upload.offset = 30
    known.doubt(upload)
    upload.path.write_bytes(b"x" * 80)
    assert uploads(tmp_path).find(one.id.hex()).offset == 30
    assert uploads(tmp_path).find(one.id.hex()).path.stat().st_size == 30
    assert not list(tmp_path.glob("*.from-*"))


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not ours")
    assert uploads(tmp_path).count == 0
    assert (tmp_path / "notes.txt").exists()


@contextmanager
def stopped_in(monkeypatch: pytest.MonkeyPatch, call: str) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Has the first thread that comes to a call of Path wait there; yields "it is there" and "it may go on"."""
    there, go_on = threading.Event(), threading.Event()
    usual = getattr(Path, call)

    def act(path: Path, **more: object) -> None:
        if not there.is_set():
            there.set()
            assert go_on.wait(20)
        usual(path, **more)

    with monkeypatch.context() as patched:
        patched.setattr(Path, call, act)
        try:
            yield there, go_on
        finally:
            go_on.set()


def test_two_who_begin_with_one_ticket_have_one_upload_with_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, one = uploads(tmp_path), ticket(100)

    def begin() -> tuple[Upload, bool]:
        upload = known.begin(one)
        return upload, upload.path.exists()

    with ThreadPoolExecutor(2) as threads, stopped_in(monkeypatch, "touch") as (there, go_on):
        first = threads.submit(begin)
        assert there.wait(20)
        second = threads.submit(begin)
        threading.Timer(0.1, go_on.set).start()  # a second one that does not wait is through by then
        (upload, there_first), (again, there_second) = first.result(20), second.result(20)
    assert upload is again and there_first and there_second
    assert (known.count, known.announced_bytes) == (1, 100)


def test_an_upload_that_is_begun_while_its_forerunner_is_removed_keeps_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, one = uploads(tmp_path), ticket(100)
    before = known.begin(one)
    with ThreadPoolExecutor(2) as threads, stopped_in(monkeypatch, "unlink") as (there, go_on):
        removing = threads.submit(known.remove, before)
        assert there.wait(20)
        beginning = threads.submit(known.begin, one)
        threading.Timer(0.1, go_on.set).start()
        removing.result(20)
        after = beginning.result(20)
    assert after is not before and after.path.exists()
    known.cut(after, 0)


def test_an_upload_whose_file_is_gone_has_ended(tmp_path: Path) -> None:
    known = uploads(tmp_path)
    upload = known.begin(ticket(100))
    known.remove(upload)
    with pytest.raises(UploadNotFound):
        known.cut(upload, 0)


def test_number_and_bytes_have_bounds(tmp_path: Path) -> None:
    known = uploads(tmp_path)
    large = known.begin(ticket(900))
    with pytest.raises(TooManyUploads):
        known.begin(ticket(101))
    small = [known.begin(ticket(1)) for _ in range(2)]
    with pytest.raises(TooManyUploads):
        known.begin(ticket(1))
    known.remove(small[0])
    known.remove(large)
    assert (known.count, known.announced_bytes) == (1, 1)
    known.begin(ticket(900))


def test_expired_ones_go(tmp_path: Path) -> None:
    known = uploads(tmp_path)
    old, new = known.begin(ticket(1, expires=10)), known.begin(ticket(1, expires=20))
    assert known.remove_expired(9.9) == 0
    assert known.remove_expired(10) == 1
    assert not old.path.exists() and new.path.exists()


async def test_a_held_one_does_not_expire_and_is_taken_over(tmp_path: Path) -> None:
    known = uploads(tmp_path)
    upload = known.begin(ticket(1, expires=10))
    broken = asyncio.Event()

    async def hold() -> None:
        async with known.held(upload, broken.set):
            await broken.wait()

    first = asyncio.create_task(hold())
    await asyncio.sleep(0)
    assert known.remove_expired(99) == 0
    async with known.held(upload, lambda: None):
        assert broken.is_set()
        upload.break_off = None  # its picture is worked on
        with pytest.raises(UploadInUse):
            async with known.held(upload, lambda: None):
                pass
        known.remove(upload)
    await first
    with pytest.raises(UploadNotFound):
        async with known.held(upload, lambda: None):
            pass


async def test_a_body_is_appended_as_far_as_it_may(tmp_path: Path) -> None:
    known = uploads(tmp_path, max_bytes=10**9)
    size = WRITE_BYTES * 2 + 5
    upload = known.begin(ticket(size))
    pieces = [bytes([number]) * (WRITE_BYTES // 2) for number in range(6)]
    body = iter(pieces)

    async def piece() -> bytes:
        return next(body, b"")

    with pytest.raises(WrongLength):
        await receive(upload, piece, Pace(asyncio.get_running_loop().time()))
    assert upload.offset == WRITE_BYTES * 2 == upload.path.stat().st_size
    assert upload.path.read_bytes() == b"".join(pieces[:4])
    body = iter([b"12345"])
    await receive(upload, piece, Pace(asyncio.get_running_loop().time()))
    assert upload.complete


async def test_a_body_that_does_not_come_is_given_up(tmp_path: Path) -> None:
    upload = uploads(tmp_path).begin(ticket(10))
    body = [b"abc"]

    async def piece() -> bytes:
        if body:
            return body.pop()
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(ClientTooSlow):
        await receive(upload, piece, Pace(asyncio.get_running_loop().time(), window_seconds=1.0))
    assert upload.path.read_bytes() == b"abc"


async def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    upload = uploads(tmp_path).begin(ticket(10))
    upload.path.unlink()

    async def piece() -> bytes:
        return b""

    with pytest.raises(DiskError):
        await receive(upload, piece, Pace(0))


@given(st.lists(st.tuples(st.floats(0.01, 30), st.integers(0, 5000)), max_size=60))
def test_pace_ends_drips_and_nothing_else(steps: list[tuple[float, int]]) -> None:
    """Who sends enough in each stretch of two windows is left alone; who sends too little for three is not."""
    now, pace = 0.0, Pace(0.0, window_seconds=20, window_bytes=8192)
    came: list[tuple[float, int]] = []
    for seconds, count in steps:
        now += seconds
        came.append((now, count))
        try:
            pace.came(count, now)
        except ClientTooSlow:
            assert now >= 20
            recent = sum(number for at, number in came if at > now - 20)
            assert recent < 8192
            return
    if now > 3 * 50:
        assert sum(number for _, number in came) >= 8192
