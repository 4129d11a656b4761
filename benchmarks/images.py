"""Renditions: processor time of everything that is made of one photo, and uploads a second, beside libvips.

Ours is all that an upload goes through: header, EXIF, pixels, the original in at most a megabyte, four sizes in JPEG
and WebP, SHA-256, difference hash, placeholder. libvips makes the same set of files of the same photo with the same
edges and qualities, with scaled decoding and each size from the next larger one, too; it makes no fingerprints. Photos
are made from noise of several sizes over gradients, so that their files are as large as a camera's, or taken from
--photos.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

os.environ.setdefault("VIPS_CONCURRENCY", "1")  # read when the library is loaded: one thread, as ours

import pyvips
from PIL import Image, ImageChops, ImageFilter

from benchmarks.common import CannotMeasure, Report, Target, alternating, arguments, main, progress, settings_of
from frontend.images.encoding import ORIGINAL_QUALITIES
from frontend.images.preparing import prepare
from frontend.images.renditions import SIZES
from frontend.images.settings import ImageSettings

MEGAPIXELS = {2: (1632, 1224), 12: (4032, 3024), 48: (8064, 6048)}
CAMERA_QUALITY = 90
SETTINGS = ImageSettings()
CPU_TARGET = Target(at_most=1.5)
PICTURES = 1 + 2 * len(SIZES)

Side = Callable[[bytes], object]


def measure(options: argparse.Namespace) -> Report:
    """Measure and report."""
    report = Report("All renditions of a photo", settings_of(options))
    version = ".".join(str(pyvips.version(part)) for part in range(3))
    for name, data in _photos(options):
        original = prepare(data, SETTINGS).pictures[0]
        peer = partial(with_vips, edge=max(original.width, original.height))
        if len(peer(data)) != PICTURES:
            raise CannotMeasure(f"{name}: the two sides do not make the same set; is it an upright JPEG?")
        _measure_one(report, options, f"{name}, {len(data) / 1e6:.1f} MB", data, peer, f"libvips {version}")
    return report


def _photos(options: argparse.Namespace) -> list[tuple[str, bytes]]:
    if options.photos is None:
        return [(f"{count} MP", photo(*MEGAPIXELS[count])) for count in options.megapixels]
    found = sorted(path for path in options.photos.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
    if not found:
        raise CannotMeasure(f"{options.photos}: no .jpg file is in this folder")
    return [(path.name, path.read_bytes()) for path in found]


def _measure_one(
    report: Report, options: argparse.Namespace, name: str, data: bytes, with_peer: Side, peer: str
) -> None:
    sides: dict[str, Side] = {"ours": partial(prepare, settings=SETTINGS), "vips": with_peer}
    cpu: dict[str, list[float]] = {side: [] for side in sides}
    rate: dict[str, list[float]] = {side: [] for side in sides}
    for round_, side in alternating(options.rounds, tuple(sides)):
        progress(f"{name}: round {round_ + 1} of {options.rounds}: {side}")
        cpu[side].append(_cpu_ms(sides[side], data, options.seconds / 2))
    cores = len(os.sched_getaffinity(0))
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(cores, mp_context=context) as pool:
        for _, side in alternating(options.rounds, tuple(sides)):
            rate[side].append(_rate(pool, cores, sides[side], data, options.seconds / 2))
    report.add(f"processor time, {name}", "ms", cpu["ours"], cpu["vips"], peer_name=peer, target=CPU_TARGET)
    report.add(f"uploads, {name}, {cores} processes", "/s", rate["ours"], rate["vips"], peer_name=peer)


def _cpu_ms(act: Side, data: bytes, seconds: float) -> float:
    """Processor time of one photo, all threads of this process counted."""
    count, started, ends = 0, time.process_time(), time.monotonic() + seconds
    while not count or time.monotonic() < ends:
        act(data)
        count += 1
    return (time.process_time() - started) * 1000 / count


def _rate(pool: ProcessPoolExecutor, processes: int, act: Side, data: bytes, seconds: float) -> float:
    """Photos a second when each process always has one to work on."""
    return sum(pool.map(_alone, [(act, data, seconds)] * processes))


def _alone(work: tuple[Side, bytes, float]) -> float:
    act, data, seconds = work
    act(data)  # what is loaded at the first call
    count, started = 0, time.monotonic()
    while not count or time.monotonic() < started + seconds:
        act(data)
        count += 1
    return count / (time.monotonic() - started)


def with_vips(data: bytes, edge: int) -> list[bytes]:
    """The original and all renditions, as libvips makes them.

    Parameters
    ----------
    edge: of the original, as large as ours is made.
    """
    pyvips.cache_set_max(0)
    image = pyvips.Image.thumbnail_buffer(data, edge, height=edge, size="down").copy_memory()
    made = [data if len(data) <= SETTINGS.original_bytes else _vips_original(image)]
    for size in sorted(SIZES, key=lambda size: size.edge, reverse=True):
        if max(image.width, image.height) > size.edge:
            image = image.thumbnail_image(size.edge, height=size.edge, size="down").copy_memory()
        made.append(image.jpegsave_buffer(Q=82, interlace=True, keep="none"))
        made.append(image.webpsave_buffer(Q=78, effort=2, keep="none"))
    return made


def _vips_original(image: pyvips.Image) -> bytes:
    for quality in ORIGINAL_QUALITIES:
        file: bytes = image.jpegsave_buffer(Q=quality, interlace=True, keep="none")
        if len(file) <= SETTINGS.original_bytes:
            break
    return file


def photo(width: int, height: int, seed: int = 1) -> bytes:
    """A JPEG that is as hard to compress as a photo: coarse shapes, finer ones, a little grain."""
    chance = random.Random(seed)
    channels = [_channel(width, height, chance) for _ in range(3)]
    grain = Image.effect_noise((1024, 1024), 7)
    tiled = Image.new("L", (width, height))
    for left in range(0, width, 1024):
        for top in range(0, height, 1024):
            tiled.paste(grain, (left, top))
    # Grain and shapes are much the same in all colours, as in what cameras see.
    channels = [ImageChops.add(channel, tiled, 1, -128) for channel in channels]
    target = io.BytesIO()
    Image.merge("RGB", channels).save(target, "JPEG", quality=CAMERA_QUALITY)
    return target.getvalue()


def _channel(width: int, height: int, chance: random.Random) -> Image.Image:
    found = Image.linear_gradient("L").rotate(chance.randrange(360)).resize((width, height))
    for cells, weight in ((8, 0.5), (60, 0.3), (400, 0.15)):
        shape = (cells, max(1, cells * height // width))
        noise = Image.frombytes("L", shape, chance.randbytes(shape[0] * shape[1]))
        smooth = noise.resize((width, height), Image.Resampling.BICUBIC)
        found = Image.blend(found, smooth, weight)
    return found.filter(ImageFilter.GaussianBlur(0.6))


def _parser() -> argparse.ArgumentParser:
    parser = arguments(__doc__, seconds=6, rounds=3)
    parser.add_argument(
        "--megapixels",
        type=int,
        nargs="+",
        choices=sorted(MEGAPIXELS),
        default=sorted(MEGAPIXELS),
        help="of photos",
    )
    parser.add_argument("--photos", type=Path, metavar="DIR", help="measure with the .jpg files of this folder")
    return parser


if __name__ == "__main__":
    main(measure, _parser())
