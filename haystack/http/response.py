"""Response heads, built once and reused: status lines, header blocks, JSON errors, the Date of the second."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

SERVER_NAME: Final = "haystack"

STATUS_LINES: Final[dict[int, bytes]] = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\nServer: {SERVER_NAME}\r\n".encode("ascii")
    for status in HTTPStatus
}
"""Status line and Server field for each known status."""

BODILESS_STATUSES: Final = frozenset({204, 304})

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
JSON_TYPE: Final = b"Content-Type: application/json\r\n"

NO_STORE: Final = b"Cache-Control: no-store\r\n"
"""Goes with all that is no photo: a proxy may keep even a 404 for as long as it likes when nothing is said."""

RETRY_SOON: Final = b"Retry-After: 1\r\n"
"""Goes with every 503: what is missing is likely to be back in a moment."""

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def header_block(fields: Iterable[tuple[str, str]]) -> bytes:
    """Header lines for ``respond``, each with its CRLF.

    Raises ValueError for a name or value that would break the message (line ends, control characters, characters
    beyond latin-1), whoever it came from: so no stored file name can ever forge a header.
    """
    lines = []
    for name, value in fields:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"header {name!r}: {value!r} cannot be sent")
        lines.append(f"{name}: {value}\r\n")
    return "".join(lines).encode("latin-1")


def prepared_head(status: int, headers: bytes, content_length_bytes: int | None) -> bytes:
    """The part of a response head that stays the same from answer to answer, for ``respond_prepared``.

    Parameters
    ----------
    headers: lines as from :func:`header_block`, without Date, Server, Connection and Content-Length.
    content_length_bytes: length of the body (of the body that GET would get, for HEAD); None for 304 and 204.
    """
    length = b"" if content_length_bytes is None else b"Content-Length: %d\r\n" % content_length_bytes
    return STATUS_LINES[status] + headers + length


def error_body(message: str) -> bytes:
    """``{"error": message}`` as JSON with a line end."""
    return json.dumps({"error": message}, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


class Tails:
    """The last lines of a response head, which change once a second: Date, and what becomes of the connection.

    Parameters
    ----------
    date: an HTTP-date, see :func:`haystack.http.dates.format_http_date`.
    """

    __slots__ = ("close", "keep", "keep_http_10")

    def __init__(self, date: str) -> None:
        line = f"Date: {date}\r\n".encode("ascii")
        self.keep = line + b"\r\n"
        self.keep_http_10 = line + b"Connection: keep-alive\r\n\r\n"
        self.close = line + b"Connection: close\r\n\r\n"
