"""From the bytes of an upload to pixels that mean the same everywhere: upright, sRGB, 8 bits a channel.

Nothing is decoded before the header's size was found to be within the limits, and only decoders of the formats that are
taken ever see the bytes: Pillow has many more, and old ones.
"""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import pillow_heif
from PIL import ExifTags, Image, ImageCms, ImageFile, UnidentifiedImageError

from frontend.images.errors import ImageRefused, ImageTooLarge
from frontend.images.settings import ImageSettings

pillow_heif.register_heif_opener()
Image.init()  # all plugins; open() with a list of formats would load those of the usual ones alone
Image.MAX_IMAGE_PIXELS = None  # max_pixels of the settings is the limit, for every format alike
ImageFile.LOAD_TRUNCATED_IMAGES = False

MIME_TYPES = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "AVIF": "image/avif",
    "GIF": "image/gif",
    "TIFF": "image/tiff",
    "HEIF": "image/heic",
}
"""The formats that are taken, by Pillow's names. MPO is a JPEG with further pictures behind it, as phones make them."""

_DECODERS = tuple(name for name in MIME_TYPES if name != "MPO")
"""What Pillow may try; it looks for an MPO by itself when it has found a JPEG."""

TAKEN = "JPEG, PNG, WebP, AVIF, GIF, TIFF and HEIC"

_DECODER_ERRORS = (
    OSError,
    SyntaxError,  # Pillow's plugins raise it for broken files
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    EOFError,
    RuntimeError,
    ZeroDivisionError,
    AttributeError,
    struct.error,
)
"""What decoders are known to raise for damaged files. MemoryError is not among them: it is told as what it is."""

_SRGB = ImageCms.createProfile("sRGB")
_ALPHA_MODES = frozenset(("RGBA", "LA", "PA", "La", "RGBa"))
_WIDE_GREY_MODES = frozenset(("I", "I;16", "I;16L", "I;16B", "I;16N", "F"))
_SIDEWAYS = frozenset((5, 6, 7, 8))
"""EXIF orientations that exchange width and height."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A picture whose header was read and found good; its pixels are not decoded yet.

    Parameters
    ----------
    image: Pillow's, in its first frame.
    mime: type of the file.
    width, height: pixels, upright.
    frames: more than 1 of an animation.
    """

    image: Image.Image
    mime: str
    width: int
    height: int
    frames: int


@contextlib.contextmanager
def damaged_as_refusal(what: str) -> Iterator[None]:
    """Turn what decoders raise for damaged files into :class:`ImageRefused`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about broken EXIF and the like; the pixels are what counts
            yield
    except UnidentifiedImageError:
        raise ImageRefused(f"this is no picture of a kind that is taken here ({TAKEN})") from None
    except _DECODER_ERRORS as error:
        raise ImageRefused(f"the picture is damaged: {what}: {_in_words(error)}") from error


def open_image(data: bytes, settings: ImageSettings) -> Opened:
    """Read the header of an upload.

    Raises
    ------
    ImageRefused: empty, not a picture of a kind that is taken, or damaged.
    ImageTooLarge: too many bytes or pixels.
    """
    if not data:
        raise ImageRefused("the upload is empty")
    if len(data) > settings.max_bytes:
        raise ImageTooLarge(f"the upload has {len(data):,} bytes, at most {settings.max_bytes:,} are taken")
    with damaged_as_refusal("its header"):
        image = Image.open(io.BytesIO(data), formats=_DECODERS)
        width, height = image.size
        if width < 1 or height < 1:
            raise ImageRefused(f"the picture is {width} by {height} pixels")
        if width * height > settings.max_pixels:
            raise ImageTooLarge(
                f"the picture has {width} x {height} pixels, at most {settings.max_pixels:,} are taken in all"
            )
        frames = _frame_count(image, settings)
        if orientation(image) in _SIDEWAYS:
            width, height = height, width
    return Opened(image, MIME_TYPES[str(image.format)], width, height, frames)


def _frame_count(image: Image.Image, settings: ImageSettings) -> int:
    """Frames of an animation that may be kept; 1 for everything else."""
    if image.format not in ("GIF", "WEBP", "PNG", "AVIF") or not getattr(image, "is_animated", False):
        return 1
    frames = min(int(getattr(image, "n_frames", 1)), settings.max_frames)
    return frames if frames * image.width * image.height <= settings.max_animation_pixels else 1


def orientation(image: Image.Image) -> int:
    """What is still to be done for the EXIF orientation, 1 to 8; 1 when there is none or nonsense."""
    if image.format == "TIFF":
        return 1  # Pillow itself sets these upright
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _DECODER_ERRORS:
        return 1  # broken EXIF costs the orientation, not the photo
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def decode(opened: Opened, edge: int) -> Image.Image:
    """The pixels of the first frame: upright, sRGB, mode RGB or RGBA.

    Parameters
    ----------
    edge: the longer edge is wanted with so many pixels at least. A JPEG is decoded at half, a quarter or an eighth of
        its size when that suffices, which takes a fraction of the time.

    Raises
    ------
    ImageRefused: the pixels are damaged or cut off.
    """
    image = opened.image
    with damaged_as_refusal("its pixels"):
        turned = orientation(image)
        if image.format in ("JPEG", "MPO"):
            image.draft(None, _at_least(image.size, edge))
        image.load()
        shown = upright(to_srgb(image, image.info.get("icc_profile")), turned)
    # Pillow writes some of what it finds here (profile, comment, position) into whatever file is made of the pixels.
    shown.info.clear()
    return shown


def _at_least(size: tuple[int, int], edge: int) -> tuple[int, int]:
    longer = max(size)
    if longer <= edge:
        return size
    return max(1, size[0] * edge // longer), max(1, size[1] * edge // longer)


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation → what sets it upright."""


def upright(image: Image.Image, turned: int) -> Image.Image:
    """The image as its EXIF orientation wants it seen."""
    return image.transpose(_TURNS[turned]) if turned in _TURNS else image


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Mode RGB, or RGBA when something shows through, in sRGB.

    A profile that is broken, or for other kinds of pixels, is left aside: the colours are then taken as sRGB.
    """
    image = _eight_bits(image)
    alpha = _alpha_of(image)
    converted = _by_profile(image, profile) if profile else None
    if converted is None:
        converted = _flat(image)
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits, 32 bits or real numbers brought to 8 bits; Pillow by itself would cut it off at 255."""
    if image.mode not in _WIDE_GREY_MODES:
        return image
    wide = image.convert("F")
    low, high = wide.getextrema()
    assert isinstance(low, float) and isinstance(high, float)  # of one band
    scale = 1 / 257
    if not image.mode.startswith("I;16") and high <= 255:  # wide pixels, narrow values
        scale = 255.0 if image.mode == "F" and high <= 1.0 else 1.0
    elif high * scale > 255:
        scale = 255 / high
    return wide.point(lambda value: value * scale + 0.5).convert("L")


def _alpha_of(image: Image.Image) -> Image.Image | None:
    """What shows through, as mode L; None when nothing does."""
    if image.mode not in _ALPHA_MODES and "transparency" not in image.info:
        return None
    alpha = image.convert("RGBA").getchannel("A")
    return None if alpha.getextrema() == (255, 255) else alpha


def _by_profile(image: Image.Image, profile: bytes) -> Image.Image | None:
    """Converted from its ICC profile; None when that is sRGB, broken, or does not fit the pixels."""
    mode = {"P": "RGB", "PA": "RGB", "RGBA": "RGB", "RGBX": "RGB", "LA": "L", "1": "L"}.get(image.mode, image.mode)
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "LAB": "LAB"}.get(space) != mode:
            return None
        if space == "RGB" and "sRGB" in (ImageCms.getProfileDescription(source) or ""):
            return None
        flat = image if image.mode == mode else image.convert(mode)
        converted = ImageCms.profileToProfile(
            flat, source, _SRGB, renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC, outputMode="RGB"
        )
    except (ImageCms.PyCMSError, *_DECODER_ERRORS):
        return None
    return converted


def _flat(image: Image.Image) -> Image.Image:
    """Mode RGB, without regard to what shows through."""
    if image.mode == "RGB":
        return image
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def on_white(image: Image.Image) -> Image.Image:
    """Mode RGB, what shows through on white: for formats that know no transparency."""
    if image.mode == "RGB":
        return image
    ground = Image.new("RGB", image.size, (255, 255, 255))
    ground.paste(image, mask=image.getchannel("A"))
    return ground


def contained(image: Image.Image, edge: int) -> Image.Image:
    """The image with its longer edge at most ``edge``, never enlarged."""
    if max(image.size) <= edge:
        return image
    size = _at_least(image.size, edge)
    # Two steps: a fast one by whole numbers, then a good one from at least twice the wanted size.
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)


def _in_words(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:200] if text else type(error).__name__
