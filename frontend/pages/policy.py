"""The Content-Security-Policy of pages: own scripts and style, and pictures and uploads only where they really are."""

from __future__ import annotations

import re
from collections.abc import Iterable

_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+")


def content_security_policy(pictures: Iterable[str] = (), uploads: Iterable[str] = ()) -> str:
    """The header's value.

    Parameters
    ----------
    pictures: origins that pictures are loaded from, besides our own: ``http://host:port``.
    uploads: origins that photos are sent to.

    Raises
    ------
    ValueError: something that is no origin, and would change what the policy says.
    """
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            _sources("img-src", pictures),
            _sources("connect-src", uploads),
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        )
    )


def _sources(directive: str, origins: Iterable[str]) -> str:
    named = sorted(set(origins))
    for origin in named:
        if _ORIGIN.fullmatch(origin) is None:
            raise ValueError(f"{origin!r} is no origin such as http://host:8080")
    return " ".join((directive, "'self'", *named))
