"""What a camera wrote about a picture: when, where, with what. All of it is optional and all of it may be broken."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import ExifTags, Image

MAX_TEXT = 100
_DATE = re.compile(r"(\d{4})[:\-/](\d{1,2})[:\-/](\d{1,2})[ T](\d{1,2}):(\d{1,2}):(\d{1,2})")
_OFFSET = re.compile(r"([+-])(\d{2}):?(\d{2})")
_EARLIEST = 1826
"""Year of the first photograph; cameras without a clock write 0 or 1."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a picture was taken: degrees, north and east are positive."""

    latitude: float
    longitude: float


@dataclass(frozen=True, slots=True)
class Taken:
    """What a picture says of itself.

    Parameters
    ----------
    time_ms: when, in ms since 1970; in UTC where the zone is not told.
    place: where.
    camera: maker and model.
    """

    time_ms: int | None = None
    place: Place | None = None
    camera: str = ""


def read_taken(image: Image.Image) -> Taken:
    """What the EXIF of an opened picture says, as far as it can be read."""
    try:
        exif = image.getexif()
        base = dict(exif)
        detail = _directory(exif, ExifTags.IFD.Exif)
        gps = _directory(exif, ExifTags.IFD.GPSInfo)
    except Exception:  # Whatever a parser of hostile bytes may raise, a photo without EXIF is a photo.
        return Taken()
    return Taken(_time_ms(base, detail), _place(gps), _camera(base))


def _directory(exif: Image.Exif, which: ExifTags.IFD) -> dict[int, Any]:
    return dict(exif.get_ifd(which))


def _time_ms(base: Mapping[int, Any], detail: Mapping[int, Any]) -> int | None:
    candidates = (
        (detail.get(ExifTags.Base.DateTimeOriginal), detail.get(ExifTags.Base.OffsetTimeOriginal)),
        (detail.get(ExifTags.Base.DateTimeDigitized), detail.get(ExifTags.Base.OffsetTimeDigitized)),
        (base.get(ExifTags.Base.DateTime), detail.get(ExifTags.Base.OffsetTime)),
    )
    for text, offset in candidates:
        found = parse_time_ms(_text(text), _text(offset))
        if found is not None:
            return found
    return None


def parse_time_ms(text: str, offset: str = "") -> int | None:
    """EXIF's ``2024:07:31 18:05:59`` with its zone ``+02:00`` as ms since 1970; None when it is no date."""
    match = _DATE.match(text)
    if match is None:
        return None
    try:
        moment = datetime.datetime(*(int(part) for part in match.groups()), tzinfo=datetime.UTC)  # type: ignore[misc, arg-type]  # six numbers
    except ValueError:
        return None
    if moment.year < _EARLIEST:
        return None
    zone = _OFFSET.fullmatch(offset)
    shift = datetime.timedelta()
    if zone is not None:
        shift = datetime.timedelta(hours=int(zone[2]), minutes=int(zone[3])) * (1 if zone[1] == "+" else -1)
    return round((moment.timestamp() - shift.total_seconds()) * 1000)  # no date: the year 9999 has an end


def _place(gps: Mapping[int, Any]) -> Place | None:
    latitude = _degrees(gps.get(ExifTags.GPS.GPSLatitude), gps.get(ExifTags.GPS.GPSLatitudeRef), "S", 90)
    longitude = _degrees(gps.get(ExifTags.GPS.GPSLongitude), gps.get(ExifTags.GPS.GPSLongitudeRef), "W", 180)
    if latitude is None or longitude is None or (latitude == 0 and longitude == 0):
        return None  # receivers without a fix write zeros
    return Place(latitude, longitude)


def _degrees(parts: Any, reference: Any, negative: str, limit: int) -> float | None:
    """Degrees from degrees, minutes and seconds; None for whatever is no such thing."""
    if isinstance(parts, str | bytes):
        return None
    try:
        values = [float(part) for part in parts] if isinstance(parts, tuple | list) else [float(parts)]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    if not 1 <= len(values) <= 3:
        return None
    total: float = sum(value / 60.0**power for power, value in enumerate(values))
    if not math.isfinite(total) or not 0 <= total <= limit:
        return None
    return round(-total if _text(reference).strip().upper() == negative else total, 7)


def _camera(base: Mapping[int, Any]) -> str:
    maker, model = (_text(base.get(tag)).strip() for tag in (ExifTags.Base.Make, ExifTags.Base.Model))
    if model.lower().startswith(maker.lower()):
        maker = ""
    return f"{maker} {model}".strip()[:MAX_TEXT]


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return ""
    return "".join(letter for letter in value if letter.isprintable())
