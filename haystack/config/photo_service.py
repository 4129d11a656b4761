"""Tables ``[frontend]`` and ``[intake]``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from haystack.config.fields import (
    DEFAULT_FRONTEND_PORT,
    DEFAULT_INTAKE_PORT,
    HOST_SETTING,
    ONE_DAY_SECONDS,
    URL,
    check_fields,
    process_count,
    setting,
)
from haystack.config.kinds import (
    PORT,
    Choice,
    Duration,
    FilePath,
    Integer,
    ListOf,
    Size,
    Text,
    check_public_url,
)
from haystack.errors import ConfigError
from haystack.units import GIB, MIB, TIB


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontendSettings:
    """Table ``[frontend]``: one front end of the photo service."""

    database: str = field(
        repr=False,
        metadata=setting(
            Text("a URL such as sqlite:////srv/photos.db or postgresql://user@host/photos", "URL", most_chars=1000),
            "Database of people and of photos' records.",
        ),
    )
    host: str = field(default="127.0.0.1", metadata=HOST_SETTING)
    port: int = field(default=DEFAULT_FRONTEND_PORT, metadata=setting(PORT, "Port; 0: any free one."))
    public_url: str | None = field(
        default=None,
        metadata=setting(
            URL, "Where browsers reach it, when that is not host and port; https:// makes cookies secure."
        ),
    )
    images_url: str | None = field(
        default=None,
        metadata=setting(
            URL, "A CDN that pictures are read from; by itself it is the Caches, or the Stores when there are none."
        ),
    )
    proxies: int = field(
        default=0,
        metadata=setting(
            Integer(0, 10), "Proxies before it; the client's address is that many from the right in X-Forwarded-For."
        ),
    )
    sign_up: Literal["on", "off"] = field(
        default="on", metadata=setting(Choice(("on", "off")), "Whether anybody may sign up.")
    )
    session_seconds: float = field(
        default=30 * ONE_DAY_SECONDS,
        metadata=setting(Duration(60, 3650 * ONE_DAY_SECONDS), "How long somebody stays logged in."),
    )
    rate_limits: Literal["on", "off"] = field(
        default="on",
        metadata=setting(Choice(("on", "off")), "Whether requests of one address or user are limited in number."),
    )
    max_upload_bytes: int = field(
        default=20 * MIB, metadata=setting(Size(1, 1 * GIB), "Largest photo that may be uploaded.")
    )
    keep_untouched: Literal["on", "off"] = field(
        default="off",
        metadata=setting(Choice(("on", "off")), "Whether uploads are kept as they came, beside what is shown of them."),
    )
    directories: tuple[str, ...] = ()
    secret: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_fields(self, "frontend")


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeOptions:
    """Table ``[intake]``: what takes uploads for the photo service, beside one Store.

    The command maps it onto the intake's own settings class, which ``haystack`` does not import.
    """

    data: Path = field(metadata=setting(FilePath(), "Folder for its outbox and for uploads on their way."))
    store: str = field(metadata=setting(Text("host:port", "HOST:PORT", check_public_url), "The Store beside it."))
    frontends: tuple[str, ...] = field(
        metadata=setting(ListOf(URL), "Front end that is told of photos; repeat it for others, asked in this order.")
    )
    host: str = field(default="127.0.0.1", metadata=HOST_SETTING)
    port: int = field(default=DEFAULT_INTAKE_PORT, metadata=setting(PORT, "Port; 0: any free one."))
    max_upload_bytes: int = field(default=20 * MIB, metadata=setting(Size(1, 1 * GIB), "Largest photo that is taken."))
    max_pixels: int = field(
        default=100_000_000, metadata=setting(Integer(1, 10**9), "Pixels of the largest picture that is decoded.")
    )
    avif: Literal["on", "off"] = field(
        default="off", metadata=setting(Choice(("on", "off")), "Whether renditions are made in AVIF, too.")
    )
    image_processes: int | None = field(
        default=None,
        metadata=setting(Integer(1, 256), "Processes that work on pictures [default: one a processor]."),
    )
    image_seconds: float = field(
        default=8.0, metadata=setting(Duration(0.1, 3600), "Time for one picture; above, it is refused.")
    )
    image_memory_bytes: int = field(
        default=2 * GIB, metadata=setting(Size(256 * MIB, 1 * TIB), "Memory for one picture; above, it is refused.")
    )
    max_uploads: int = field(
        default=500, metadata=setting(Integer(1, 1_000_000), "Uploads that are on their way at the same time.")
    )
    max_uploads_bytes: int = field(
        default=8 * GIB, metadata=setting(Size(1 * MIB, 8 * TIB), "Bytes on disk of all of them together.")
    )

    def __post_init__(self) -> None:
        check_fields(self, "intake")
        if not self.frontends:
            raise ConfigError("intake.frontends: at least one front end is needed")

    @property
    def process_count(self) -> int:
        """Processes for pictures: as set, or one for each processor that this process may use."""
        return process_count(self.image_processes)
