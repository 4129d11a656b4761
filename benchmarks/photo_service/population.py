"""A population of a photo site, drawn from a seed: who follows whom, whose photos, their words, places and fame.

As on real sites most of everything belongs to few: a handful of accounts have 50,000 followers, a few words are in a
tenth of all titles, most photos were seen by a handful of people. Some users, the readers, follow exactly as many
people as the measurement wants to ask about.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

DAY_MS = 86_400_000
DAYS = 3 * 365
STARS = 5
STAR_FOLLOWERS = 50_000
READERS_EACH = 10
FOLLOWING = (10, 200, 1000, 7500)
"""How many people the readers of each kind follow."""
VOCABULARY = 40_000
TAGS = 2_000
CITIES = 300
VOLUMES = 64
COMMON_WORD, RARE_WORD = "sunset", "quixotic"
_FAMILIAR = (
    "sunset", "beach", "mountain", "forest", "summer", "winter", "city", "night", "lake", "river", "snow",
    "street", "garden", "morning", "harbour", "bridge", "island", "evening", "autumn", "spring", "portrait",
    "family", "dog", "cat", "flowers", "clouds", "rain", "storm", "road", "trees", "light", "shadow", "water",
    "sand",
)  # fmt: skip
_SYLLABLES = tuple(first + last for first in "bdfgklmnprstvz" for last in "aeiou")


@dataclass(frozen=True, slots=True)
class Population:
    """What is drawn.

    Parameters
    ----------
    now_ms: milliseconds since 1970 at which the newest photo was published.
    """

    users: int
    photos: int
    now_ms: int
    seed: int = 1

    @property
    def readers(self) -> dict[int, range]:
        """How many they follow → ids of the users who do; the last users of all."""
        found, last = {}, self.users + 1
        for following in self.followings:
            found[following] = range(last - READERS_EACH, last)
            last -= READERS_EACH
        return found

    @property
    def followings(self) -> tuple[int, ...]:
        """Of ``FOLLOWING``, what so many users can have."""
        return tuple(one for one in FOLLOWING if one <= self.users // 4)

    def photo_id(self, number: int) -> int:
        """Ids have gaps: of tickets that were never used, and of other photos in the same store."""
        return 0x1000 + number * 5 // 4

    def created_ms(self, number: int) -> int:
        return self.now_ms - (self.photos - 1 - number) * (DAYS * DAY_MS // self.photos)

    def follows(self) -> Iterator[tuple[int, int, int]]:
        """Follower, followee, time; by follower and followee."""
        dice = random.Random(self.seed)
        readers = {user: following for following, users in self.readers.items() for user in users}
        star_share = min(1.0, STAR_FOLLOWERS / self.users)
        for user in range(1, self.users + 1):
            wanted = readers.get(user) or min(1500, int(2 * dice.paretovariate(0.9)))
            chosen = {star for star in range(1, STARS + 1) if user in readers or dice.random() < star_share}
            while len(chosen) < wanted:
                chosen.add(1 + int(self.users * dice.random() ** 2))
            chosen.discard(user)
            for followee in sorted(chosen):
                yield user, followee, self.now_ms - dice.randrange(DAYS) * DAY_MS

    def owners(self) -> Sequence[int]:
        """Who has published each photo: stars one in a hundred, others the more the longer they are there."""
        dice = random.Random(self.seed + 1)
        return [
            1 + dice.randrange(STARS) if dice.random() < 0.01 else 1 + int(self.users * dice.random() ** 1.5)
            for _ in range(self.photos)
        ]

    def fame(self) -> Sequence[int]:
        """How many views each photo has had."""
        dice = random.Random(self.seed + 2)
        return [min(200_000, int(3 * dice.paretovariate(0.8))) for _ in range(self.photos)]


class Texts:
    """Draws titles, captions, tags: words by Zipf's law."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self.words = vocabulary()
        self.tags = self.words[:TAGS]
        self._word_weights = list(accumulate(1 / rank for rank in range(3, len(self.words) + 3)))
        self._tag_weights = list(accumulate(1 / rank for rank in range(3, len(self.tags) + 3)))

    def title(self) -> str:
        return " ".join(self._draw(1 + self._dice.randrange(4))).capitalize()

    def caption(self) -> str:
        return " ".join(self._draw(8)) if self._dice.random() < 0.3 else ""

    def photo_tags(self) -> list[str]:
        count = self._dice.choice((0, 0, 1, 2, 3, 4))
        return sorted(set(self._dice.choices(self.tags, cum_weights=self._tag_weights, k=count)))

    def _draw(self, count: int) -> list[str]:
        return self._dice.choices(self.words, cum_weights=self._word_weights, k=count)


def vocabulary() -> list[str]:
    """Words, the most frequent first; the last is very rare."""
    dice = random.Random(7)
    found = dict.fromkeys(_FAMILIAR)
    while len(found) < VOCABULARY - 1:
        found["".join(dice.choices(_SYLLABLES, k=2 + dice.randrange(4)))] = None
    return [*found, RARE_WORD]


def cities(seed: int) -> list[tuple[float, float]]:
    """Where photos are taken: degrees north and east."""
    dice = random.Random(seed)
    return [(math.degrees(math.asin(dice.uniform(-0.8, 0.9))), dice.uniform(-180, 180)) for _ in range(CITIES)]
