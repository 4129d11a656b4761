"""What kind of image a file is, from its first bytes. Names are not believed, and nothing is decoded."""

from __future__ import annotations

import mimetypes

HEAD_BYTES = 64
"""Bytes from the start of a file that :func:`image_type` looks at."""

DEFAULT_TYPE = "application/octet-stream"

_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (0, b"II*\0", "image/tiff"),
    (0, b"MM\0*", "image/tiff"),
    (0, b"II+\0", "image/tiff"),
    (0, b"MM\0+", "image/tiff"),
    (0, b"\xff\x0a", "image/jxl"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "image/jxl"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "image/jp2"),
    (0, b"\xff\x4f\xff\x51", "image/j2c"),
    (0, b"8BPS\0", "image/vnd.adobe.photoshop"),
    (0, b"FUJIFILMCCD-RAW ", "image/x-fuji-raf"),
    (0, b"IIRO", "image/x-olympus-orf"),
    (0, b"IIRS", "image/x-olympus-orf"),
    (0, b"MMOR", "image/x-olympus-orf"),
    (0, b"IIU\0", "image/x-panasonic-rw2"),
    (0, b"FOVb", "image/x-sigma-x3f"),
)

_BRANDS: dict[bytes, str] = {
    b"avif": "image/avif",
    b"avis": "image/avif",
    b"heic": "image/heic",
    b"heix": "image/heic",
    b"heim": "image/heic",
    b"heis": "image/heic",
    b"hevc": "image/heic-sequence",
    b"hevx": "image/heic-sequence",
    b"crx ": "image/x-canon-cr3",
    b"mif1": "image/heif",
    b"msf1": "image/heif-sequence",
}
"""Brands of ISO media files (ISO/IEC 14496-12) that are images; films have others. The special before the general."""

_BMP_HEADER_SIZES = frozenset({12, 40, 52, 56, 64, 108, 124})


def image_type(head: bytes) -> str | None:
    """Return the MIME type of the image that begins with ``head``, or None when it is none that is known."""
    for offset, signature, mime in _SIGNATURES:
        if head.startswith(signature, offset):
            return mime
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "image/webp"
    if head[4:8] == b"ftyp":
        return _media_type(head)
    # Two letters alone would take many texts for images.
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES:
        return "image/bmp"
    return None


def upload_type(head: bytes, name: str) -> str:
    """Return the MIME type to store a file with: by its content if it is an image, else by its name."""
    return image_type(head) or mimetypes.guess_type(name)[0] or DEFAULT_TYPE


def _media_type(head: bytes) -> str | None:
    box_bytes = min(int.from_bytes(head[:4], "big"), HEAD_BYTES)
    major = head[8:12]
    compatible = {head[start : start + 4] for start in range(16, box_bytes - 3, 4)}
    # A general major brand ("mif1") tells less than a special compatible one ("heic", "avif").
    if major in _BRANDS:
        if major in (b"mif1", b"msf1"):
            return next((mime for brand, mime in _BRANDS.items() if brand in compatible), _BRANDS[major])
        return _BRANDS[major]
    return None
