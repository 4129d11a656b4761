"""Hashes that find the same file and the same picture, and placeholders that look like it."""

from __future__ import annotations

import hashlib
import math

import pytest
from pictures import corners, file_of, opened, soft
from PIL import Image, ImageEnhance

from frontend.images.fingerprints import NEAR_BITS, bits_apart, difference_hash, exact_hash
from frontend.images.thumbhash import thumbhash


def test_the_exact_hash_is_sha_256() -> None:
    assert exact_hash(b"photo") == hashlib.sha256(b"photo").digest()


def test_the_difference_hash_of_known_pictures() -> None:
    darker = Image.new("L", (9, 8))
    darker.putdata([200 - 10 * column for _ in range(8) for column in range(9)])
    assert difference_hash(darker) == 2**64 - 1
    assert difference_hash(darker.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) == 0
    one = Image.new("L", (9, 8))
    one.putpixel((0, 0), 255)
    assert difference_hash(one) == 1 << 63
    assert difference_hash(Image.new("RGB", (500, 300), (9, 9, 9))) == 0


def test_the_same_picture_in_other_sizes_and_qualities_is_near() -> None:
    apart = []
    for seed in range(12):
        image = soft(320, 240, seed)
        others = [
            image.resize((200, 150)),
            opened(file_of(image, quality=40)),
            opened(file_of(image.resize((640, 480)), "WEBP", quality=60)),
            ImageEnhance.Brightness(image).enhance(0.9),
            image.convert("RGBA"),
        ]
        apart += [bits_apart(difference_hash(image), difference_hash(other)) for other in others]
    assert max(apart) <= NEAR_BITS


def test_different_pictures_are_far_apart() -> None:
    hashes = [difference_hash(soft(320, 240, seed)) for seed in range(60)]
    apart = [bits_apart(one, other) for at, one in enumerate(hashes) for other in hashes[:at]]
    assert min(apart) > NEAR_BITS and 28 < sum(apart) / len(apart) < 36


def seen(hash_: bytes, across: int = 8, down: int = 8) -> list[list[tuple[float, float, float, float]]]:
    """The picture that a thumbhash shows, by its format's description alone: rows of red, green, blue, opacity."""
    first, second = int.from_bytes(hash_[:3], "little"), int.from_bytes(hash_[3:5], "little")
    lightness, yellow = (first & 63) / 63, (first >> 6 & 63) / 31.5 - 1
    red_green, scale = (first >> 12 & 63) / 31.5 - 1, (first >> 18 & 31) / 31
    opaque, landscape = first >> 23, second >> 15
    most = 5 if opaque else 7
    wide, high = max(3, most if landscape else second & 7), max(3, second & 7 if landscape else most)
    nibbles = [half for byte in hash_[6 if opaque else 5 :] for half in (byte & 15, byte >> 4)]

    def waves(columns: int, rows: int, size: float) -> dict[tuple[int, int], float]:
        places = [(x, y) for y in range(rows) for x in range(columns) if (x or y) and x * rows < columns * (rows - y)]
        return {place: (nibbles.pop(0) / 7.5 - 1) * size for place in places}

    light = waves(wide, high, scale)
    yellows = waves(3, 3, (second >> 3 & 63) / 63 * 1.25)
    reds = waves(3, 3, (second >> 9 & 63) / 63 * 1.25)
    alpha = waves(5, 5, (hash_[5] >> 4) / 15) if opaque else {}

    def value(mean: float, found: dict[tuple[int, int], float], x: float, y: float) -> float:
        return mean + sum(
            2 * size * math.cos(math.pi * column * x) * math.cos(math.pi * row * y)
            for (column, row), size in found.items()
        )

    def pixel(x: float, y: float) -> tuple[float, float, float, float]:
        one = value(lightness, light, x, y)
        p, q = value(yellow, yellows, x, y), value(red_green, reds, x, y)
        blue = one - 2 / 3 * p
        red = (3 * one - blue + q) / 2
        return red, red - q, blue, value((hash_[5] & 15) / 15, alpha, x, y) if opaque else 1.0

    return [[pixel((x + 0.5) / across, (y + 0.5) / down) for x in range(across)] for y in range(down)]


def distance(image: Image.Image, hash_: bytes) -> float:
    """How far a placeholder is from its picture, on average of all places and colours; 1 is black against white."""
    small = image.convert("RGB").resize((8, 8), Image.Resampling.BOX)
    pairs = []
    for y, row in enumerate(seen(hash_)):
        for x, shown in enumerate(row):
            wanted = small.getpixel((x, y))
            assert isinstance(wanted, tuple)
            pairs += [abs(min(1.0, max(0.0, one)) - other / 255) for one, other in zip(shown, wanted, strict=False)]
    return sum(pairs) / len(pairs)


@pytest.mark.parametrize("size", ((32, 32), (300, 200), (200, 300), (1000, 100), (50, 700), (1, 1), (5, 1)))
def test_a_placeholder_looks_like_its_picture(size: tuple[int, int]) -> None:
    for image in (soft(*size), corners(*size), Image.linear_gradient("L").resize(size)):
        hash_ = thumbhash(image.convert("RGB"))
        assert 9 <= len(hash_) <= 25
        assert distance(image, hash_) < 0.18
        if min(size) > 30:
            assert distance(image, hash_) < 0.9 * distance(image.transpose(Image.Transpose.ROTATE_180), hash_)


@pytest.mark.parametrize("colour", ((255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (120, 130, 90)))
def test_a_placeholder_of_one_colour_has_it(colour: tuple[int, int, int]) -> None:
    hash_ = thumbhash(Image.new("RGB", (40, 30), colour))
    for row in seen(hash_):
        for shown in row:
            assert all(abs(one - other / 255) < 0.03 for one, other in zip(shown, colour, strict=False))


def test_a_placeholder_of_one_colour_bit_by_bit() -> None:
    """White, by the format's description: lightness 63, no colour (32 of 63), no waves, 7 by 7, upright."""
    head = 63 | 32 << 6 | 32 << 12
    assert thumbhash(Image.new("RGB", (30, 30), (255, 255, 255)))[:5] == head.to_bytes(3, "little") + b"\x07\0"
    wide = thumbhash(Image.new("RGB", (60, 30), (255, 255, 255)))
    assert wide[:5] == head.to_bytes(3, "little") + (4 | 1 << 15).to_bytes(2, "little")


def test_a_placeholder_shows_what_shows_through() -> None:
    image = Image.new("RGBA", (80, 80), (200, 30, 30, 255))
    image.paste((0, 0, 0, 0), (0, 0, 40, 80))
    rows = seen(thumbhash(image))
    assert all(row[0][3] < 0.35 and row[7][3] > 0.65 for row in rows)
    assert rows[4][7][0] > 0.6 > rows[4][7][1]
    assert len(thumbhash(Image.new("RGBA", (80, 80), (9, 9, 9, 0)))) <= 25
