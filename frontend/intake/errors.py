"""Why an upload is not taken, apart from its ticket and its picture."""

from __future__ import annotations

from haystack.errors import HaystackError, InvalidRequest


class WrongLength(InvalidRequest):
    """The body has other bytes than the ticket says, or more than were announced."""


class UploadNotFound(HaystackError):
    """There is no such resumable upload: never begun, ended, refused, or too old."""

    http_status = 404


class UploadInUse(HaystackError):
    """Another call with the same ticket is being worked on right now."""

    http_status = 423


class WrongOffset(HaystackError):
    """The client goes on at another place than where the upload is."""

    http_status = 409


class WrongChecksum(HaystackError):
    """What came is not what was sent. The status is that of the tus protocol."""

    http_status = 460


class ClientTooSlow(HaystackError):
    """The body came more slowly than anybody sends who still wants to."""

    http_status = 408


class Unsupported(HaystackError):
    """The body is of a kind that is not taken here."""

    http_status = 415


class WrongProtocol(HaystackError):
    """Another version of tus, or none."""

    http_status = 412


class TooManyUploads(HaystackError):
    """So many uploads, or bytes of them, are on their way that no further one is begun."""

    http_status = 503


class Broken(HaystackError):
    """The connection ended in the middle of a body; nobody hears the answer."""

    http_status = 499
