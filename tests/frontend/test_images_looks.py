"""Pictures look right, whatever they come as: upright, with right colours, with what shows through."""

from __future__ import annotations

import array
import contextlib
import io
import math

import pillow_heif
import pytest
from pictures import CORNERS, corner_colours, corners, exif, file_of, near, opened, soft
from PIL import Image, ImageCms

from frontend.images.preparing import Prepared, prepare
from frontend.images.settings import ImageSettings

pillow_heif.register_heif_opener()
SETTINGS = ImageSettings()
TURNED = {
    1: (0, 1, 2, 3),
    2: (1, 0, 3, 2),
    3: (3, 2, 1, 0),
    4: (2, 3, 0, 1),
    5: (0, 2, 1, 3),
    6: (2, 0, 3, 1),
    7: (3, 1, 2, 0),
    8: (1, 3, 0, 2),
}
"""Orientation → which field of what is stored is seen top left, top right, bottom left, bottom right."""


def require_all_look(prepared: Prepared, colours: list[tuple[int, ...]], most: int = 14) -> None:
    """Each picture of the set has these colours in its four fields."""
    assert len(prepared.pictures) == 9
    for picture in prepared.pictures:
        found = corner_colours(opened(picture.data))
        assert all(near(one, other, most) for one, other in zip(found, colours, strict=True)), (picture.mime, found)


@pytest.mark.parametrize("format_", ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"))
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_set_upright(format_: str, orientation: int) -> None:
    image = corners(240, 160)
    options = {"lossless": True} if format_ == "WEBP" else {"quality": 90} if format_ in ("JPEG", "AVIF") else {}
    data = file_of(image, format_, exif=exif(orientation), **options)
    prepared = prepare(data, SETTINGS)
    size = (240, 160) if orientation <= 4 else (160, 240)
    assert (prepared.width, prepared.height) == size
    assert all(
        (picture.width, picture.height)[0] * size[1] - picture.height * size[0] in range(-400, 400)
        for picture in prepared.pictures
    )
    require_all_look(prepared, [CORNERS[field] for field in TURNED[orientation]])


@pytest.mark.parametrize("orientation", (1, 6))
def test_heic_pictures_are_set_upright(orientation: int) -> None:
    target = io.BytesIO()
    heif = pillow_heif.from_pillow(corners(240, 160))
    heif.save(target, quality=90, exif=exif(orientation).tobytes())
    prepared = prepare(target.getvalue(), SETTINGS)
    assert prepared.mime == "image/heic"
    require_all_look(prepared, [CORNERS[field] for field in TURNED[orientation]])


def profile_bytes(space: str = "wide") -> bytes:
    """A profile whose red, green and blue are not those of sRGB: made from sRGB's with two of them exchanged."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(data[128:132], "big")
    tags = {bytes(data[132 + 12 * at : 136 + 12 * at]): 132 + 12 * at for at in range(count)}
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    data[red + 4 : red + 12], data[green + 4 : green + 12] = data[green + 4 : green + 12], data[red + 4 : red + 12]
    at = data.find("sRGB".encode("utf-16-be"))
    while at >= 0:  # it must not be taken for sRGB by its name
        data[at : at + 8] = "Swap".encode("utf-16-be")
        at = data.find("sRGB".encode("utf-16-be"))
    return bytes(data)


@pytest.mark.parametrize("format_", ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"))
def test_colours_are_converted_from_their_profile(format_: str) -> None:
    options = {"lossless": True} if format_ == "WEBP" else {"quality": 95} if format_ in ("JPEG", "AVIF") else {}
    if format_ == "JPEG":
        options["subsampling"] = 0
    data = file_of(corners(240, 160), format_, icc_profile=profile_bytes(), **options)
    swapped: list[tuple[int, ...]] = [(green, red, blue) for red, green, blue in CORNERS]
    prepared = prepare(data, SETTINGS)
    require_all_look(prepared, swapped, 20)
    assert all("icc_profile" not in opened(picture.data).info for picture in prepared.pictures)


@pytest.mark.parametrize("profile", (b"", b"rubbish", profile_bytes()[:200], b"\0" * 500))
def test_a_broken_profile_is_left_aside(profile: bytes) -> None:
    require_all_look(prepare(file_of(corners(240, 160), icc_profile=profile, quality=92), SETTINGS), list(CORNERS))


def test_a_profile_for_other_pixels_is_left_aside() -> None:
    grey = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    require_all_look(prepare(file_of(corners(240, 160), icc_profile=grey, quality=92), SETTINGS), list(CORNERS))


@pytest.mark.parametrize("format_", ("JPEG", "TIFF"))
def test_cmyk(format_: str) -> None:
    data = file_of(corners(240, 160).convert("CMYK"), format_, **({"quality": 95} if format_ == "JPEG" else {}))
    require_all_look(prepare(data, SETTINGS), list(CORNERS), 20)


def test_lab() -> None:
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    lab = ImageCms.applyTransform(corners(240, 160), to_lab)
    assert lab is not None
    require_all_look(prepare(file_of(lab, "TIFF"), SETTINGS), list(CORNERS), 20)


def grey_ramp(kind: str, most: float, *others: float) -> Image.Image:
    """256 by 64 pixels from 0 to ``most``; ``others`` are the first pixels instead.

    Parameters
    ----------
    kind: H (16 bits), i (32 bits), f (real numbers), as :mod:`array` calls them.
    """
    row = [most * at / 255 for at in range(256)]
    values = [*others, *(row * 64)[len(others) :]]
    data = array.array(kind, values if kind == "f" else [int(value) for value in values]).tobytes()
    return Image.frombytes({"H": "I;16", "i": "I", "f": "F"}[kind], (256, 64), data)


@pytest.mark.parametrize(
    ("kind", "most", "format_"),
    [
        ("H", 65535, "PNG"),
        ("H", 65535, "TIFF"),
        ("i", 65535, "TIFF"),
        ("f", 1.0, "TIFF"),
        ("f", 255.0, "TIFF"),
    ],
)
def test_grey_of_many_bits_keeps_its_shades(kind: str, most: float, format_: str) -> None:
    data = file_of(grey_ramp(kind, most), format_)
    for picture in prepare(data, SETTINGS).pictures:
        image = opened(picture.data).convert("L")
        width = image.width
        for part in (0.1, 0.5, 0.9):
            shade = image.getpixel((int(width * part), image.height // 2))
            assert isinstance(shade, int) and abs(shade - 255 * part) < 8, (picture.mime, part, shade)


def test_grey_of_rare_numbers_is_taken() -> None:
    for image in (
        grey_ramp("f", 1.0, math.nan, math.inf, -math.inf),
        grey_ramp("f", 1e30, -1e30),
        grey_ramp("f", 0.0),
        grey_ramp("i", -5),
        grey_ramp("i", 2**31 - 1, -(2**31)),
    ):
        assert prepare(file_of(image, "TIFF"), SETTINGS).width == 256


@pytest.mark.parametrize("format_", ("PNG", "GIF", "TIFF"))
def test_palettes(format_: str) -> None:
    palette = corners(240, 160).quantize(16)
    require_all_look(prepare(file_of(palette, format_), SETTINGS), list(CORNERS), 20)


def files_of_every_mode() -> list[tuple[str, bytes]]:
    """A file of each format in each mode that it can be written in."""
    found = []
    modes = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "I;16", "I", "F")
    for mode in modes:
        image = soft(60, 40)
        if mode == "I;16":
            shades = [shade * 257 for shade in image.convert("L").tobytes()]
            image = Image.frombytes(mode, image.size, array.array("H", shades).tobytes())
        else:
            image = image.convert("L").convert(mode) if mode in ("I", "F", "PA") else image.convert(mode)
        # Pillow cuts 16 bits off at 255 when it writes a format of 8.
        formats = ("PNG", "TIFF") if mode == "I;16" else ("PNG", "TIFF", "WEBP", "JPEG", "GIF", "AVIF")
        for format_ in formats:
            with contextlib.suppress(OSError, ValueError, KeyError):
                found.append((f"{format_} of {mode}", file_of(image, format_)))
    return found


GREY_MODES = ("L", "LA", "PA", "I;16", "I", "F")
EVERY_MODE = files_of_every_mode()
assert len(EVERY_MODE) > 50


@pytest.mark.parametrize(("name", "data"), EVERY_MODE, ids=[name for name, _ in EVERY_MODE])
def test_every_mode_that_can_be_written_is_taken(name: str, data: bytes) -> None:
    prepared = prepare(data, SETTINGS)
    assert len(prepared.pictures) == 9 and (prepared.width, prepared.height) == (60, 40)
    mode = name.partition(" of ")[2]
    if mode != "1":  # dithered
        wanted = soft(60, 40) if mode not in GREY_MODES else soft(60, 40).convert("L").convert("RGB")
        found = opened(prepared.pictures[0].data)
        assert all(near(*pair, 40) for pair in zip(corner_colours(found), corner_colours(wanted), strict=True))


@pytest.mark.parametrize("format_", ("PNG", "WEBP", "TIFF", "AVIF"))
def test_what_shows_through_is_kept_and_white_in_jpeg(format_: str) -> None:
    image = corners(240, 160).convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 120, 80))
    options = {"lossless": True} if format_ == "WEBP" else {}
    prepared = prepare(file_of(image, format_, **options), SETTINGS)
    for picture in prepared.pictures:
        found = opened(picture.data)
        if picture.mime == "image/jpeg":
            assert near(corner_colours(found)[0], (255, 255, 255), 6)
        else:
            assert found.mode == "RGBA"
            corner = found.getpixel((found.width // 4, found.height // 4))
            assert isinstance(corner, tuple) and corner[3] < 6
        assert near(corner_colours(found)[3], CORNERS[3], 20)


def test_a_transparent_colour_of_a_palette_shows_through() -> None:
    palette = corners(240, 160).quantize(8)
    index = palette.getpixel((1, 1))
    for format_ in ("PNG", "GIF"):
        prepared = prepare(file_of(palette, format_, transparency=index), SETTINGS)
        assert near(corner_colours(opened(prepared.pictures[1].data))[0], (255, 255, 255), 6)


@pytest.mark.parametrize(("mode", "value"), (("L", 255), ("I;16", 65535), ("RGB", (255, 255, 255)), ("1", 1)))
def test_a_transparent_colour_of_a_png_is_no_trouble(mode: str, value: object) -> None:
    image = Image.new(mode, (60, 40), value)  # type: ignore[arg-type]  # as the mode needs it
    assert len(prepare(file_of(image, "PNG", transparency=value), SETTINGS).pictures) == 9


def test_a_transparent_picture_without_alpha_in_use_is_a_jpeg() -> None:
    prepared = prepare(file_of(corners(240, 160).convert("RGBA"), "PNG"), SETTINGS)
    assert prepared.pictures[0].mime == "image/jpeg"


def test_of_several_pages_the_first_is_the_photo() -> None:
    data = file_of(corners(240, 160), "TIFF", save_all=True, append_images=[Image.new("RGB", (500, 500))])
    require_all_look(prepare(data, SETTINGS), list(CORNERS))
    data = file_of(corners(240, 160), "MPO", save_all=True, append_images=[Image.new("RGB", (500, 500))], quality=90)
    prepared = prepare(data, SETTINGS)
    assert prepared.mime == "image/jpeg" and not prepared.animated
    require_all_look(prepared, list(CORNERS))
