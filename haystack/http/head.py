"""Strict parsing of a request head: the request line and the header section.

The connection collects bytes up to the first empty line (:func:`find_head_end`) and hands over exactly that
(:meth:`HeadParser.parse`). httptools (llhttp) does the parsing; on top of it stand our own checks on the raw bytes for
what llhttp takes and a proxy in front of us may read differently: several spaces in the request line, HTTP/0.9 and
RTSP, bare CR, Host fields, codings before ``chunked``. Whatever is refused here is answered with a 4xx or 5xx and the
connection is closed; nothing after it is read as a request.

Framing is decided from the result alone (``content_length``, ``chunked``), by us: llhttp never sees a byte of a body.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from haystack.errors import ProtocolError
from haystack.http.limits import HttpLimits
from haystack.http.request import Request, RequestHeaders

METHODS: Final = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")}
"""Methods that reach a handler. CONNECT, TRACE and the rest are 501."""

MAX_BLANK_LINES: Final = 4
"""Empty lines tolerated before a request line (RFC 9112, 2.2 asks for at least one)."""

MAX_CONTENT_LENGTH_DIGITS: Final = 18

_AT_MOST_ONCE: Final = frozenset({"host", "content-length"})
_CRLF: Final = b"\r\n"
_REST_OF_REQUEST_LINE_BYTES: Final = 34
"""Room for method, version, spaces and line end around the longest target."""

_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")
_VISIBLE: Final = bytes(range(0x21, 0x7F))
_NOT_CONTROL: Final = b"\t\r\n" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))
_ABSOLUTE_TARGET = re.compile(rb"https?://([^/?#]+)(/[^?#]*)?(\?[^#]*)?", re.IGNORECASE)
_HOST = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+;=%,-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_BAD_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def find_head_end(buffer: bytearray, scanned_bytes: int, limits: HttpLimits) -> int:
    """Length of the head at the front of ``buffer`` with its empty line, or -1 when it has not arrived wholly.

    Parameters
    ----------
    scanned_bytes: how much of the buffer an earlier call has seen, so that a slow sender costs no repeated scans.

    Raises :class:`ProtocolError` as soon as the bytes cannot become a head within the limits. The verdict depends on
    the bytes alone, never on how they were split on the way.
    """
    if not 0x21 <= buffer[0] <= 0x7E:
        raise ProtocolError("malformed request: it must begin with a method; is this TLS on a plain port?")
    start = max(0, scanned_bytes - 3)
    end = buffer.find(b"\r\n\r\n", start, limits.max_header_bytes)
    stop = end + 4 if end >= 0 else min(len(buffer), limits.max_header_bytes)
    longest_line = limits.max_target_bytes + _REST_OF_REQUEST_LINE_BYTES
    _refuse_bare_line_feed(buffer, start, min(stop, longest_line))
    if stop >= longest_line and buffer.find(_CRLF, 0, longest_line) < 0:
        raise ProtocolError(f"request target longer than {limits.max_target_bytes} bytes", 414, "too_large")
    _refuse_bare_line_feed(buffer, max(start, longest_line - 1), stop)
    if end < 0 and len(buffer) >= limits.max_header_bytes:
        raise ProtocolError(f"request header section longer than {limits.max_header_bytes} bytes", 431, "too_large")
    return end + 4 if end >= 0 else -1


def _refuse_bare_line_feed(buffer: bytearray, start: int, stop: int) -> None:
    if buffer.count(b"\n", start, stop) != buffer.count(_CRLF, max(0, start - 1), stop):
        raise ProtocolError("malformed request: lines must end with CRLF, not LF alone")


class HeadParser:
    """Parser of whole heads. One serves all connections of an event loop: it keeps nothing between calls."""

    def __init__(self, limits: HttpLimits) -> None:
        self._limits = limits
        self._pairs: list[tuple[bytes, bytes]] = []
        self._url = b""
        self._head_complete = False
        self._reusable = False
        self._parser = HttpRequestParser(self)

    # Callbacks of httptools.

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._pairs.append((name, value))

    def on_headers_complete(self) -> None:
        self._head_complete = True

    def on_message_complete(self) -> None:
        # A parser that was told to close, to switch protocols or to expect a body takes no further head.
        self._reusable = self._parser.should_keep_alive() and not self._parser.should_upgrade()

    def parse(self, head: bytes) -> Request:
        """Parse one head, given from the first byte of the request line to the empty line inclusive.

        Raises :class:`ProtocolError` with the status to answer.
        """
        line, _, _ = head.partition(_CRLF)
        method, target, is_http_11 = self._parse_request_line(line)
        if _has_forbidden_bytes(head):
            raise ProtocolError("malformed request: control characters, bare CR or LF, or a folded header line")
        pairs = self._parse_with_llhttp(head, target)
        if len(pairs) > self._limits.max_header_count:
            raise ProtocolError(f"more than {self._limits.max_header_count} header lines", 431, "too_large")
        headers = _collect_headers(pairs, is_http_11=is_http_11)
        path, query, origin_form = _split_target(method, target)
        return Request(method, line, target, path, query, headers, is_http_11=is_http_11, origin_form=origin_form)

    def _parse_request_line(self, line: bytes) -> tuple[str, bytes, bool]:
        parts = line.split(b" ")
        if len(parts) != 3 or not parts[1] or parts[1].translate(None, _VISIBLE):
            raise ProtocolError("malformed request line: expected 'METHOD target HTTP/1.1'")
        raw_method, target, version = parts
        method = METHODS.get(raw_method)
        if method is None and _METHOD.fullmatch(raw_method) is None:
            raise ProtocolError("malformed request line: it must begin with a method")
        if version not in (b"HTTP/1.1", b"HTTP/1.0"):
            if _VERSION.fullmatch(version) is None:
                raise ProtocolError("malformed request line: it must end with HTTP/1.1")
            raise ProtocolError("only HTTP/1.1 and HTTP/1.0 are spoken here", 505, "unsupported")
        if len(target) > self._limits.max_target_bytes:
            raise ProtocolError(f"request target longer than {self._limits.max_target_bytes} bytes", 414, "too_large")
        if method is None:
            name = raw_method[:32].decode("ascii")
            raise ProtocolError(f"method {name} is not implemented", 501, "unsupported")
        return method, target, version == b"HTTP/1.1"

    def _parse_with_llhttp(self, head: bytes, target: bytes) -> list[tuple[bytes, bytes]]:
        self._pairs = []
        self._url = b""
        self._head_complete = self._reusable = False
        failed = True
        try:
            self._parser.feed_data(head)
            failed = False
        except HttpParserUpgrade:
            failed = True  # An offer that we do not take up: the request is answered as plain HTTP/1.1.
        except HttpParserError as error:
            raise ProtocolError(f"malformed request: {error}") from error
        finally:
            if failed or not self._reusable:
                self._parser = HttpRequestParser(self)
        if not self._head_complete or self._url != target:
            raise ProtocolError("malformed request: the request line and the header section do not agree")
        return self._pairs


def _has_forbidden_bytes(head: bytes) -> bool:
    """Control characters, CR or LF alone, or a line that begins with a blank. (Counting is faster than a pattern.)"""
    line_ends = head.count(_CRLF)
    return (
        head.count(b"\r") != line_ends
        or head.count(b"\n") != line_ends
        or b"\n " in head
        or b"\n\t" in head
        or bool(head.translate(None, _NOT_CONTROL))
    )


def _collect_headers(pairs: list[tuple[bytes, bytes]], *, is_http_11: bool) -> RequestHeaders:
    fields: dict[str, str] = {}
    once = True
    for raw_name, raw_value in pairs:
        name = raw_name.decode("ascii").lower()
        value = raw_value.strip(b" \t").decode("latin-1")
        if name in fields:
            value = f"{fields[name]}, {value}"
            once &= name not in _AT_MOST_ONCE
        fields[name] = value
    if not once:
        raise ProtocolError(f"malformed request: {' or '.join(sorted(_AT_MOST_ONCE))} is given twice")
    _check_host(fields.get("host"), is_http_11=is_http_11)
    chunked = _check_transfer_encoding(fields, is_http_11=is_http_11)
    return RequestHeaders(
        fields,
        content_length=_content_length(fields.get("content-length")),
        chunked=chunked,
        expect_continue=_check_expect(fields.get("expect"), is_http_11=is_http_11),
        connection_options=_tokens(fields.get("connection")),
    )


def _tokens(value: str | None) -> frozenset[str]:
    if not value:
        return frozenset()
    return frozenset(token.strip(" \t").lower() for token in value.split(","))


def _check_host(host: str | None, *, is_http_11: bool) -> None:
    if host is None:
        if is_http_11:
            raise ProtocolError("malformed request: HTTP/1.1 needs a Host")
        return
    if _HOST.fullmatch(host) is None:
        raise ProtocolError("malformed request: Host is not a host name with an optional port")


def _check_transfer_encoding(fields: dict[str, str], *, is_http_11: bool) -> bool:
    coding = fields.get("transfer-encoding")
    if coding is None:
        return False
    if not is_http_11:
        raise ProtocolError("malformed request: Transfer-Encoding in HTTP/1.0")
    if "content-length" in fields:
        raise ProtocolError("malformed request: both Content-Length and Transfer-Encoding")
    if coding.lower() != "chunked":
        raise ProtocolError("the only Transfer-Encoding accepted here is chunked", 501, "unsupported")
    return True


def _content_length(value: str | None) -> int | None:
    if value is None:
        return None
    if not value.isdecimal() or not value.isascii() or len(value) > MAX_CONTENT_LENGTH_DIGITS:
        raise ProtocolError("malformed request: Content-Length must be one decimal number")
    return int(value)


def _check_expect(value: str | None, *, is_http_11: bool) -> bool:
    if value is None or not is_http_11:
        return False  # RFC 9110, 10.1.1: an HTTP/1.0 client's expectation is ignored.
    if value.lower() != "100-continue":
        raise ProtocolError("the only Expect understood here is 100-continue", 417, "unsupported")
    return True


def _split_target(method: str, target: bytes) -> tuple[str, str, bool]:
    """The target's decoded path, its raw query, and whether it is in origin form. Raises :class:`ProtocolError`."""
    if b"#" in target:
        raise ProtocolError("malformed request target: a fragment (#…) is not sent to a server")
    if target == b"*" and method == "OPTIONS":
        return "*", "", False
    if target.startswith(b"/"):
        path, _, query = target.partition(b"?")
        return _decode_path(path), query.decode("ascii"), True
    match = _ABSOLUTE_TARGET.fullmatch(target)
    if match is None or _HOST.fullmatch(match[1].decode("ascii")) is None:
        raise ProtocolError("malformed request target: expected /path or http://host/path")
    return _decode_path(match[2] or b"/"), (match[3] or b"?")[1:].decode("ascii"), False


def _decode_path(path: bytes) -> str:
    if b"%" not in path:
        return path.decode("ascii")
    if _BAD_PERCENT.search(path):
        raise ProtocolError("malformed request target: % must be followed by two hexadecimal digits")
    try:
        decoded = unquote_to_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProtocolError("malformed request target: percent-encoded bytes are not UTF-8") from error
    if any(character < " " or character == "\x7f" for character in decoded):
        raise ProtocolError("malformed request target: percent-encoded control characters")
    return decoded
