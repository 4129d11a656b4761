"""Titles of photos out of the names of their files."""

from __future__ import annotations

import re

MAX_TITLE = 200
_CAMERAS_OWN = re.compile(
    r"(img|dsc|dscn|dscf|pxl|mvimg|image|photo|p|_?mg)?[\s-]*\d[\d\s-]*(~\d+)?", re.IGNORECASE | re.ASCII
)
"""What cameras call their files is no title. The page for uploads has the same rule, in upload.js."""


def title_of(path: str) -> str:
    """``holiday/on_the_beach.jpg`` → ``on the beach``; "" for a name that a camera gave, such as ``IMG_1234.jpg``."""
    name = path.rpartition("/")[2]
    stem = name.rpartition(".")[0] or name
    words = " ".join(stem.replace("_", " ").split())
    return "" if _CAMERAS_OWN.fullmatch(words) else words[:MAX_TITLE]
