"""The cluster's secret, signed internal calls, and the random numbers that protect photos.

An internal call (Store to Directory, Directory to Store, tools to either) carries the header ``X-Haystack-Auth``::

    v1:<unix time in ms>:<nonce>:<HMAC-SHA256 hex>

The HMAC covers version, time, nonce, SHA-256 of the body, method, and path with query, in this order and separated by
newlines. All but the last have an alphabet without newlines, so no two calls have the same text. What each part is for:

- time: a recorded call is worthless after ``max_age_seconds``, in either direction of clock difference;
- nonce: within that time, a call is accepted once;
- body hash, method, path with query: a recorded header fits no other call.

The receiving machine is not covered and nonces are remembered in memory only. A recorded call can therefore be repeated
within its 30 seconds at another machine, or at one that has just restarted: internal calls must be safe to repeat.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
import time
from collections import deque
from collections.abc import Callable

from haystack.errors import AuthenticationError, ConfigError

AUTH_HEADER = "X-Haystack-Auth"
DEFAULT_MAX_AGE_SECONDS = 30.0
MAX_NONCES = 200_000
"""Accepted calls remembered by one verifier. Above it calls are refused: forgetting early would allow a replay."""

MIN_SECRET_BYTES = 32
MAX_SECRET_FILE_BYTES = 4096

_HEADER = re.compile(r"v1:([0-9]{1,15}):([0-9A-Za-z_-]{8,64}):([0-9a-f]{64})")
_METHOD = re.compile(r"[!-~]+")


def sign(secret: bytes, method: str, path_with_query: str, body: bytes, *, now: float, nonce: str | None = None) -> str:
    """Return the value of the header :data:`AUTH_HEADER` for one call.

    Parameters
    ----------
    secret: the cluster's secret, see :func:`load_secret`.
    method: as sent, in upper case.
    path_with_query: exactly as it stands in the request line (percent-encoded, ``?`` and query included if any).
    body: the whole body as sent; ``b""`` when there is none.
    now: unix time in seconds.
    nonce: 8 to 64 letters, digits, ``_`` or ``-``, never used before; random by default.
    """
    stamp = str(int(now * 1000))
    nonce = nonce if nonce is not None else secrets.token_hex(16)
    return f"v1:{stamp}:{nonce}:{_mac(secret, method, path_with_query, body, stamp, nonce)}"


class Verifier:
    """Checks signed calls. One per receiving process; not for use from several threads at once.

    Parameters
    ----------
    secret: the cluster's secret.
    max_age_seconds: how far the caller's clock may be from ours, in either direction.
    now: unix time in seconds.
    max_nonces: accepted calls that are remembered at most.
    """

    def __init__(
        self,
        secret: bytes,
        *,
        max_age_seconds: float = DEFAULT_MAX_AGE_SECONDS,
        now: Callable[[], float] = time.time,
        max_nonces: int = MAX_NONCES,
    ) -> None:
        self._secret = secret
        self._max_age_seconds = max_age_seconds
        self._now = now
        self._max_nonces = max_nonces
        self._seen: set[str] = set()
        self._expiry: deque[tuple[float, str]] = deque()

    def verify(self, header: str | None, method: str, path_with_query: str, body: bytes) -> None:
        """Return when the call is signed with our secret, fresh and new.

        Raises
        ------
        AuthenticationError: it is not; the message tells the operator which of these it is, and no secret.
        """
        if not header:
            raise AuthenticationError(f"this call must be signed: header {AUTH_HEADER} is missing")
        match = _HEADER.fullmatch(header)
        if match is None:
            raise AuthenticationError(f"header {AUTH_HEADER} is malformed; expected v1:<time ms>:<nonce>:<hmac>")
        stamp, nonce, given = match.groups()
        # The signature comes first: only holders of the secret learn of clocks and nonces, or fill the memory.
        if not hmac.compare_digest(_mac(self._secret, method, path_with_query, body, stamp, nonce), given):
            raise AuthenticationError(
                f"wrong signature on {method} {path_with_query}: do caller and receiver have the same secret?"
            )
        now = self._now()
        age_seconds = now - int(stamp) / 1000
        if abs(age_seconds) > self._max_age_seconds:
            raise AuthenticationError(
                f"the call was signed {abs(age_seconds):.1f} s {'ago' if age_seconds > 0 else 'in the future'}, "
                f"more than {self._max_age_seconds:g} s are refused: are the machines' clocks synchronized?"
            )
        self._remember(nonce, now)

    def _remember(self, nonce: str, now: float) -> None:
        while self._expiry and self._expiry[0][0] < now:
            self._seen.discard(self._expiry.popleft()[1])
        if nonce in self._seen:
            raise AuthenticationError("this call was received before (replayed)")
        if len(self._seen) >= self._max_nonces:
            raise AuthenticationError(
                f"more than {self._max_nonces:,} signed calls within {2 * self._max_age_seconds:g} s; try again later"
            )
        # A stamp may lie max_age ahead and stays acceptable until max_age after that: twice covers every stamp
        # and keeps the queue in order of expiry.
        self._seen.add(nonce)
        self._expiry.append((now + 2 * self._max_age_seconds, nonce))


def new_secret() -> str:
    """Return a new cluster secret: 64 hex digits from the system's random source."""
    return secrets.token_hex(32)


def new_cookie() -> int:
    """Return a needle's cookie: 64 bits from the system's random source."""
    return secrets.randbits(64)


def load_secret(path: str | os.PathLike[str]) -> bytes:
    """Read the cluster's secret from a file that only its owner can read. White space around it is ignored.

    Raises
    ------
    ConfigError: the file is missing, readable by group or others, or holds no usable secret.
    """
    try:
        # Without O_NONBLOCK, opening a FIFO would wait for its writer.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(f"secret file {path}: not a regular file")
            if status.st_mode & 0o077:
                raise ConfigError(
                    f"secret file {path}: mode {stat.S_IMODE(status.st_mode):04o} lets other users read or write it; "
                    f"run: chmod 600 {path}"
                )
            text = file.read(MAX_SECRET_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"secret file {path}: cannot be read: {error.strerror}") from error
    return check_secret(text, f"secret file {path}")


def check_secret(text: bytes, source: str) -> bytes:
    """Return the secret without white space around it.

    Parameters
    ----------
    text: the secret as found.
    source: where it was found, for the message.

    Raises
    ------
    ConfigError: it is too short to protect anything, or too long to be a secret.
    """
    secret = text.strip()
    if len(secret) < MIN_SECRET_BYTES:
        raise ConfigError(f"{source}: holds {len(secret)} bytes, at least {MIN_SECRET_BYTES} are needed")
    if len(text) > MAX_SECRET_FILE_BYTES:
        raise ConfigError(f"{source}: longer than {MAX_SECRET_FILE_BYTES} bytes, this is no secret")
    return secret


def _mac(secret: bytes, method: str, path_with_query: str, body: bytes, stamp: str, nonce: str) -> str:
    if not _METHOD.fullmatch(method):
        raise AuthenticationError(f"{method!r} is not an HTTP method")
    body_hash = hashlib.sha256(body).hexdigest()
    text = "\n".join(("v1", stamp, nonce, body_hash, method, path_with_query))
    return hmac.new(secret, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
