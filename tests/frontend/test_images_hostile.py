"""Hostile files: each is refused with a reason, or gives whole renditions; none crashes, hangs, or takes all memory."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hostile_pictures import (
    FORMATS,
    SCRIPT,
    ZIP,
    good,
    lies,
    odd_ones,
    polyglots,
    truncated,
    wrong_types,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import file_of, opened, soft

from frontend.images import pool as pools
from frontend.images.errors import ImageRefused, ImagesBusy, ImageWorkFailed
from frontend.images.pool import ImagePool
from frontend.images.preparing import Prepared, prepare
from frontend.images.settings import MIB, ImageSettings

SETTINGS = ImageSettings()
MOST_SECONDS = 10.0


def outcome(data: bytes) -> Prepared | str:
    """The renditions, or the reason why there are none; anything else is a failure."""
    started = time.monotonic()
    try:
        found: Prepared | str = prepare(data, SETTINGS)
    except ImageRefused as error:
        found = str(error)
        assert 10 < len(found) < 400 and found.isprintable(), found
    assert time.monotonic() - started < MOST_SECONDS
    if isinstance(found, Prepared):
        require_whole(found)
    return found


def require_whole(prepared: Prepared) -> None:
    assert len(prepared.pictures) == 9
    for picture in prepared.pictures:
        assert opened(picture.data).size == (picture.width, picture.height)
    assert len(prepared.pictures[0].data) <= SETTINGS.original_bytes


@pytest.mark.parametrize(("name", "data"), lies().items(), ids=lambda value: value if isinstance(value, str) else "")
def test_headers_that_lie_are_refused(name: str, data: bytes) -> None:
    found = outcome(data)
    seen = ("gif of", "jpeg of two", "jpeg of 9,000", "tiff of a directory", "tiff of a strip of 4", "png with")
    if name.startswith(seen):
        return  # decoders see pixels in these, and may make something of them
    assert isinstance(found, str), name


@pytest.mark.parametrize(
    ("name", "data"), wrong_types().items(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_other_types_are_refused(name: str, data: bytes) -> None:
    assert isinstance(outcome(data), str)


@pytest.mark.parametrize("format_", FORMATS)
def test_files_that_are_cut_off_are_refused(format_: str) -> None:
    for name, data in truncated(format_).items():
        found = outcome(data)
        assert isinstance(found, str), name


@pytest.mark.parametrize("format_", FORMATS)
def test_the_first_bytes_alone_are_refused(format_: str) -> None:
    for count in range(40):
        assert isinstance(outcome(good(format_)[:count]), str)


def test_of_polyglots_the_picture_alone_is_kept() -> None:
    for name, data in polyglots().items():
        found = outcome(data)
        assert isinstance(found, Prepared), (name, found)
        for picture in found.pictures:
            for part in (ZIP, b"PK\x03\x04", SCRIPT, b"<script"):
                assert part not in picture.data, (name, picture.mime)


def test_rare_pictures_are_taken() -> None:
    for name, data in odd_ones().items():
        assert isinstance(outcome(data), Prepared), name


@pytest.mark.parametrize("format_", FORMATS)
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    changes=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=12),
    cut=st.none() | st.integers(0, 2**16),
    doubled=st.none() | st.tuples(st.integers(0, 2**16), st.integers(1, 200)),
)
def test_changed_bytes_crash_nothing(
    format_: str, changes: list[tuple[int, int]], cut: int | None, doubled: tuple[int, int] | None
) -> None:
    data = bytearray(good(format_))
    for at, value in changes:
        data[at % len(data)] = value
    if doubled is not None:
        at = doubled[0] % len(data)
        data[at:at] = data[at : at + doubled[1]]
    outcome(bytes(data[: cut % len(data)] if cut is not None else data))


# -- in the pool: what ends a process, and what does not


@pytest.fixture
async def pool() -> AsyncIterator[ImagePool]:
    async with ImagePool(SETTINGS, processes=1, waiting=3, task_seconds=1.0, memory_bytes=1024 * MIB) as made:
        yield made


def hang(source: bytes | Path, settings: ImageSettings) -> None:
    while True:
        pass


def crash(source: bytes | Path, settings: ImageSettings) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def swell(source: bytes | Path, settings: ImageSettings) -> None:
    bytearray(4096 * MIB)


def fail(source: bytes | Path, settings: ImageSettings) -> None:
    raise LookupError("nobody expects this")


@pytest.mark.parametrize(
    ("act", "reason"), ((hang, "longer than 1 s"), (crash, "crashed"), (swell, "memory"), (fail, "could not be"))
)
async def test_what_a_decoder_may_do_harms_its_upload_alone(
    pool: ImagePool, monkeypatch: pytest.MonkeyPatch, act: object, reason: str
) -> None:
    photo = file_of(soft(40, 30))
    with monkeypatch.context() as patch:
        patch.setattr(pools, "_prepare", act)
        started = time.monotonic()
        with pytest.raises(ImageWorkFailed, match=reason):
            await pool.prepare(photo)
        assert time.monotonic() - started < MOST_SECONDS
    require_whole(await pool.prepare(photo))
    assert pool.busy == 0


async def test_a_queue_that_is_full_is_told(pool: ImagePool, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(file_of(soft(40, 30)))
    found = await asyncio.gather(*(pool.prepare(photo) for _ in range(7)), return_exceptions=True)
    assert sum(isinstance(one, Prepared) for one in found) == 4
    assert sum(isinstance(one, ImagesBusy) for one in found) == 3


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def test_processes_that_end_while_they_have_nothing_to_do_are_replaced(pool: ImagePool) -> None:
    photo = file_of(soft(40, 30))
    for _ in range(2):
        await pool.prepare(photo)
        workers = [worker for server in children(os.getpid()) for worker in children(server)]
        assert workers
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        require_whole(await pool.prepare(photo))
