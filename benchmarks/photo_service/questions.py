"""What the measurement asks a front end for: kinds of requests, and many different ones of each kind."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.photo_service.filling import token_of
from benchmarks.photo_service.population import COMMON_WORD, RARE_WORD, STARS, Population, cities, vocabulary


@dataclass(frozen=True, slots=True)
class Request:
    """One GET.

    Parameters
    ----------
    user: who asks; None for nobody.
    pages: how many pages of the list to turn before the one that is measured.
    """

    path: str
    user: int | None = None
    pages: int = 0

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.user is None else {"Authorization": f"Bearer {token_of(self.user)}"}


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of requests.

    Parameters
    ----------
    make: draws one.
    """

    name: str
    make: Callable[[random.Random], Request]


def kinds(population: Population) -> Iterator[Kind]:
    """All kinds that are measured."""
    yield from _feeds(population)
    yield from _tops(population)
    yield from _photos(population)
    yield from _searches(population)


def _feeds(population: Population) -> Iterator[Kind]:
    for following, users in population.readers.items():
        yield Kind(f"feed page of one who follows {following:,}", partial(_feed_page, users))
        yield Kind(f"feed of one who follows {following:,}, JSON, a later page", partial(_later_feed, users))


def _feed_page(users: Sequence[int], dice: random.Random) -> Request:
    return Request("/", dice.choice(users))


def _later_feed(users: Sequence[int], dice: random.Random) -> Request:
    return Request("/api/v1/feed?limit=30", dice.choice(users), pages=1 + dice.randrange(4))


def _tops(population: Population) -> Iterator[Kind]:
    periods = ("day", "week", "month", "year", "ever")
    yield Kind("top photos of all, page", lambda dice: Request(f"/top?period={dice.choice(periods)}"))
    yield Kind(
        "top photos of all for somebody, JSON",
        lambda dice: Request(f"/api/v1/top?period={dice.choice(periods)}&limit=100", _somebody(population, dice)),
    )
    yield Kind(
        "top photos of a star, page",
        lambda dice: Request(f"/top?period={dice.choice(periods)}&user=user{_star(dice)}", _somebody(population, dice)),
    )
    yield Kind(
        "top photos of somebody, JSON",
        lambda dice: Request(f"/api/v1/users/user{_somebody(population, dice)}/top?period={dice.choice(periods)}"),
    )


def _photos(population: Population) -> Iterator[Kind]:
    public = _public_photos(population)
    yield Kind("photo page", lambda dice: Request(f"/photos/{dice.choice(public):x}"))
    yield Kind(
        "photo page for somebody",
        lambda dice: Request(f"/photos/{dice.choice(public):x}", _somebody(population, dice)),
    )
    yield Kind("photo, JSON", lambda dice: Request(f"/api/v1/photos/{dice.choice(public):x}"))
    yield Kind("profile page of a star", lambda dice: Request(f"/@user{_star(dice)}", _somebody(population, dice)))
    yield Kind("followers of a star, page", lambda dice: Request(f"/@user{_star(dice)}/followers"))
    yield Kind("everybody's newest, page", lambda dice: Request("/explore", _somebody(population, dice)))


def _searches(population: Population) -> Iterator[Kind]:
    words, places = vocabulary(), cities(population.seed)
    common, tags = words[:30], words[:50]

    def search(query: str, dice: random.Random, pages: int = 0) -> Request:
        escaped = query.replace(" ", "+").replace("#", "%23").replace("@", "%40")
        if pages:
            return Request(f"/api/v1/search?q={escaped}&limit=40", _somebody(population, dice), pages)
        return Request(f"/search?q={escaped}", _somebody(population, dice))

    yield Kind("search: a word of 3 photos", lambda dice: search(RARE_WORD, dice))
    yield Kind("search: a rare word", lambda dice: search(dice.choice(words[5000:20_000]), dice))
    yield Kind("search: a common word", lambda dice: search(dice.choice(common), dice))
    yield Kind("search: two common words", lambda dice: search(" ".join(dice.sample(common, 2)), dice))
    yield Kind("search: two rare words", lambda dice: search(" ".join(dice.sample(words[1000:5000], 2)), dice))
    yield Kind("search: the beginning of a word", lambda dice: search(dice.choice(common)[:2], dice))
    yield Kind("search: misspelt", lambda dice: search(_misspelt(dice.choice(words[:200]), dice), dice))
    yield Kind("search: a tag", lambda dice: search("#" + dice.choice(tags), dice))
    yield Kind("search: a user", lambda dice: search(f"@user{_star(dice)}", dice))
    yield Kind("search: a common word of a user", lambda dice: search(f"{COMMON_WORD} @user{_star(dice)}", dice))
    yield Kind(
        "search: a common word and a date", lambda dice: search(f"{dice.choice(common)} before:{_month(dice)}", dice)
    )
    yield Kind("search: a date", lambda dice: search(f"on:{_month(dice)}", dice))
    yield Kind("search: a place", lambda dice: search(_near(dice.choice(places), dice.choice((2, 10, 300))), dice))
    yield Kind(
        "search: a common word and a place",
        lambda dice: search(f"{dice.choice(common)} {_near(dice.choice(places), 10)}", dice),
    )
    yield Kind("search: a common word, JSON, a later page", lambda dice: search(dice.choice(common), dice, pages=9))


def _public_photos(population: Population) -> list[int]:
    """Ids to draw from; of all ages. Those that are not public are found out by asking."""
    dice = random.Random(population.seed + 11)
    return [population.photo_id(dice.randrange(population.photos)) for _ in range(2000)]


def _somebody(population: Population, dice: random.Random) -> int:
    return 1 + dice.randrange(population.users)


def _star(dice: random.Random) -> int:
    return 1 + dice.randrange(STARS)


def _month(dice: random.Random) -> str:
    return f"{2024 + dice.randrange(2)}-{1 + dice.randrange(12):02}"


def _near(place: tuple[float, float], km: int) -> str:
    return f"near:{place[0]:.2f},{place[1]:.2f},{km}"


def _misspelt(word: str, dice: random.Random) -> str:
    at = 1 + dice.randrange(len(word) - 2)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
