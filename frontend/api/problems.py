"""Errors as problem details (RFC 9457)."""

from __future__ import annotations

import http
import logging
from collections.abc import Mapping

from aiohttp import web

from frontend.api import schemas
from frontend.api.reading import NotValid
from frontend.services.errors import Invalid, TooMany
from haystack.errors import HaystackError

CONTENT_TYPE = "application/problem+json"
RETRY_SECONDS = 2
"""Told with 503."""

_log = logging.getLogger(__name__)


def problem(status: int, detail: str, wrong: Mapping[str, str] | None = None) -> web.Response:
    """The response that tells of an error."""
    document = schemas.Problem(
        title=http.HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        errors=[schemas.Wrong(field=name, problem=text) for name, text in (wrong or {}).items()],
    )
    response = web.Response(
        status=status, body=document.model_dump_json(by_alias=True).encode(), content_type=CONTENT_TYPE
    )
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="haystack"'
    if status == 503:
        response.headers["Retry-After"] = str(RETRY_SECONDS)
    return response


def problem_of(error: HaystackError, what: str) -> web.Response:
    """The response that tells of an error of ours.

    Parameters
    ----------
    what: method and path, for the log.
    """
    if error.http_status >= 500:
        _log.warning("%s: %s", what, error)
    if error.http_status == 500:
        return problem(500, "this did not work; the log of the front end has the details")
    if error.http_status > 503 or error.http_status in (501, 502):
        return problem(503, f"the cluster cannot do this now: {error}")
    response = problem(error.http_status, str(error), _wrong(error))
    if isinstance(error, TooMany):
        response.headers["Retry-After"] = str(error.retry_after_seconds)
    return response


def _wrong(error: HaystackError) -> Mapping[str, str]:
    if isinstance(error, NotValid):
        return error.wrong
    return {error.field: str(error)} if isinstance(error, Invalid) else {}
