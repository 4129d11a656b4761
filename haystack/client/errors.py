"""What can go wrong between a client and a cluster, beyond what a server itself reports."""

from __future__ import annotations

from haystack import errors
from haystack.errors import HaystackError


class Unreachable(HaystackError):
    """No server could be reached, or the connection broke before the whole answer was there. A later try may work.

    Parameters
    ----------
    unsent: True when the request certainly did not reach a server; else it may have been done.
    """

    http_status = 503

    def __init__(self, message: str, *, unsent: bool = False) -> None:
        super().__init__(message)
        self.unsent = unsent


class Refused(HaystackError):
    """A server refused a change: the volume takes no writes, or holds another photo under this name."""

    http_status = 409


class UnexpectedAnswer(HaystackError):
    """A server answered something that this client does not understand; is it a Haystack server of this version?"""

    http_status = 502


class WrongContent(HaystackError):
    """What was transferred is not what was meant: its size or its hash differs. It must not be used."""

    http_status = 502


class SourceChanged(HaystackError):
    """A file changed while it was read for an upload; nothing was stored of it."""


ERRORS_BY_STATUS: dict[int, type[HaystackError]] = {
    400: errors.InvalidRequest,
    401: errors.AuthenticationError,
    404: errors.NeedleNotFound,
    409: Refused,
    413: errors.TooLarge,
    500: errors.DiskError,
    503: errors.VolumeUnavailable,
    507: errors.OutOfSpace,
}


def error_for(status: int, text: str, *, not_found: type[HaystackError] = errors.NeedleNotFound) -> HaystackError:
    """Return the error that an answer's status means.

    Parameters
    ----------
    status: HTTP status, 400 or above, or one that nobody expected.
    text: what was asked of whom, and what the server said.
    not_found: what a 404 means here.
    """
    if status == 404:
        return not_found(text)
    kind = ERRORS_BY_STATUS.get(status)
    if kind is not None:
        return kind(text)
    return (Unreachable if status in (429, 502, 504) else UnexpectedAnswer)(f"{text} (status {status})")
