"""Images are told by their first bytes."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from tools.images import HEAD_BYTES, image_type, upload_type


def drawn(kind: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, kind)
    return out.getvalue()[:HEAD_BYTES]


@pytest.mark.parametrize(
    ("kind", "mime"),
    [
        ("JPEG", "image/jpeg"),
        ("PNG", "image/png"),
        ("GIF", "image/gif"),
        ("WEBP", "image/webp"),
        ("TIFF", "image/tiff"),
        ("BMP", "image/bmp"),
    ],
)
def test_what_pillow_writes(kind: str, mime: str) -> None:
    assert image_type(drawn(kind)) == mime


def ftyp(major: bytes, *compatible: bytes) -> bytes:
    body = b"ftyp" + major + b"\0\0\0\0" + b"".join(compatible)
    return (len(body) + 4).to_bytes(4, "big") + body + b"\0\0\0\x08mdat"


@pytest.mark.parametrize(
    ("head", "mime"),
    [
        (ftyp(b"heic", b"mif1", b"heic"), "image/heic"),
        (ftyp(b"mif1", b"mif1", b"heic"), "image/heic"),
        (ftyp(b"mif1", b"miaf", b"avif"), "image/avif"),
        (ftyp(b"mif1"), "image/heif"),
        (ftyp(b"avif", b"mif1"), "image/avif"),
        (ftyp(b"crx "), "image/x-canon-cr3"),
        (b"\xff\x0a\x00", "image/jxl"),
        (ftyp(b"isom", b"mp42"), None),
        (ftyp(b"qt  "), None),
        (b"BMW is a car, and this is a text", None),
        (b"II*", None),
        (b"RIFF\0\0\0\0WAVE", None),
        (b"%PDF-1.7", None),
        (b"", None),
    ],
)
def test_magic(head: bytes, mime: str | None) -> None:
    assert image_type(head) == mime


def test_types_of_what_is_no_image() -> None:
    assert upload_type(drawn("PNG"), "wrong.jpg") == "image/png"
    assert upload_type(b"hello", "a.txt") == "text/plain"
    assert upload_type(b"hello", "a.unheard-of") == "application/octet-stream"
