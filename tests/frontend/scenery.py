"""Landscapes made by code: enough like photos to be looked at, and no two the same."""

from __future__ import annotations

import io
import math
import random

from PIL import ExifTags, Image, ImageDraw, ImageFilter

SKIES = (
    ((18, 40, 84), (250, 170, 110)),
    ((96, 160, 220), (235, 240, 245)),
    ((60, 30, 80), (245, 110, 90)),
    ((150, 190, 225), (250, 235, 200)),
    ((12, 16, 40), (70, 90, 140)),
)
GROUNDS = ((38, 70, 52), (86, 62, 50), (44, 62, 92), (96, 82, 44), (62, 44, 70))


def landscape(seed: int, width: int = 1800, height: int = 1200) -> Image.Image:
    """Sky, a sun or moon, and rows of hills, each nearer and darker; with the grain of film."""
    dice = random.Random(seed)
    top, bottom = SKIES[seed % len(SKIES)]
    sky = Image.linear_gradient("L").resize((width, height))
    image = Image.composite(Image.new("RGB", sky.size, bottom), Image.new("RGB", sky.size, top), sky)
    draw = ImageDraw.Draw(image)
    radius = dice.randint(height // 22, height // 9)
    x, y = dice.randint(radius, width - radius), dice.randint(height // 6, height // 2)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(255, 236, 200))
    image = image.filter(ImageFilter.GaussianBlur(3))
    ground = GROUNDS[dice.randrange(len(GROUNDS))]
    for row in range(4):
        _hills(ImageDraw.Draw(image), dice, width, height, row, ground, bottom)
    grain = Image.frombytes("L", image.size, dice.randbytes(width * height)).convert("RGB")
    return Image.blend(image, grain, 0.06)


def _hills(
    draw: ImageDraw.ImageDraw,
    dice: random.Random,
    width: int,
    height: int,
    row: int,
    ground: tuple[int, int, int],
    haze: tuple[int, int, int],
) -> None:
    base = height * (0.52 + 0.12 * row)
    waves = [
        (dice.uniform(1, 5) * (1 + row), dice.uniform(0, 6.3), dice.uniform(0.02, 0.06) * height) for _ in range(4)
    ]
    line = [
        (x, base + sum(size * math.sin(count * x / width * 2 + start) for count, start, size in waves))
        for x in range(0, width + 8, 8)
    ]
    near = (row + 1) / 4
    colour = tuple(round(one * near + other * (1 - near)) for one, other in zip(ground, haze, strict=True))
    draw.polygon([*line, (width, height), (0, height)], fill=colour)


def photo_file(seed: int, width: int = 1800, height: int = 1200) -> bytes:
    """A landscape as a camera's JPEG: with its name, a date and, of every second one, a place."""
    image = landscape(seed, width, height)
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "Haystack", "Obscura 1"
    exif[ExifTags.Base.DateTime] = f"2024:07:{1 + seed % 28:02} 18:05:59"
    if seed % 2 == 0:
        gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
        gps[ExifTags.GPS.GPSLatitudeRef], gps[ExifTags.GPS.GPSLongitudeRef] = "N", "E"
        gps[ExifTags.GPS.GPSLatitude], gps[ExifTags.GPS.GPSLongitude] = (43.0 + seed / 4, 27.0, 0.0), (11.0, 52.0, 0.0)
    target = io.BytesIO()
    image.save(target, "JPEG", quality=88, exif=exif)
    return target.getvalue()
