"""How things are named in URLs and requests, and what names and texts may look like."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from frontend.records import MAX_CAPTION, MAX_TAG, MAX_TAGS, MAX_TITLE
from frontend.services.errors import Invalid, NotFound
from frontend.visibility import Visibility

MAX_COMMENT = 2000
MAX_NAME = 80
MAX_BIO = 500
MAX_EMAIL = 254
LEAST_PASSWORD = 8
MAX_PASSWORD = 256
USERNAME_PATTERN = r"^[a-z0-9_]{3,30}$"
PHOTO_ID_PATTERN = r"^[0-9a-f]{1,16}$"
REACTIONS = ("like", "love", "laugh", "wow", "sad")

_USERNAME = re.compile(r"[a-z0-9_]{3,30}")
_PHOTO_ID = re.compile(r"[0-9a-f]{1,16}")
_EMAIL = re.compile(r"[^@\s\x00-\x1f]{1,64}@[^@\s\x00-\x1f]{1,189}\.[^@\s\x00-\x1f.]{1,63}")
_TAG = re.compile(r"\w{1,50}")
_RESERVED = frozenset(("me", "admin", "api", "explore", "search", "upload", "settings", "static", "about"))
_MOST_ID = 2**63 - 1
"""Of databases; the Directory begins far below."""


def photo_id_text(photo_id: int) -> str:
    """A photo's id as the API and URLs of pages have it: as the Directory's ``/photos/<id>``."""
    return f"{photo_id:x}"


def parse_photo_id(text: str) -> int:
    """The id of a photo. Raises NotFound when it is none."""
    if _PHOTO_ID.fullmatch(text) is None or int(text, 16) > _MOST_ID:
        raise NotFound("there is no such photo")
    return int(text, 16)


def clean_username(text: str) -> str:
    """A new user name, in lower case. Raises Invalid."""
    name = text.strip().lower()
    if _USERNAME.fullmatch(name) is None:
        raise Invalid("username", "a user name has 3 to 30 letters a to z, digits and underscores")
    if name in _RESERVED:
        raise Invalid("username", f"the user name {name} is reserved; choose another one")
    return name


def clean_email(text: str | None) -> str | None:
    """An email address, in lower case; None for none. Raises Invalid."""
    if text is None or not text.strip():
        return None
    email = text.strip().lower()
    if len(email) > MAX_EMAIL or _EMAIL.fullmatch(email) is None:
        raise Invalid("email", "this is no email address")
    return email


def check_password(text: str) -> str:
    """A new password. Raises Invalid."""
    if not LEAST_PASSWORD <= len(text) <= MAX_PASSWORD:
        raise Invalid("password", f"a password has {LEAST_PASSWORD} to {MAX_PASSWORD} characters")
    return text


def clean_line(text: str, field: str, most: int) -> str:
    """A text of one line, without what cannot be seen. Raises Invalid."""
    return " ".join(clean_text(text, field, most).split())


def clean_text(text: str, field: str, most: int) -> str:
    """A text that may have several lines; no control characters but these. Raises Invalid."""
    kept = "".join(one for one in text.replace("\r\n", "\n") if one in "\n\t" or unicodedata.category(one)[0] != "C")
    cleaned = unicodedata.normalize("NFC", kept).strip()
    if len(cleaned) > most:
        raise Invalid(field, f"{field} has at most {most:,} characters, this one has {len(cleaned):,}")
    return cleaned


def clean_title(text: str) -> str:
    return clean_line(text, "title", MAX_TITLE)


def clean_caption(text: str) -> str:
    return clean_text(text, "caption", MAX_CAPTION)


def clean_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Tags in lower case and alphabetical order, without ``#`` and repetitions. Raises Invalid."""
    found = set()
    for tag in tags:
        word = unicodedata.normalize("NFC", tag.strip().lstrip("#").lower())
        if not word:
            continue
        if _TAG.fullmatch(word) is None:
            raise Invalid("tags", f"a tag has 1 to {MAX_TAG} letters, digits and underscores; {tag[:60]!r} is none")
        found.add(word)
    if len(found) > MAX_TAGS:
        raise Invalid("tags", f"a photo has at most {MAX_TAGS} tags")
    return tuple(sorted(found))


def split_tags(text: str) -> list[str]:
    """The tags of a form's field: with commas or blanks between them."""
    return [one for one in re.split(r"[,\s]+", text) if one]


def parse_visibility(word: str) -> Visibility:
    """Raises Invalid."""
    try:
        return Visibility.of(word)
    except KeyError:
        words = ", ".join(one.word for one in Visibility)
        raise Invalid("visibility", f"{word[:40]!r} is no visibility; there are {words}") from None
