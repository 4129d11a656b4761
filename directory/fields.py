"""JSON that came in a call, read field by field; every complaint names the field.

Unknown fields are left aside, so that a newer Store can talk to an older Directory.
"""

from __future__ import annotations

import json
import re
from typing import Any
from uuid import UUID

from haystack.errors import InvalidRequest

MAX_TEXT_CHARS = 4096
MAX_NUMBER = 2**63 - 1
MAX_U32 = 2**32 - 1
MAX_U64 = 2**64 - 1

_ADDRESS = re.compile(r"[A-Za-z0-9._\-\[\]:]{1,255}:[0-9]{1,5}")
_PUBLIC_ADDRESS = re.compile(r"(?:https?://)?[A-Za-z0-9._\-\[\]:]{1,255}(?:/[A-Za-z0-9._~\-/]{0,255})?")
HEX64 = re.compile(r"[0-9a-fA-F]{1,16}")


class Fields:
    """A JSON object, read field by field; every complaint names the field."""

    def __init__(self, document: Any, where: str) -> None:
        if not isinstance(document, dict):
            raise InvalidRequest(f"{where}: expected a JSON object, got {type(document).__name__}")
        self._document = document
        self._where = where

    def number(self, name: str, most: int = MAX_NUMBER, default: int | None = None) -> int:
        """Return a whole number, 0 … ``most``."""
        value = self._document.get(name, default)
        if type(value) is not int or not 0 <= value <= most:
            raise self.wrong(name, f"a whole number from 0 to {most}", value)
        return value

    def text(self, name: str, default: str | None = None) -> str:
        """Return a text; null counts as not given."""
        value = self._document.get(name)
        if value is None:
            value = default
        if not isinstance(value, str) or len(value) > MAX_TEXT_CHARS:
            raise self.wrong(name, f"a text of at most {MAX_TEXT_CHARS} characters", value)
        return value

    def one_of(self, name: str, allowed: tuple[str, ...]) -> str:
        """Return a text that is one of those allowed."""
        value = self.text(name)
        if value not in allowed:
            raise self.wrong(name, "one of " + ", ".join(allowed), value)
        return value

    def matching(self, name: str, pattern: re.Pattern[str], example: str, default: str | None = None) -> str:
        """Return a text that the pattern matches as a whole."""
        value = self.text(name, default)
        if not pattern.fullmatch(value):
            raise self.wrong(name, example, value)
        return value

    def address(self, name: str) -> str:
        """Return the address of a server, host:port."""
        return self.matching(name, _ADDRESS, "host:port")

    def public_address(self, name: str, default: str | None = None) -> str:
        """Return an address for clients: host:port or an http address."""
        return self.matching(name, _PUBLIC_ADDRESS, "host:port or an http address", default)

    def uuid(self, name: str) -> str:
        """Return a UUID in its usual form with hyphens, lower-case."""
        value = self.text(name)
        try:
            return str(UUID(value))
        except ValueError:
            raise self.wrong(name, "a UUID", value) from None

    def uuids(self, name: str, most: int) -> tuple[str, ...]:
        """Return a list of UUIDs; one that is not there is empty."""
        found = []
        for value in self.items(name, most):
            try:
                found.append(str(UUID(value)))
            except (ValueError, TypeError, AttributeError):
                raise self.wrong(name, "a list of UUIDs", value) from None
        return tuple(found)

    def flag(self, name: str, default: bool = False) -> bool:
        """Return true or false; null counts as not given."""
        value = self._document.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false", value)
        return value

    def hex64(self, name: str, default: str) -> int:
        """Return the 64-bit number that a hex text means."""
        value = self.text(name, default)
        if not HEX64.fullmatch(value):
            raise self.wrong(name, "up to 16 hex digits", value)
        return int(value, 16)

    def items(self, name: str, most: int) -> list[Any]:
        """Return a list; one that is not there is empty."""
        value = self._document.get(name)
        value = [] if value is None else value
        if not isinstance(value, list) or len(value) > most:
            raise self.wrong(name, f"a list of at most {most} items", value)
        return value

    def value(self, name: str, default: Any) -> Any:
        """Return a field as it is."""
        return self._document.get(name, default)

    def has(self, name: str) -> bool:
        """Say whether the field is there and not null."""
        return self._document.get(name) is not None

    def wrong(self, name: str, expected: str, value: Any) -> InvalidRequest:
        """Return the error to raise for a field."""
        return InvalidRequest(f"{self._where}: field {name!r} must be {expected}, got {str(value)[:100]!r}")


def parse_json(body: bytes, where: str) -> Any:
    """Return the JSON value of a body. Raises InvalidRequest."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{where}: the body is not JSON: {error}") from None
