"""What kind of file an upload is: as the client says, else by its name, else by its first bytes."""

from __future__ import annotations

import mimetypes

_UNTOLD = ("", "application/octet-stream", "application/x-www-form-urlencoded", "multipart/form-data")
"""What clients send when they do not know, or do not mean the photo."""

_SIGNATURES = (
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (0, b"II*\0", "image/tiff"),
    (0, b"MM\0*", "image/tiff"),
    (4, b"ftypavif", "image/avif"),
    (4, b"ftypheic", "image/heic"),
    (4, b"ftypheix", "image/heic"),
    (4, b"ftypmif1", "image/heif"),
    (0, b"BM", "image/bmp"),
)

_PHOTO_NAMES = {".heic": "image/heic", ".heif": "image/heif", ".avif": "image/avif", ".webp": "image/webp"}
"""Endings that older tables of types lack."""

_TYPES = mimetypes.MimeTypes()
"""Python's own table, without the machine's files: the same answer on every Store."""


def photo_type(declared: str, name: str, head: bytes) -> str:
    """MIME type to store, empty when nothing tells.

    Parameters
    ----------
    declared: Content-Type of the upload or of its form part.
    name: file name of the upload.
    head: first bytes of the file.
    """
    if declared.partition(";")[0].strip().lower() not in _UNTOLD:
        return declared.strip()
    dot = name.rfind(".")
    ending = name[dot:].lower() if dot >= 0 else ""
    guessed = _PHOTO_NAMES.get(ending) or _TYPES.guess_type(f"photo{ending}")[0]
    if guessed:
        return guessed
    for offset, signature, kind in _SIGNATURES:
        if head.startswith(signature, offset):
            return kind
    return ""
