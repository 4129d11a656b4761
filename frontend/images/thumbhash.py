"""ThumbHash: a blurred placeholder of a picture in some 25 bytes.

The format is Evan Wallace's, https://evanw.github.io/thumbhash/: averages and a few cosine waves of lightness (L), two
differences of colours (P: yellow to blue, Q: red to green) and transparency (A), each wave rounded to 4 bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul

from PIL import Image

_EDGE = 32
"""Pixels of the longer edge that are looked at. The highest wave has 7 halves, so more pixels add nothing but time."""
_LEAST_EDGE = 8
"""Fewer pixels than waves would show waves that are not there: such pictures are enlarged."""


@dataclass(frozen=True, slots=True)
class _Waves:
    """A channel as its average (``mean``) and waves, these as numbers from 0 to 1 around 0.5, in units of ``scale``."""

    mean: float
    scale: float
    waves: tuple[float, ...]


def thumbhash(image: Image.Image) -> bytes:
    """The hash of a picture of any size, in mode RGB or RGBA."""
    small = image.convert("RGBA")
    small.thumbnail((_EDGE, _EDGE), Image.Resampling.BOX, reducing_gap=4.0)
    most = 5 if small.getchannel("A").getextrema() != (255, 255) else 7
    across, down = (max(1, _rounded(most * edge / max(small.size))) for edge in small.size)
    landscape = small.width > small.height
    if min(small.size) < _LEAST_EDGE:
        small = small.resize((max(small.width, _LEAST_EDGE), max(small.height, _LEAST_EDGE)), Image.Resampling.BOX)
    width, height = small.size
    red, green, blue, alpha = ([value / 255 for value in small.getchannel(name).tobytes()] for name in "RGBA")
    opacity = sum(alpha)
    seen_through = opacity < width * height
    if seen_through:
        red, green, blue = (_on_its_average(channel, alpha, opacity) for channel in (red, green, blue))
    pixels = list(zip(red, green, blue, strict=True))
    lightness = _analyse([sum(rgb) / 3 for rgb in pixels], width, height, max(3, across), max(3, down))
    yellow = _analyse([(r + g) / 2 - b for r, g, b in pixels], width, height, 3, 3)
    red_green = _analyse([r - g for r, g, _ in pixels], width, height, 3, 3)
    opaque = _analyse(alpha, width, height, 5, 5) if seen_through else None
    first = (
        _rounded(63 * lightness.mean)
        | _rounded(31.5 + 31.5 * yellow.mean) << 6
        | _rounded(31.5 + 31.5 * red_green.mean) << 12
        | _rounded(31 * lightness.scale) << 18
        | seen_through << 23
    )
    second = (
        (down if landscape else across)
        | _rounded(63 * yellow.scale) << 3
        | _rounded(63 * red_green.scale) << 9
        | landscape << 15
    )
    head = first.to_bytes(3, "little") + second.to_bytes(2, "little")
    waves = lightness.waves + yellow.waves + red_green.waves
    if opaque is not None:
        head += bytes([_rounded(15 * opaque.mean) | _rounded(15 * opaque.scale) << 4])
        waves += opaque.waves
    return head + _packed([_rounded(15 * wave) for wave in waves])


def _on_its_average(channel: Sequence[float], alpha: Sequence[float], opacity: float) -> list[float]:
    """A colour with its own average, as far as it is seen, showing through."""
    average = sum(value * seen for value, seen in zip(channel, alpha, strict=True)) / opacity if opacity else 0.0
    return [average * (1 - seen) + value * seen for value, seen in zip(channel, alpha, strict=True)]


def _analyse(channel: Sequence[float], width: int, height: int, across: int, down: int) -> _Waves:
    """The cosine transform of a channel, as far as the waves lie within the triangle of ``across`` by ``down``."""
    rows = [channel[start : start + width] for start in range(0, width * height, width)]
    columns = [_cosines(wave, width) for wave in range(across)]
    by_row = [[sum(map(mul, row, cosines)) for cosines in columns] for row in rows]
    mean, waves = 0.0, []
    for wave_down in range(down):
        cosines = _cosines(wave_down, height)
        for wave_across in range(across):
            if wave_across * down >= across * (down - wave_down):
                break
            total = sum(row[wave_across] * cosine for row, cosine in zip(by_row, cosines, strict=True))
            if wave_across or wave_down:
                waves.append(total / (width * height))
            else:
                mean = total / (width * height)
    scale = max(map(abs, waves), default=0.0)
    return _Waves(mean, scale, tuple(0.5 + 0.5 * wave / scale if scale else 0.0 for wave in waves))


def _cosines(wave: int, count: int) -> list[float]:
    return [math.cos(math.pi / count * wave * (place + 0.5)) for place in range(count)]


def _rounded(value: float) -> int:
    """Half is rounded up, as the other implementations of the format do."""
    return math.floor(value + 0.5)


def _packed(nibbles: Sequence[int]) -> bytes:
    padded = [*nibbles, 0] if len(nibbles) % 2 else nibbles
    return bytes(low | high << 4 for low, high in zip(padded[::2], padded[1::2], strict=True))
