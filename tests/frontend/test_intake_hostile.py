"""Hostile files sent to an intake with its real pool: refused with a reason, no answer of 5xx, and it goes on."""

from __future__ import annotations

import array
import asyncio
import io
import re
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from hostile_pictures import FORMATS, broken_exif, lies, odd_ones, polyglots, scans_without_end, truncated, wrong_types
from intake_harness import Frontend, Intake, LocalStore, alternate, bearer, store_and_frontend, ticket
from pictures import corner_colours, corners, exif, file_of, near, opened, soft
from PIL import Image

MOST_SECONDS = 10.0
MOST_INTAKE_MIB = 400
MOST_WORKER_MIB = 1200


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalStore, Frontend, Intake]]:
    folder: Path = tmp_path_factory.mktemp("hostile")
    with store_and_frontend(folder) as (store, front):
        intake = Intake(folder / "intake", store, front, here=False, image_processes=2, image_seconds=2.0)
        yield store, front, intake
        assert intake.stop() == 0
        intake.end()


def corpus() -> dict[str, bytes]:
    cut = [truncated(format_, 4) for format_ in FORMATS]
    found = {
        name: data for part in (lies(), wrong_types(), polyglots(), odd_ones(), *cut) for name, data in part.items()
    }
    return found | {"scans without end": scans_without_end(20_000)}


def peak_mib(pid: int) -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def descendants(pid: int) -> list[int]:
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*children, *(one for child in children for one in descendants(child))]


async def test_hostile_uploads(parts: tuple[LocalStore, Frontend, Intake]) -> None:
    intake = parts[2]
    limit = asyncio.Semaphore(4)
    wrong: list[str] = []
    async with aiohttp.ClientSession(intake.url) as client:

        async def upload(name: str, data: bytes) -> int:
            one = ticket(len(data))
            async with limit:
                started = time.monotonic()
                async with client.post("/upload", data=io.BytesIO(data), headers=bearer(one)) as answer:
                    document = await answer.json()
                took = time.monotonic() - started
            if answer.status not in (201, 413, 422) or took > MOST_SECONDS:
                wrong.append(f"{name}: {answer.status} after {took:.1f} s: {document}")
            if answer.status != 201 and len(document["error"]) < 10:
                wrong.append(f"{name}: no reason")
            return answer.status

        statuses = await asyncio.gather(*(upload(name, data) for name, data in corpus().items()))
        assert not wrong
        assert statuses.count(201) >= 10 and statuses.count(422) > 50
        assert await upload("a good one", file_of(soft(300, 200))) == 201
        taken = {name: await upload(name, data) for name, data in broken_exif().items()}
        assert not wrong and set(taken.values()) == {201}, taken
    assert peak_mib(intake.process.pid) < MOST_INTAKE_MIB
    assert all(peak_mib(pid) < MOST_WORKER_MIB for pid in descendants(intake.process.pid))
    assert "Traceback" not in intake.log, intake.log


def odd_but_good() -> dict[str, tuple[bytes, bool]]:
    """Pictures that look as :func:`corners`, however odd they are as files; and whether they move."""
    image = corners(240, 160)
    turned, grey = image.transpose(Image.Transpose.ROTATE_90), image.convert("L")
    deep = Image.frombytes("I;16", grey.size, array.array("H", [shade * 257 for shade in grey.tobytes()]).tobytes())
    moving = {"save_all": True, "append_images": [image.rotate(180)], "duration": 90, "loop": 0}
    still = {
        "cmyk jpeg": file_of(image.convert("CMYK"), quality=95),
        "cmyk tiff": file_of(image.convert("CMYK"), "TIFF"),
        "png of a palette": file_of(image.quantize(16), "PNG"),
        "grey png of 16 bits": file_of(deep, "PNG"),
        "grey tiff of 16 bits": file_of(deep, "TIFF"),
        "png with alpha": file_of(image.convert("RGBA"), "PNG"),
        "heic": file_of(image, "HEIF", quality=90),
        "avif": file_of(image, "AVIF", quality=90),
        "jpeg lying on its side": file_of(turned, quality=95, exif=exif(6, place=True)),
        "webp lying on its side": file_of(turned, "WEBP", quality=95, exif=exif(6)),
    }
    moves = {format_: file_of(image, format_, **moving) for format_ in ("GIF", "WEBP", "PNG")}
    return {name: (data, False) for name, data in still.items()} | {
        f"moving {name}": (data, True) for name, data in moves.items()
    }


async def test_what_is_odd_but_good_is_right_at_the_store(parts: tuple[LocalStore, Frontend, Intake]) -> None:
    store, front, intake = parts
    async with aiohttp.ClientSession(intake.url) as client:
        for name, (data, moves) in odd_but_good().items():
            one = ticket(len(data))
            async with client.post("/upload", data=data, headers=bearer(one)) as answer:
                assert answer.status == 201, (name, await answer.text())
            record = await asyncio.to_thread(front.wait_for, one.fid)
            assert (record.width, record.height, record.animated) == (240, 160, moves), name
            for key in record.renditions:
                status, raw, _ = await asyncio.to_thread(store.read, alternate(one.fid, key))
                picture = opened(raw)
                assert status == 200 and picture.width > picture.height, (name, key)
                assert bool(getattr(picture, "is_animated", False)) is (moves and key == 0), (name, key)
                wanted = corner_colours(corners(240, 160).convert("L") if "grey" in name else corners(240, 160))
                found = corner_colours(picture)
                assert all(near(*pair, 24) for pair in zip(found, wanted, strict=True)), (name, key, found)
