"""Signed URLs: who may see a photo that is not for everybody, and until when.

A photo that was stored as *signed* is given only to a URL that ends with ``?e=<seconds since 1970>&s=<signature>``. The
signature is made from the cluster's secret, so whoever has that (the photo service) can give out URLs, and Stores and
Caches can check them without asking anybody. It holds for one fid, its alternate key included, until that second.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from haystack.fid import Fid

_PURPOSE = b"haystack url key 1"
_SIGNATURE_BYTES = 16
_SIGNATURE_TEXT = 22
"""URL-safe base64 of 16 bytes, without padding: nobody guesses one of 2^128."""
_LAST_SECOND = 2**53


class UrlSigner:
    """Signs fids, and checks what others have signed.

    Parameters
    ----------
    secret: the cluster's; without one nothing can be signed, and no signature is right.
    """

    def __init__(self, secret: bytes | None) -> None:
        self._key = None if secret is None else hmac.digest(secret, _PURPOSE, hashlib.sha256)

    @property
    def able(self) -> bool:
        """Whether there is a secret to sign with."""
        return self._key is not None

    def query(self, fid: Fid, expires: int) -> str:
        """The query of a URL that shows this photo until ``expires``, seconds since 1970; without ``?``.

        Raises ValueError when there is no secret.
        """
        if self._key is None:
            raise ValueError("URLs cannot be signed without a secret of the cluster")
        return f"e={expires}&s={_signature(self._key, fid, expires)}"

    def valid_until(self, fid: Fid, expires: str | None, signature: str | None) -> int:
        """Until when the two fields of a query let the photo be seen, seconds since 1970; 0 when they do not.

        The caller compares with the clock.
        """
        if self._key is None or expires is None or signature is None:
            return 0
        if len(signature) != _SIGNATURE_TEXT or not signature.isascii():
            return 0
        if not (expires.isascii() and expires.isdecimal()) or len(expires) > 16 or int(expires) > _LAST_SECOND:
            return 0
        until = int(expires)
        # The text of the number is what was signed: no second spelling of it.
        if str(until) != expires or not hmac.compare_digest(_signature(self._key, fid, until), signature):
            return 0
        return until


def _signature(key: bytes, fid: Fid, expires: int) -> str:
    digest = hmac.digest(key, f"{fid}\n{expires}".encode("ascii"), hashlib.sha256)
    return base64.urlsafe_b64encode(digest[:_SIGNATURE_BYTES]).rstrip(b"=").decode("ascii")
