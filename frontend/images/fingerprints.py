"""Fingerprints: the same file, and much the same picture."""

from __future__ import annotations

import hashlib

from PIL import Image

_ACROSS, _DOWN = 9, 8

NEAR_BITS = 6
"""Pictures whose difference hashes differ in at most so many of the 64 bits look alike."""


def exact_hash(data: bytes) -> bytes:
    """SHA-256 of the upload."""
    return hashlib.sha256(data).digest()


def difference_hash(image: Image.Image) -> int:
    """64 bits that change little when a picture is scaled, recompressed or made a little lighter.

    Each bit says whether a pixel of the picture, made 9 by 8 pixels of grey, is lighter than its right neighbour
    (Neal Krawetz, "Kind of Like That", 2013).
    """
    grey = image.convert("L").resize((_ACROSS, _DOWN), Image.Resampling.BOX, reducing_gap=4.0).tobytes()
    bits = 0
    for row in range(_DOWN):
        for column in range(_ACROSS - 1):
            at = row * _ACROSS + column
            bits = bits << 1 | (grey[at] > grey[at + 1])
    return bits


def bits_apart(one: int, other: int) -> int:
    """In how many bits two difference hashes differ."""
    return (one ^ other).bit_count()
