"""Settings of an intake."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from frontend.images.settings import MIB, ImageSettings


@dataclass(frozen=True, slots=True)
class IntakeSettings:
    """Of one intake, beside one Store.

    Parameters
    ----------
    data: folder for its outbox and for uploads on their way.
    host, port: where it listens; port 0 is any free one.
    store: ``host:port`` of the Store beside it.
    frontends: URLs of the front ends; the first that answers is told of a photo.
    secret: of the cluster.
    images: what is taken and made.
    image_processes: how many work on pictures at the same time.
    max_waiting_images: pictures that may wait for them; more are told to come later.
    image_seconds, image_memory_bytes: for one picture; above, it is refused.
    max_uploads, max_uploads_bytes: that are on their way at the same time, and what they will have together.
    store_timeout_seconds: for one multi-write.
    """

    data: Path
    host: str
    port: int
    store: str
    frontends: tuple[str, ...]
    secret: bytes = field(repr=False)
    images: ImageSettings = field(default_factory=ImageSettings)
    image_processes: int = 2
    max_waiting_images: int = 32
    image_seconds: float = 8.0
    image_memory_bytes: int = 2048 * MIB
    max_uploads: int = 500
    max_uploads_bytes: int = 8192 * MIB
    store_timeout_seconds: float = 30.0
