"""All that is done to one upload: what is stored of it, and what is known of it afterwards."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image, ImageSequence

from frontend.images import exif
from frontend.images.decoding import (
    Opened,
    contained,
    damaged_as_refusal,
    decode,
    open_image,
    orientation,
    to_srgb,
    upright,
)
from frontend.images.encoding import encode, encode_animation, encode_original
from frontend.images.errors import ImageRefused
from frontend.images.fingerprints import difference_hash, exact_hash
from frontend.images.renditions import ORIGINAL, SIZES, UNTOUCHED, Encoded, Format, alternate_key
from frontend.images.settings import ImageSettings
from frontend.images.stripping import strip_jpeg
from frontend.images.thumbhash import thumbhash

_ANIMATION_EDGES = (1080, 640, 320)
_HOPE = 1.5
"""How much too large an animation may be expected to be, and is tried yet."""
_EDGE_SLACK = 0.7
"""A JPEG that the decoder itself scales down to at least this part of the original's longest edge is kept at that
size: scaling again would cost as much as all renditions together, to no visible gain."""
_DEFAULT_FRAME_MS = 100


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is stored of an upload, and what is known of it.

    Parameters
    ----------
    pictures: the original first, then the renditions, each size in each format.
    width, height: pixels of the upload, upright.
    mime: type of the upload.
    animated: whether the original moves.
    taken: what its EXIF says; not a part of any public file.
    exact: SHA-256 of the upload.
    near: its difference hash.
    placeholder: its thumbhash.
    """

    pictures: tuple[Encoded, ...]
    width: int
    height: int
    mime: str
    animated: bool
    taken: exif.Taken
    exact: bytes
    near: int
    placeholder: bytes


def prepare(data: bytes, settings: ImageSettings) -> Prepared:
    """Check an upload, and make everything that is stored of it.

    Raises
    ------
    ImageRefused: it is no picture that is taken, or damaged.
    ImageTooLarge: too many bytes or pixels.
    """
    opened = open_image(data, settings)
    taken = exif.read_taken(opened.image)
    as_it_is = _fits_as_it_is(opened, data, settings)
    profiled = "icc_profile" in opened.image.info
    edge = settings.original_edge if as_it_is else int(settings.original_edge * _EDGE_SLACK)
    image = contained(decode(opened, edge), settings.original_edge)
    original = None
    if opened.frames > 1:
        original = _animation(data, opened, settings)
    elif as_it_is and not profiled:
        original = _stripped(data, opened)
    animated = original is not None and opened.frames > 1
    pictures = [original or encode_original(image, settings.original_bytes), *_renditions(image, settings)]
    if settings.keep_untouched:
        pictures.append(Encoded(UNTOUCHED, opened.mime, opened.width, opened.height, data))
    return Prepared(
        tuple(pictures),
        opened.width,
        opened.height,
        opened.mime,
        animated,
        taken,
        exact_hash(data),
        difference_hash(image),
        thumbhash(image),
    )


def _stripped(data: bytes, opened: Opened) -> Encoded | None:
    """The file without its metadata; None for one that not every browser shows, though its pixels were decoded."""
    try:
        return Encoded(ORIGINAL, "image/jpeg", opened.width, opened.height, strip_jpeg(data))
    except ImageRefused:
        return None


def _fits_as_it_is(opened: Opened, data: bytes, settings: ImageSettings) -> bool:
    """Whether the file needs nothing but its metadata taken out: an upright JPEG in RGB or grey, not too large."""
    image = opened.image
    return (
        image.format in ("JPEG", "MPO")
        and image.mode in ("RGB", "L")
        and len(data) <= settings.original_bytes
        and max(opened.width, opened.height) <= settings.original_edge
        and orientation(image) == 1
    )


def _renditions(image: Image.Image, settings: ImageSettings) -> list[Encoded]:
    """Every size in every format, each size made from the next larger one."""
    formats = [Format.JPEG, Format.WEBP, *([Format.AVIF] if settings.avif else [])]
    made: list[Encoded] = []
    for size in sorted(SIZES, key=lambda size: size.edge, reverse=True):
        image = contained(image, size.edge)
        made += [encode(image, alternate_key(size.name, format_), format_) for format_ in formats]
    return sorted(made, key=lambda picture: picture.alternate)


def _animation(data: bytes, opened: Opened, settings: ImageSettings) -> Encoded | None:
    """The animation as WebP, in the largest size that fits; None when none does: then the first frame is the photo."""
    frames, durations_ms, loop = _frames(data, opened, settings, _ANIMATION_EDGES[0])
    most, likely_bytes = settings.original_bytes, 0.0
    for edge in _ANIMATION_EDGES:
        before = max(frames[0].size)
        if edge != _ANIMATION_EDGES[0] and edge >= before:
            continue  # the same as the size before
        if likely_bytes * (edge / before) ** 2 > _HOPE * most and edge != _ANIMATION_EDGES[-1]:
            continue  # bytes go with the area: this size would be made in vain
        frames = [contained(frame, edge) for frame in frames]
        found = encode_animation(frames, durations_ms, loop, ORIGINAL)
        if len(found.data) <= most:
            return found
        likely_bytes = len(found.data)
    return None


def _frames(
    data: bytes, opened: Opened, settings: ImageSettings, edge: int
) -> tuple[list[Image.Image], list[int], int]:
    again = open_image(data, settings).image
    loop = again.info.get("loop", 1)
    turned = orientation(again)
    frames: list[Image.Image] = []
    durations_ms: list[int] = []
    with damaged_as_refusal("one of its frames"):
        for frame in ImageSequence.Iterator(again):
            shown = upright(to_srgb(frame.convert("RGBA"), frame.info.get("icc_profile")), turned)
            frames.append(contained(shown, edge).convert("RGBA"))
            durations_ms.append(max(10, round(frame.info.get("duration", 0) or _DEFAULT_FRAME_MS)))
            if len(frames) >= opened.frames:
                break
    return frames, durations_ms, loop if isinstance(loop, int) and 0 <= loop <= 65_535 else 0
