"""What the services refuse, each with the status that it is answered with."""

from __future__ import annotations

from haystack.errors import HaystackError, InvalidRequest


class NotFound(HaystackError):
    """There is no such thing, or the one who asks may not see it: deliberately the same answer."""

    http_status = 404


class Forbidden(HaystackError):
    """It can be seen, but not changed by the one who asks."""

    http_status = 403


class NotLoggedIn(HaystackError):
    """Nobody is logged in, or password, session or token are wrong."""

    http_status = 401


class Conflict(HaystackError):
    """It was changed, or asked for in another way, meanwhile."""

    http_status = 409


class Busy(HaystackError):
    """There is too much to do, or a part of the cluster does not answer; a later try may succeed."""

    http_status = 503


class Invalid(InvalidRequest):
    """One value is not as it has to be.

    Parameters
    ----------
    field: its name in requests.
    problem: what is wrong with it.
    """

    http_status = 422

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(problem)
        self.field = field


class UploadRefused(HaystackError):
    """The intake took an upload and refused it.

    Parameters
    ----------
    status: that the intake answered with.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.http_status = status


class TooMany(HaystackError):
    """More requests than one may send in a time.

    Parameters
    ----------
    retry_after_seconds: after which the next one is taken.
    """

    http_status = 429

    def __init__(self, message: str, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
