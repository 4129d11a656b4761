"""Made-up traces of requests for photos. All are drawn from a seed and come out the same every time.

Two kinds:

- **Zipf**: a fixed set of photos; the i-th most popular one is asked for in proportion to 1 / i^a, independently of
  what was asked before.
- **photo-like**: photos are uploaded all the time. Most requests are for young photos: the age of what is asked for
  has a density of 1 / (age + an hour), up to a year. Among photos of the same age, popularity is Zipf again. Beside
  that, albums of long ago are leafed through from one end to the other: scans.
"""

from __future__ import annotations

import enum
import itertools
import random
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from math import exp, log
from typing import Final

MEDIAN_BYTES: Final = 64 * 1024
SPREAD: Final = 0.8
"""Standard deviation of the logarithm of sizes: half of all photos have 37 to 112 KiB."""

LEAST_BYTES: Final = 2048
MOST_BYTES: Final = 4 * 2**20

DAY_SECONDS: Final = 86_400.0
YOUNG_SECONDS: Final = 3600.0
OLDEST_DAYS: Final = 365
COHORT: Final = 500
"""Photos of about the same age, among which popularity is Zipf."""

COHORT_EXPONENT: Final = 1.0
ALBUM_PHOTOS: Final = 80
SCANNED_SHARE: Final = 0.1
"""Share of the requests that leaf through an album."""


class ShareOf(enum.Enum):
    """What the cache sizes of a photo-like trace are shares of; the names are those of the traces."""

    VIEWS = "photo-like, of views"
    """A day's requests, as if each were for another photo: the sum "20% of a day's views" counts so."""
    PHOTOS = "photo-like"
    """The photos that a day asks for, each once."""
    UPLOADS = "photo-like, of uploads"
    """The photos that a day uploads."""


_STEP: Final = 7919
"""Prime to any cohort, so that multiples of it visit each photo of one."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in their order, of a set of photos.

    Parameters
    ----------
    photos: for each request which photo, 0 … len(sizes) - 1.
    sizes: bytes of each photo.
    set_bytes: what cache sizes are shares of.
    requests_per_second: how fast they come.
    recent: for each request 1 if the photo was at most a day old, else 0; empty when photos have no age.
    """

    name: str
    photos: array[int]
    sizes: array[int]
    set_bytes: int
    requests_per_second: float
    recent: bytearray


def zipf(exponent: float, photos: int, requests: int, seed: int, requests_per_second: float) -> Trace:
    """A Zipf trace; ``set_bytes`` is the size of all photos together."""
    rng = random.Random(f"zipf {exponent} {seed}")
    sizes = array("I", (_size(rng) for _ in range(photos)))
    weights = list(itertools.accumulate((rank + 1) ** -exponent for rank in range(photos)))
    asked = array("I", rng.choices(range(photos), cum_weights=weights, k=requests))
    return Trace(f"Zipf {exponent}", asked, sizes, sum(sizes), requests_per_second, bytearray())


def photo_like(
    uploads_a_day: int, reads_an_upload: float, days: int, seed: int, share_of: ShareOf = ShareOf.PHOTOS
) -> Trace:
    """A photo-like trace.

    Parameters
    ----------
    reads_an_upload: requests for each upload.
    share_of: what ``set_bytes`` is.
    """
    rng = random.Random(f"photos {seed}")
    requests = int(uploads_a_day * reads_an_upload * days)
    numbers: dict[int, int] = {}
    asked, sizes, recent = array("I"), array("I"), bytearray()
    for photo, is_recent in itertools.islice(_asked(rng, uploads_a_day, requests, days), requests):
        number = numbers.setdefault(photo, len(numbers))
        if number == len(sizes):
            sizes.append(_size(random.Random(photo * 1_000_003 + seed)))
        asked.append(number)
        recent.append(is_recent)
    per_second = uploads_a_day * reads_an_upload / DAY_SECONDS
    set_bytes = _bytes_of(share_of, asked, sizes, days, uploads_a_day)
    return Trace(share_of.value, asked, sizes, set_bytes, per_second, recent)


def _bytes_of(share_of: ShareOf, asked: array[int], sizes: array[int], days: int, uploads_a_day: int) -> int:
    if share_of is ShareOf.UPLOADS:
        return uploads_a_day * sum(sizes) // len(sizes)
    if share_of is ShareOf.VIEWS:
        return sum(sizes[photo] for photo in asked) // days
    a_day = len(asked) // days
    of_days = [sum(sizes[photo] for photo in set(asked[day * a_day : (day + 1) * a_day])) for day in range(days)]
    return sum(of_days) // days


def _asked(rng: random.Random, uploads_a_day: int, requests: int, days: int) -> Iterator[tuple[int, bool]]:
    """Photos, numbered in the order of their upload, and whether each is at most a day old."""
    cohort = list(itertools.accumulate((rank + 1) ** -COHORT_EXPONENT for rank in range(COHORT)))
    span = log((OLDEST_DAYS * DAY_SECONDS + YOUNG_SECONDS) / YOUNG_SECONDS)
    scan_starts = SCANNED_SHARE / ALBUM_PHOTOS / (1 - SCANNED_SHARE)
    scans: list[Iterator[int]] = []
    before = OLDEST_DAYS * uploads_a_day  # photos that were there when the trace begins
    for request in range(requests):
        uploaded = before + request / requests * days * uploads_a_day
        if rng.random() < scan_starts:
            first = rng.randrange(before - ALBUM_PHOTOS)
            scans.append(iter(range(first, first + ALBUM_PHOTOS)))
        if scans and rng.random() < SCANNED_SHARE:
            photo = next(scans[0], None)
            if photo is not None:
                yield photo, False
                continue
            scans.pop(0)
        age_seconds = YOUNG_SECONDS * (exp(rng.random() * span) - 1)
        photo = _of_age(rng, uploaded, age_seconds / DAY_SECONDS * uploads_a_day, cohort)
        yield photo, uploaded - photo <= uploads_a_day


def _of_age(rng: random.Random, uploaded: float, age_uploads: float, cohort: list[float]) -> int:
    """A photo that was uploaded about so many uploads ago: of its cohort, by popularity."""
    last = max(int(uploaded - age_uploads), 0)
    first = last // COHORT * COHORT
    rank = rng.choices(range(COHORT), cum_weights=cohort)[0]
    photo = first + (rank * _STEP + first // COHORT * 131) % COHORT
    # Of the cohort that is being uploaded right now only a part is there.
    return photo if photo <= uploaded else first + (photo - first) % max(int(uploaded) - first, 1)


def _size(rng: random.Random) -> int:
    return max(LEAST_BYTES, min(int(MEDIAN_BYTES * exp(rng.gauss(0, SPREAD))), MOST_BYTES))
