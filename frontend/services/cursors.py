"""Cursors: where the next page of a list begins, as a text that nobody can change or take to another list."""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct

from frontend.database.paging import Position
from frontend.services.errors import Invalid

_PURPOSE = b"haystack cursor key 1"
_POSITION = struct.Struct(">qq")
_MAC_BYTES = 12


class Cursors:
    """Writes and reads cursors.

    Parameters
    ----------
    secret: of the cluster.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, _PURPOSE, hashlib.sha256)

    def write(self, scope: str, position: Position | None) -> str | None:
        """The cursor behind a page, None behind the last one.

        Parameters
        ----------
        scope: names the list with all that selects what is in it.
        """
        if position is None:
            return None
        body = _POSITION.pack(position.number, position.id)
        return _in_text(body + self._mac(scope, body))

    def read(self, scope: str, text: str | None) -> Position | None:
        """Where a page begins. Raises Invalid when this is no cursor of this list."""
        if not text:
            return None
        try:
            raw = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        except ValueError:
            raw = b""
        body, mac = raw[: _POSITION.size], raw[_POSITION.size :]
        # Two texts may be the same bytes: decoders take + for -, and pass over what ends in the middle of a byte.
        whole = len(raw) == _POSITION.size + _MAC_BYTES and _in_text(raw) == text
        if not whole or not hmac.compare_digest(self._mac(scope, body), mac):
            raise Invalid("cursor", "this is no cursor of this list; begin without one")
        return Position(*_POSITION.unpack(body))

    def _mac(self, scope: str, body: bytes) -> bytes:
        return hmac.digest(self._key, scope.encode() + b"\n" + body, hashlib.sha256)[:_MAC_BYTES]


def _in_text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
