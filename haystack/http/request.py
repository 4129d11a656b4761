"""A parsed request head: what a handler gets to see of a request before its body."""

from __future__ import annotations

from urllib.parse import parse_qsl

from haystack.errors import InvalidRequest

MAX_QUERY_FIELDS = 64


class RequestHeaders:
    """The header section of a request, with the fields that the data path needs already taken out.

    Names are lower case. A value is the field's text as latin-1 (every byte is kept); the values of a field that came
    more than once are joined by ``", "``. Absent fields are None. One object may be shared by many requests: treat it
    as read-only.
    """

    __slots__ = (
        "_fields",
        "accept",
        "chunked",
        "close",
        "content_length",
        "content_type",
        "expect_continue",
        "host",
        "if_modified_since",
        "if_none_match",
        "if_range",
        "keep_alive",
        "notes",
        "plain",
        "range",
    )

    def __init__(
        self,
        fields: dict[str, str],
        *,
        content_length: int | None,
        chunked: bool,
        expect_continue: bool,
        connection_options: frozenset[str],
    ) -> None:
        self._fields = fields
        get = fields.get
        self.host = get("host")
        self.accept = get("accept")
        self.content_type = get("content-type")
        self.range = get("range")
        self.if_range = get("if-range")
        self.if_none_match = get("if-none-match")
        self.if_modified_since = get("if-modified-since")
        self.content_length = content_length
        """Declared length of the body in bytes; None when there is none or it is chunked."""
        self.chunked = chunked
        self.expect_continue = expect_continue
        self.close = "close" in connection_options
        self.keep_alive = "keep-alive" in connection_options
        self.plain = self.range is None and self.if_none_match is None and self.if_modified_since is None
        """True when nothing in here can turn a 200 into a 206, 304 or 416."""
        self.notes: object = None
        """What a handler has found out from these fields alone, kept for later requests with the same ones."""

    def get(self, name: str) -> str | None:
        """Value of the field with this lower-case ``name``, or None."""
        return self._fields.get(name)

    def items(self) -> list[tuple[str, str]]:
        """All fields as (lower-case name, value)."""
        return list(self._fields.items())


class Request:
    """One request, after its head was parsed strictly.

    Parameters
    ----------
    method: such as ``"GET"``.
    line: the whole request line as received, without its line end.
    target: the request target as received.
    path: the target's path, percent-decoded, as UTF-8 text.
    query: the target's query without its ``?``, not decoded; see :meth:`query_value`.
    headers: see :class:`RequestHeaders`.
    is_http_11: False for HTTP/1.0.
    origin_form: the target is an absolute path (not ``http://…`` or ``*``).
    """

    __slots__ = ("_query_fields", "headers", "is_http_11", "line", "method", "origin_form", "path", "query", "target")

    def __init__(
        self,
        method: str,
        line: bytes,
        target: bytes,
        path: str,
        query: str,
        headers: RequestHeaders,
        *,
        is_http_11: bool,
        origin_form: bool,
    ) -> None:
        self.method = method
        self.line = line
        self.target = target
        self.path = path
        self.query = query
        self.headers = headers
        self.is_http_11 = is_http_11
        self.origin_form = origin_form
        self._query_fields: dict[str, str] | None = None

    @property
    def has_body(self) -> bool:
        return self.headers.chunked or bool(self.headers.content_length)

    @property
    def keep_alive(self) -> bool:
        """Whether the client lets the connection stay open after the answer (RFC 9112, 9.3)."""
        if self.headers.close:
            return False
        return self.is_http_11 or self.headers.keep_alive

    @property
    def cacheable_line(self) -> bytes | None:
        """The request line, if a later request with the same line may be answered by ``Handler.fast_get``."""
        if self.is_http_11 and self.origin_form and self.method in ("GET", "HEAD"):
            return self.line
        return None

    def query_value(self, name: str) -> str | None:
        """Decoded value of the first query field with this name; None when absent.

        Raises :class:`InvalidRequest` when the query has too many fields or is not UTF-8.
        """
        if self._query_fields is None:
            self._query_fields = _parse_query(self.query)
        return self._query_fields.get(name)


def _parse_query(query: str) -> dict[str, str]:
    if not query:
        return {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_FIELDS)
    except ValueError as error:
        raise InvalidRequest(
            f"the query is not valid: at most {MAX_QUERY_FIELDS} fields, percent-encoded UTF-8"
        ) from error
    fields: dict[str, str] = {}
    for name, value in pairs:
        fields.setdefault(name, value)
    return fields
