"""The files that are stored: what they may not have in them, how large they are, whether they move."""

from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import corner_colours, corners, exif, file_of, near, noise, opened, soft
from PIL import Image, ImageSequence

from frontend.images.errors import ImageRefused, ImageTooLarge
from frontend.images.preparing import prepare
from frontend.images.renditions import ORIGINAL, SIZES, UNTOUCHED, Format, alternate_key
from frontend.images.settings import ImageSettings
from frontend.images.stripping import strip_jpeg

SETTINGS = ImageSettings()
SECRET = "48.8582N-2.2945E-home"
XMP = f"<x:xmpmeta xmlns:x='adobe:ns:meta/'>{SECRET}</x:xmpmeta>".encode()


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def told_everywhere(format_: str, *, mpf: bool = True) -> bytes:
    """A file that says where it was taken in all places that its format has for it."""
    from PIL import PngImagePlugin

    image, metadata = soft(200, 150), exif(1, place=True, secret=SECRET)
    if format_ == "PNG":
        texts = PngImagePlugin.PngInfo()
        texts.add_text("Comment", SECRET)
        texts.add_itxt("XML:com.adobe.xmp", XMP.decode())
        return file_of(image, "PNG", exif=metadata, pnginfo=texts)
    if format_ == "GIF":
        return file_of(image, "GIF", comment=SECRET.encode())
    if format_ == "TIFF":
        return file_of(image, "TIFF", exif=metadata)
    data = file_of(image, format_, exif=metadata, xmp=XMP)
    if format_ == "JPEG":
        inserted = [
            segment(0xE0, b"JFXX\0\x13" + SECRET.encode()),
            segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\2\2" + SECRET.encode()[:12].ljust(12)),
            segment(0xE2, (b"MPF\0" if mpf else b"FPXR\0") + SECRET.encode()),
            segment(0xED, b"Photoshop 3.0\0" + SECRET.encode()),
            segment(0xEE, b"Ducky" + SECRET.encode()),
            segment(0xFE, SECRET.encode()),
        ]
        data = data[:2] + b"".join(inserted) + data[2:] + SECRET.encode()
    return data


@pytest.mark.parametrize("format_", ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF"))
def test_nothing_of_what_a_file_tells_is_in_what_others_see(format_: str) -> None:
    data = told_everywhere(format_)
    assert SECRET.encode() in data or format_ == "AVIF"
    prepared = prepare(data, SETTINGS)
    if format_ not in ("GIF", "TIFF"):  # Pillow writes no place into a TIFF
        assert prepared.taken.place is not None
        assert abs(prepared.taken.place.latitude - 48.858222) < 1e-5
        assert abs(prepared.taken.place.longitude - 2.2945) < 1e-4
    gps = [struct.pack(order + "II", 48, 1) for order in "<>"]  # as EXIF has degrees
    for picture in prepared.pictures:
        for part in (SECRET.encode(), SECRET.encode()[:12], b"Exif", b"http", b"xmp", b"JFXX", b"Ducky", *gps):
            assert part not in picture.data, (picture.mime, picture.alternate, part)
        assert not opened(picture.data).getexif()


def test_a_good_jpeg_is_not_compressed_twice() -> None:
    data = told_everywhere("JPEG", mpf=False)  # Pillow warns of a broken one
    original = prepare(data, SETTINGS).pictures[0]
    assert len(original.data) < len(data)
    assert opened(original.data).tobytes() == opened(data).tobytes()


@pytest.mark.parametrize(
    ("size", "mode"),
    [((2800, 2100), "RGB"), ((1400, 1050), "RGBA"), ((3000, 200), "RGB"), ((3000, 200), "RGBA"), ((1, 5000), "RGB")],
)
def test_sizes_and_bytes(size: tuple[int, int], mode: str) -> None:
    image = noise(*size, mode=mode)
    data = file_of(image, "PNG", compress_level=1)
    prepared = prepare(data, ImageSettings(max_bytes=10**9))
    by_key = {picture.alternate: picture for picture in prepared.pictures}
    assert len(by_key[ORIGINAL].data) <= 1_000_000
    assert max(by_key[ORIGINAL].width, by_key[ORIGINAL].height) <= SETTINGS.original_edge
    for picture in prepared.pictures:
        assert opened(picture.data).size == (picture.width, picture.height)
        assert abs(picture.width - picture.height * size[0] / size[1]) <= max(2, size[0] / size[1])
    for one in SIZES:
        for format_ in (Format.JPEG, Format.WEBP):
            picture = by_key[alternate_key(one.name, format_)]
            assert max(picture.width, picture.height) == min(one.edge, max(size))
            assert picture.mime == format_.mime


@pytest.mark.parametrize("marker", (0xC3, 0xC9, 0xCA, 0xCF))
def test_jpegs_that_browsers_do_not_show_are_not_given_on(marker: int) -> None:
    data = file_of(soft(40, 30))
    at = data.index(b"\xff\xc0")
    with pytest.raises(ImageRefused, match="rare"):
        strip_jpeg(data[: at + 1] + bytes([marker]) + data[at + 2 :])


@pytest.mark.parametrize("size", ((1, 1), (2, 1), (159, 90), (161, 90), (640, 1080)))
def test_nothing_is_enlarged(size: tuple[int, int]) -> None:
    for picture in prepare(file_of(soft(*size), "PNG"), SETTINGS).pictures:
        assert picture.width <= size[0] and picture.height <= size[1]


def test_renditions_look_like_the_photo() -> None:
    image = corners(3000, 2000)
    for picture in prepare(file_of(image, quality=90), ImageSettings(avif=True)).pictures:
        pairs = zip(corner_colours(opened(picture.data)), corner_colours(image), strict=True)
        assert all(near(*pair, 8) for pair in pairs)


def test_avif_and_the_untouched_upload_by_settings() -> None:
    data = file_of(soft(400, 300))
    prepared = prepare(data, ImageSettings(avif=True, keep_untouched=True))
    keys = {picture.alternate: picture for picture in prepared.pictures}
    assert {21, 22, 23, 24} < set(keys) and opened(keys[22].data).format == "AVIF"
    assert keys[UNTOUCHED].data == data


def moving(format_: str, count: int = 6, size: tuple[int, int] = (120, 80), **options: object) -> bytes:
    step = 240 // count
    frames = [Image.new("RGB", size, (step * at, 255 - step * at, 90)) for at in range(count)]
    more = {"duration": 70, "loop": 0, "save_all": True, "append_images": frames[1:]}
    return file_of(frames[0], format_, **(more | options))


@pytest.mark.parametrize("format_", ("GIF", "WEBP", "PNG"))
def test_what_moves_keeps_moving(format_: str) -> None:
    prepared = prepare(moving(format_), SETTINGS)
    original = prepared.pictures[0]
    assert prepared.animated and original.mime == "image/webp"
    image = Image.open(io.BytesIO(original.data))
    frames = [frame.convert("RGB").getpixel((60, 40)) for frame in ImageSequence.Iterator(image)]
    assert len(frames) == 6
    assert all(
        isinstance(found, tuple) and near(found, (40 * at, 255 - 40 * at, 90), 12) for at, found in enumerate(frames)
    )
    assert image.info["loop"] == 0 and image.info["duration"] == 70
    assert all(not getattr(opened(picture.data), "is_animated", False) for picture in prepared.pictures[1:])


@pytest.mark.parametrize("duration", (0, 1, 10_000_000))
def test_rare_times_of_frames_are_no_trouble(duration: int) -> None:
    for format_ in ("GIF", "PNG", "WEBP"):
        times = min(duration, 60_000 if format_ == "PNG" else 600_000)
        assert prepare(moving(format_, duration=times), SETTINGS).animated


def test_an_animation_has_bounds() -> None:
    data = moving("GIF", 30)
    few = prepare(data, ImageSettings(max_frames=5)).pictures[0]
    assert getattr(Image.open(io.BytesIO(few.data)), "n_frames", 1) == 5
    assert not prepare(data, ImageSettings(max_animation_pixels=120 * 80 * 29)).animated
    frames = [noise(400, 300, seed) for seed in range(8)]
    large = file_of(frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=50, quality=60)
    prepared = prepare(large, ImageSettings(original_bytes=400_000))
    assert len(prepared.pictures[0].data) <= 400_000
    assert prepared.animated and prepared.pictures[0].width == 320  # as large as fits


def test_bounds_are_told_before_anything_is_decoded() -> None:
    with pytest.raises(ImageTooLarge, match="pixels"):
        prepare(file_of(Image.new("1", (11_000, 10_000)), "PNG"), SETTINGS)
    with pytest.raises(ImageTooLarge, match="bytes"):
        prepare(b"x" * 11, ImageSettings(max_bytes=10))
    with pytest.raises(ImageRefused, match="empty"):
        prepare(b"", SETTINGS)


@given(st.binary(max_size=400))
def test_stripping_ends_and_refuses_or_gives_a_jpeg(tail: bytes) -> None:
    try:
        found = strip_jpeg(b"\xff\xd8" + tail)
    except ImageRefused:
        return
    assert found.startswith(b"\xff\xd8") and found.endswith(b"\xff\xd9")


JPEG = told_everywhere("JPEG")


@settings(deadline=None, max_examples=60)
@given(st.integers(0, len(JPEG) - 1))
def test_a_jpeg_that_is_cut_off_is_never_stripped(at: int) -> None:
    end = JPEG.rindex(b"\xff\xd9") + 2
    if at < end:
        with pytest.raises(ImageRefused):
            strip_jpeg(JPEG[:at])
