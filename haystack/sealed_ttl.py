"""Lives that a name carries: who assigns a photo a ttl seals it into its cookie, and the Store that takes it reads it.

So a ttl that was given to ``/dir/assign`` alone counts, whatever client uploads then, and nobody has to remember it: no
restart, no second Directory and no other Store can lose it.

A sealed cookie is the 64 bits ``life (24) | 0 (40)``, xor a number that only the cluster's secret and the key give. So
it is as hard to guess as a random one, for as long as the secret is one. A cookie that was not sealed looks as if it
were once in 2^40; a Directory never hands out such a one, which leaves names that clients have made up themselves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

from haystack.security import new_cookie
from haystack.ttl import HOUR_SECONDS, LAST_SECOND

_PERSON: Final = b"haystack ttl"
_CHECK_BITS: Final = 40
_IN_HOURS: Final = 1 << 23
"""Flag of a life that is counted in hours; shorter ones are counted in seconds, up to 97 days."""


class LifeSeal:
    """Seals lives into cookies, and reads them.

    Parameters
    ----------
    secret: the cluster's; without one whoever knows the scheme can compute sealed cookies.
    """

    def __init__(self, secret: bytes | None) -> None:
        key = hashlib.sha512(secret or b"").digest()
        self._keyed = hashlib.blake2b(digest_size=8, key=key, person=_PERSON)

    def cookie(self, key: int, ttl_seconds: int, draw: Callable[[], int] = new_cookie) -> int:
        """A cookie for a new photo.

        Parameters
        ----------
        ttl_seconds: how long it lives, rounded up to a whole hour when that is longer than 97 days; 0 for ever.
        draw: gives random cookies.
        """
        if ttl_seconds:
            return self._mask(key) ^ _life(ttl_seconds) << _CHECK_BITS
        while self.ttl_seconds(key, cookie := draw()):
            pass
        return cookie

    def ttl_seconds(self, key: int, cookie: int) -> int:
        """The life that a cookie was sealed with; 0 for none."""
        opened = self._mask(key) ^ cookie
        if opened & (1 << _CHECK_BITS) - 1:
            return 0
        life = opened >> _CHECK_BITS
        seconds = (life ^ _IN_HOURS) * HOUR_SECONDS if life & _IN_HOURS else life
        # What nobody would have sealed is none: another way to write a short life, or one beyond all time.
        return seconds if seconds <= LAST_SECOND and _life(seconds) == life else 0

    def _mask(self, key: int) -> int:
        keyed = self._keyed.copy()
        keyed.update(key.to_bytes(8))
        return int.from_bytes(keyed.digest())


def _life(seconds: int) -> int:
    return seconds if seconds < _IN_HOURS else _IN_HOURS | -(-seconds // HOUR_SECONDS)
