"""What is taken and what is made of it."""

from __future__ import annotations

from dataclasses import dataclass

from haystack.errors import ConfigError

MIB = 2**20


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """Limits and choices for the work on pictures.

    Parameters
    ----------
    max_bytes: of an upload.
    max_pixels: of a picture, told by its header before anything is decoded.
    max_frames: of an animation; later frames are left out.
    max_animation_pixels: of all frames together; an animation above it keeps its first frame.
    original_bytes: most bytes of what is kept as the original.
    original_edge: most pixels of its longer edge.
    avif: whether renditions are made in AVIF, too.
    keep_untouched: whether the upload is kept as it came, beside the original.
    """

    max_bytes: int = 20 * MIB
    max_pixels: int = 100_000_000
    max_frames: int = 300
    max_animation_pixels: int = 40_000_000
    original_bytes: int = 1_000_000
    original_edge: int = 2560
    avif: bool = False
    keep_untouched: bool = False

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_frames", "max_animation_pixels", "original_bytes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1")
        if self.original_edge < 1080:
            raise ConfigError("original_edge must be at least 1080, the largest rendition")
