"""Pictures for tests, made here: none is kept as a file."""

from __future__ import annotations

import io
import random
from typing import Any

from PIL import ExifTags, Image

CORNERS = ((220, 30, 30), (30, 200, 40), (40, 60, 220), (230, 220, 40))
"""Red, green, blue, yellow: top left, top right, bottom left, bottom right."""


def corners(width: int, height: int) -> Image.Image:
    """Four fields of colour, so that it is seen which way up a picture is."""
    image = Image.new("RGB", (width, height))
    for at, colour in enumerate(CORNERS):
        left, top = at % 2 * (width // 2), at // 2 * (height // 2)
        image.paste(colour, (left, top, width if at % 2 else width // 2, height if at // 2 else height // 2))
    return image


def corner_colours(image: Image.Image) -> list[tuple[int, ...]]:
    """The colours in the middle of the four fields."""
    rgb = image.convert("RGB")
    width, height = rgb.size
    places = ((1, 1), (3, 1), (1, 3), (3, 3))
    found = [rgb.getpixel((width * x // 4, height * y // 4)) for x, y in places]
    assert all(isinstance(one, tuple) for one in found)
    return found  # type: ignore[return-value]  # of three bands


def noise(width: int, height: int, seed: int = 1, mode: str = "RGB") -> Image.Image:
    """As hard to compress as can be."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    return Image.frombytes(mode, (width, height), random.Random(seed).randbytes(width * height * bands))


def soft(width: int, height: int, seed: int = 1) -> Image.Image:
    """Shapes without edges, like a photo out of focus."""
    return noise(8, 8, seed).resize((width, height), Image.Resampling.BICUBIC)


def file_of(image: Image.Image, format_: str = "JPEG", **options: Any) -> bytes:
    """The picture as a file."""
    target = io.BytesIO()
    image.save(target, format_, **options)
    return target.getvalue()


def opened(data: bytes) -> Image.Image:
    """A file as a picture."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def near(one: tuple[int, ...], other: tuple[int, ...], most: int) -> bool:
    """Whether no channel is further off than ``most``."""
    return all(abs(a - b) <= most for a, b in zip(one, other, strict=True))


def exif(orientation: int | None = None, *, place: bool = False, secret: str = "") -> Image.Exif:
    """EXIF of a camera.

    Parameters
    ----------
    place: whether it says where: 48°51'29.6" N, 2°17'40.2" E.
    secret: a text, in fields that may hold one.
    """
    found = Image.Exif()
    if orientation is not None:
        found[ExifTags.Base.Orientation] = orientation
    if secret:
        found[ExifTags.Base.ImageDescription] = secret
        found[ExifTags.Base.Artist] = secret
    if place:
        gps = found.get_ifd(ExifTags.IFD.GPSInfo)
        gps[ExifTags.GPS.GPSLatitudeRef] = "N"
        gps[ExifTags.GPS.GPSLatitude] = (48.0, 51.0, 29.6)
        gps[ExifTags.GPS.GPSLongitudeRef] = "E"
        gps[ExifTags.GPS.GPSLongitude] = (2.0, 17.0, 40.2)
        if secret:
            gps[ExifTags.GPS.GPSAreaInformation] = secret.encode()
    return found
