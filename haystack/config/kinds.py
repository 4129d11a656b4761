"""The kinds of settings: how each is read from TOML, environment or a flag, and what it allows.

A kind turns a raw value (any TOML type, or the text of a variable or flag) into the setting's Python value. It raises
ValueError with what is wrong; ``allowed`` says what would be right. :mod:`haystack.config.sources` adds the rest.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from haystack.units import DURATION_SYNTAX, SIZE_SYNTAX, exact_size, parse_duration, parse_size

MAX_COPIES = 10
"""Copies of one photo: every upload waits for all of them."""

_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_SERVICE = re.compile(r"[a-z][a-z0-9_-]{0,29}")
_INTEGER = re.compile(r"[0-9]{1,20}")
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?|\.[0-9]{1,9}")


class Kind(Protocol):
    """What one setting accepts."""

    @property
    def allowed(self) -> str:
        """What is accepted, in words, to stand behind "expected"."""

    @property
    def placeholder(self) -> str:
        """What stands for the value in a command's help."""

    def parse(self, raw: object, base: Path) -> Any:
        """Return the setting's value; ``base`` is what a relative path is relative to. Raises ValueError."""

    def check(self, value: Any) -> None:
        """Raise ValueError when the value (already of the right type) is not allowed."""


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number within inclusive bounds."""

    least: int
    most: int
    placeholder: str = "N"

    @property
    def allowed(self) -> str:
        return f"a whole number from {self.least} to {self.most}"

    def parse(self, raw: object, base: Path) -> int:
        if isinstance(raw, str) and _INTEGER.fullmatch(raw.strip()):
            raw = int(raw)
        number = _whole_number(raw, "not a whole number")
        self.check(number)
        return number

    def check(self, value: Any) -> None:
        _check_range(value, self.least, self.most)


@dataclass(frozen=True, slots=True)
class Size:
    """A number of bytes within inclusive bounds."""

    least_bytes: int
    most_bytes: int
    placeholder: str = "SIZE"

    @property
    def allowed(self) -> str:
        least, most = exact_size(self.least_bytes), exact_size(self.most_bytes)
        return f"a size from {least} to {most}: {SIZE_SYNTAX}"

    def parse(self, raw: object, base: Path) -> int:
        if isinstance(raw, str):
            raw = parse_size(raw)
        size_bytes = _whole_number(raw, "not a size")
        self.check(size_bytes)
        return size_bytes

    def check(self, value: Any) -> None:
        _check_range(value, self.least_bytes, self.most_bytes)


@dataclass(frozen=True, slots=True)
class Duration:
    """Seconds within inclusive bounds."""

    least_seconds: float
    most_seconds: float
    placeholder: str = "DURATION"

    @property
    def allowed(self) -> str:
        return f"a duration from {self.least_seconds:g}s to {self.most_seconds:g}s: {DURATION_SYNTAX}"

    def parse(self, raw: object, base: Path) -> float:
        if isinstance(raw, str):
            raw = parse_duration(raw)
        seconds = _real_number(raw, "not a duration")
        self.check(seconds)
        return float(seconds)

    def check(self, value: Any) -> None:
        _check_range(value, self.least_seconds, self.most_seconds)


@dataclass(frozen=True, slots=True)
class Number:
    """A number within inclusive bounds."""

    least: float
    most: float
    placeholder: str = "NUMBER"

    @property
    def allowed(self) -> str:
        return f"a number from {self.least:g} to {self.most:g}"

    def parse(self, raw: object, base: Path) -> float:
        if isinstance(raw, str) and _NUMBER.fullmatch(raw.strip()):
            raw = float(raw)
        number = _real_number(raw, "not a number such as 0.3")
        self.check(number)
        return float(number)

    def check(self, value: Any) -> None:
        _check_range(value, self.least, self.most)


@dataclass(frozen=True, slots=True)
class Share(Number):
    """A part of a whole: 0 to 1."""

    least: float = 0.0
    most: float = 1.0
    placeholder: str = "SHARE"


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def allowed(self) -> str:
        return " or ".join(self.words)

    @property
    def placeholder(self) -> str:
        return "|".join(self.words)

    def parse(self, raw: object, base: Path) -> str:
        if not isinstance(raw, str):
            raise ValueError("not a text")
        self.check(raw)
        return raw

    def check(self, value: Any) -> None:
        if value not in self.words:
            raise ValueError("no such choice")


@dataclass(frozen=True, slots=True)
class Text:
    """A short printable text, optionally checked further."""

    allowed: str
    placeholder: str = "TEXT"
    checker: Callable[[str], None] | None = None
    most_chars: int = 255

    def parse(self, raw: object, base: Path) -> str:
        if not isinstance(raw, str):
            raise ValueError("not a text")
        self.check(raw)
        return raw

    def check(self, value: Any) -> None:
        if not value or len(value) > self.most_chars or not value.isprintable() or value != value.strip():
            raise ValueError(f"empty, longer than {self.most_chars} characters, or with blanks around it")
        if self.checker is not None:
            self.checker(value)


@dataclass(frozen=True, slots=True)
class FilePath:
    """A path; ``~`` is expanded, a relative one counts from the configuration file's folder or the working folder."""

    placeholder: str = "PATH"
    allowed: str = "a path"

    def parse(self, raw: object, base: Path) -> Path:
        if isinstance(raw, Path):
            raw = str(raw)
        if not isinstance(raw, str) or not raw or "\0" in raw:
            raise ValueError("not a path")
        try:
            return base / Path(raw).expanduser()
        except RuntimeError as error:
            raise ValueError(str(error)) from error

    def check(self, value: Any) -> None:
        if not isinstance(value, Path):
            raise ValueError("not a path")


@dataclass(frozen=True, slots=True)
class ListOf:
    """Several values of one kind: a TOML list, or a text with commas between them."""

    item: Kind
    most_items: int = 64

    @property
    def allowed(self) -> str:
        return f"{self.item.allowed}, or a list of up to {self.most_items} of them"

    @property
    def placeholder(self) -> str:
        return self.item.placeholder

    def parse(self, raw: object, base: Path) -> tuple[Any, ...]:
        if isinstance(raw, str):
            raw = raw.split(",")
        elif isinstance(raw, Path):
            raw = [raw]
        if not isinstance(raw, list | tuple):
            raise ValueError("not a list")
        values = tuple(self.item.parse(one.strip() if isinstance(one, str) else one, base) for one in raw)
        self.check(values)
        return values

    def check(self, value: Any) -> None:
        if len(value) > self.most_items:
            raise ValueError(f"{len(value)} are too many")
        if len(set(value)) != len(value):
            raise ValueError("one is named twice")
        for one in value:
            self.item.check(one)


def check_host(text: str) -> None:
    """Raise ValueError unless the text is a host name or an IP address (IPv6 without brackets)."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        if not all(_LABEL.fullmatch(label) for label in text.removesuffix(".").split(".")):
            raise ValueError("not a host name or address") from None


def check_url(text: str) -> None:
    """Raise ValueError unless the text is ``http://host[:port]`` or ``https://…``, without a path."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not an address that begins with http:// or https://")
    check_host(parts.hostname)
    if parts.port == 0:
        raise ValueError("port 0 is no address")
    if "@" in parts.netloc or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("has more than host and port")


def check_public_url(text: str) -> None:
    """Raise ValueError unless the text is ``host:port`` or an address with http:// or https://."""
    check_url(text if "://" in text else f"http://{text}")


def check_service(text: str) -> None:
    """Raise ValueError unless the text is ``name=host:port``, or ``name=`` and an address with http:// or https://."""
    name, equals, address = text.partition("=")
    if not equals or _SERVICE.fullmatch(name) is None:
        raise ValueError("has no name of lower-case letters and digits with = behind it")
    check_public_url(address)


def check_replication(text: str) -> None:
    """Raise ValueError unless the text is three digits that promise a sensible number of copies."""
    if not (text.isascii() and text.isdigit() and len(text) == 3):
        raise ValueError("not three digits")
    copies = 1 + sum(map(int, text))
    if copies > MAX_COPIES:
        raise ValueError(f"{copies} copies are too many")


PORT = Integer(0, 65535, "PORT")
"""A TCP port; 0 lets the system choose a free one."""

REPLICATION = Text(
    "three digits such as 011: copies in other data centers, in other racks, on other machines of the rack; "
    f"at most {MAX_COPIES} copies with the first",
    "XYZ",
    check_replication,
)
"""How many copies of a photo there are, and where."""


def _whole_number(raw: object, wrong: str) -> int:
    # bool is an int to Python, but `port = true` is a mistake.
    if not isinstance(raw, int) or isinstance(raw, bool):
        raise ValueError(wrong)
    return raw


def _real_number(raw: object, wrong: str) -> float:
    return raw if isinstance(raw, float) else _whole_number(raw, wrong)


def _check_range(value: Any, least: float, most: float) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("not a finite number")
    if value < least:
        raise ValueError("too small")
    if value > most:
        raise ValueError("too large")
