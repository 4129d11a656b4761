"""How often the photos of a volume are read.

A photo's reads are its own popularity, drawn from a Pareto distribution (a Zipf law of rank), times a factor that falls
with its age: ``(1 + age / A) ** -b``. With A = 12 hours and b = 1.1 a week-old photo is read a tenth as often as one of
less than a day, as was found of eight of nine kinds of blobs at Facebook (Muralidhar et al., f4, OSDI 2014). Only the
relation between volumes counts: all reads together are what the scenario says.

Photos are not simulated one by one. A volume is written evenly between the moment it was made and its last upload, and
of its photos only the most popular ones are drawn; the rest count with their mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, pow
from random import Random

from directory.simulation.scenario import Scenario

DRAWN_PHOTOS = 8
"""Photos of a volume whose popularity is drawn, the most popular ones."""

BURST_LEAST_SHARE = 0.0002
"""Part of all reads that an old photo gets at least which becomes popular again. The rest of it is Pareto, too."""

BURST_MOST_SHARE = 0.02
BURST_SHAPE = 1.25
BURST_DAYS = 2.0
"""For so long, in the mean."""


@dataclass(frozen=True, slots=True)
class Popularity:
    """Pure functions of age and chance.

    Parameters
    ----------
    age_seconds, exponent: A and b above.
    shape: of the Pareto distribution, above 1.
    photos: in a full volume.
    """

    age_seconds: float
    exponent: float
    shape: float
    photos: int

    @classmethod
    def of(cls, scenario: Scenario) -> Popularity:
        """Return what a scenario says."""
        return cls(
            scenario.popularity_age_seconds,
            scenario.popularity_exponent,
            scenario.popularity_shape,
            max(1, scenario.volume_bytes // scenario.photo_bytes),
        )

    def at_age(self, seconds: float) -> float:
        """Return how often a photo is read at an age, as part of how often it was when it was new."""
        return pow(1.0 + seconds / self.age_seconds, -self.exponent)

    def until_age(self, seconds: float) -> float:
        """Return the integral of :meth:`at_age` from 0, in seconds."""
        ages = 1.0 + seconds / self.age_seconds
        if self.exponent == 1.0:
            return self.age_seconds * log(ages)
        return self.age_seconds * (pow(ages, 1.0 - self.exponent) - 1.0) / (1.0 - self.exponent)

    def between(self, youngest_seconds: float, oldest_seconds: float) -> float:
        """Return the mean of :meth:`at_age` over photos whose ages are spread evenly between two."""
        span_seconds = oldest_seconds - youngest_seconds
        if span_seconds < 1.0:
            return self.at_age(youngest_seconds)
        return (self.until_age(oldest_seconds) - self.until_age(youngest_seconds)) / span_seconds

    def luck(self, random: Random) -> float:
        """Draw how popular the photos of one volume are, as a multiple of what is to be expected."""
        shape, photos = self.shape, self.photos
        drawn = min(DRAWN_PHOTOS, photos)
        arrivals, total, least = 0.0, 0.0, 1.0
        for _ in range(drawn):
            arrivals += random.expovariate(1.0)
            # The largest of n draws, then the second largest …: exact in the limit of many photos.
            least = max(1.0, pow(arrivals / photos, -1.0 / shape))
            total += least
        mean = shape / (shape - 1.0)
        rest = mean * (1.0 - pow(least, 1.0 - shape)) / max(1e-9, 1.0 - pow(least, -shape))
        return (total + (photos - drawn) * rest) / (photos * mean)

    def burst_share(self, random: Random) -> float:
        """Draw the part of all reads that an old photo gets which becomes popular again."""
        return min(BURST_MOST_SHARE, BURST_LEAST_SHARE * random.paretovariate(BURST_SHAPE))
