"""Conditional requests (RFC 9110, section 13): whether the client's copy is still good. Pure."""

from __future__ import annotations

import re

from haystack.http.dates import parse_http_date

_ENTITY_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_SEPARATOR = re.compile(r"[ \t]*,[ \t,]*")


def none_match(value: str, etag: str) -> bool:
    """Evaluate If-None-Match: False when ``etag`` is in the list (weak comparison), or it is ``*``.

    Parameters
    ----------
    etag: of the current representation, with its quotes.

    A malformed list counts as far as it can be read, so that a bad client gets a 200 rather than a wrong 304.
    """
    value = value.strip(" \t")
    if value == "*":
        return False
    wanted = etag.removeprefix("W/")
    position = len(value) - len(value.lstrip(" \t,"))
    while match := _ENTITY_TAG.match(value, position):
        if match[0].removeprefix("W/") == wanted:
            return False
        separator = _SEPARATOR.match(value, match.end())
        if separator is None:
            break
        position = separator.end()
    return True


def modified_since(value: str, last_modified_seconds: int) -> bool:
    """Evaluate If-Modified-Since: False when nothing changed after that second. True when it is no HTTP-date."""
    since = parse_http_date(value)
    return since is None or last_modified_seconds > since


def is_not_modified(
    if_none_match: str | None, if_modified_since: str | None, etag: str, last_modified_seconds: int | None
) -> bool:
    """Whether GET or HEAD is to be answered 304; If-None-Match comes before If-Modified-Since (RFC 9110, 13.2.2)."""
    if if_none_match is not None:
        return not none_match(if_none_match, etag)
    if if_modified_since is not None and last_modified_seconds is not None:
        return not modified_since(if_modified_since, last_modified_seconds)
    return False
