"""Table ``[cluster]``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from haystack.config.fields import (
    URL,
    setting,
)
from haystack.config.kinds import (
    FilePath,
    ListOf,
    Text,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """Table ``[cluster]``: what all roles and the command share."""

    secret: str | None = field(
        default=None,
        repr=False,
        metadata=setting(Text("a text of at least 32 characters", "SECRET", most_chars=4096), "The cluster's secret."),
    )
    secret_file: Path | None = field(
        default=None, metadata=setting(FilePath(), "File with the cluster's secret; only its owner may read it.")
    )
    directories: tuple[str, ...] = field(default=(), metadata=setting(ListOf(URL), "Addresses of the Directories."))
