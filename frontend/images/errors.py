"""Why an upload is no photo that can be kept."""

from __future__ import annotations

from haystack.errors import HaystackError


class ImageRefused(HaystackError):
    """The bytes are no picture of a kind that is taken, or one that is damaged or too large. The text says which."""

    http_status = 422


class ImageTooLarge(ImageRefused):
    """Too many bytes or pixels."""

    http_status = 413


class ImageWorkFailed(HaystackError):
    """Working on a picture took too long, too much memory, or ended its process. Only this upload is concerned."""

    http_status = 422


class ImagesBusy(HaystackError):
    """More pictures wait than may; come back later."""

    http_status = 503
